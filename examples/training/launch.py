"""From the command line to a Run, and from its errors to messages and exit statuses, in one process or several."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from training.checkpoint import NotLoaded, NotSaved
from training.folder import locked
from training.job import Job, prepare
from training.options import parser
from training.parallel import decided_by_first, process_group, set_timeout
from training.run import Run


def requested(command: ArgumentParser, argv: list[str] | None, locks: ExitStack) -> Job:
    """The job that the command line asks for, whose folder is locked until `locks` is closed."""
    try:
        return prepare(vars(command.parse_args(argv)), lambda folder: locks.enter_context(locked(folder)))
    except (ValueError, OSError) as error:
        command.error(str(error))


def make_deterministic(device: str) -> None:
    """Else attention's backward pass is free to add up in any order on a GPU."""
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def launched(about: str | None, argv: list[str] | None) -> Iterator[Run]:
    """The run that the command line asks for, in all processes, with its folder locked; what is wrong is said once.

    Args:
        about: what --help says of the program.
        argv: the command line's options. Default: this process's.
    """
    command = parser(about)
    with process_group(), ExitStack() as locks:
        job = decided_by_first(lambda: requested(command, argv, locks))
        set_timeout(job.timeout)
        make_deterministic(job.settings.device)
        try:
            yield Run(job)
        except NotLoaded as error:
            message = str(error)
            decided_by_first(lambda: command.error(message))
        except NotSaved as error:
            message = f"{command.prog}: error: {error}\n"
            decided_by_first(lambda: command.exit(1, message))
