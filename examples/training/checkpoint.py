"""Checkpoints of a run: written by one process or many, read by one or many, in one form.

A run's folder has a folder `checkpoint`, in which torch.distributed.checkpoint keeps models and optimizers, each process writing
its part, run.json the rest, and SHA256SUMS, written last, a checksum of each file. The one before is kept as `checkpoint.old`: where
a file is damaged, a run goes on from there. At any moment one of the two is complete.
"""

# torch.distributed.checkpoint does not name what it exports
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from training.checkpoint_files import ABOUT, CURRENT, PREVIOUS, SUMS
from training.checksums import write_sums
from training.parallel import decided_by_first

NEW, DISCARDED = "checkpoint.new", "checkpoint.gone"  # only while a checkpoint is saved


class NotSaved(Exception):
    """A run's files cannot be written; the text is for the user."""


class NotLoaded(Exception):
    """A run cannot go on from a checkpoint; the text is for the user."""


def causes(error: BaseException) -> str:
    """What went wrong, in any of the processes."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    found = [cause for cause, _ in error.failures.values()] if isinstance(error, CheckpointException) else [error]
    return "; ".join(sorted({f"{type(cause).__name__}: {cause}".partition("\n")[0] for cause in found}))


@contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Raise NotSaved, with what to do, where a file of a run's folder cannot be written; all processes do so together."""
    try:
        yield
    except (OSError, CheckpointException) as error:
        complete = any((folder / name / ABOUT).is_file() for name in (CURRENT, PREVIOUS))
        after = (
            f"continue with --resume {folder}: the checkpoint before is whole"
            if complete
            else "start anew with another --output: there is no checkpoint yet"
        )
        free = f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free there"
        raise NotSaved(f"{folder / what} cannot be written ({causes(error)}; {free}). Make room, then {after}") from None


def save(folder: Path, parts: dict[str, Any], about: dict, last: Path | None = None) -> Path:
    """Replace the checkpoint in `folder` once the new one is complete; all processes call it.

    Args:
        parts: what torch.distributed.checkpoint saves, by name.
        about: what run.json holds.
        last: the checkpoint that the run has loaded or saved last. If it is the old one, that stays, and what came after it goes.

    Returns:
        The new checkpoint.

    Raises:
        OSError, CheckpointException: it cannot be written, in all processes; the one before is complete.
    """
    new, current, old, discarded = (folder / name for name in (NEW, CURRENT, PREVIOUS, DISCARDED))

    def remove() -> None:
        for part in (new, discarded):
            shutil.rmtree(part, ignore_errors=True)

    def complete() -> None:
        # run.json names the checksums, so that they are missed where they are lost
        (new / ABOUT).write_text(json.dumps({**about, "checksums": SUMS}))
        write_sums(new)
        moves = [(current, discarded)] if last == old else [(old, discarded), (current, old)]
        for source, target in moves:
            if source.exists():
                source.rename(target)
        new.rename(current)
        shutil.rmtree(discarded, ignore_errors=True)  # last: what is removed may take a while

    if dist.get_rank() == 0:  # before any process writes: a save begins with a plan that the first takes part in
        remove()
    try:
        dcp.save(parts, checkpoint_id=new)
        decided_by_first(complete)
    except (OSError, CheckpointException):
        decided_by_first(remove)  # what is half written takes the room
        raise
    return current


def load(folder: Path, parts: dict[str, Any]) -> None:
    """Load what save() was given as `parts`; all processes call it."""
    try:
        dcp.load(parts, checkpoint_id=folder)
    except CheckpointException as error:
        raise ValueError(f"--resume {folder}: the checkpoint is damaged ({causes(error)})") from None
