"""The command line of train_gpt.py: its options, and what they may be."""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

import checkpoint
from fusedrms.tools.files import place
from gpt import corpus
from settings import CHANGEABLE, SETTINGS, check_heads, check_run, whole

TIMEOUT = 600
LOCK = "run.lock"  # in a run's folder; held while something writes there


class Job(NamedTuple):
    """All that a run needs to know before it starts."""

    settings: dict
    folder: Path
    parallel: str | None
    checkpoint: Path | None  # to resume from, after `step` steps, whose metrics are `rows`
    notes: list[str]  # what there is to say of it
    step: int
    rows: list[dict]
    stop_at: int
    timeout: int
    train: np.ndarray
    held_out: np.ndarray


def available(device: str) -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = ["cpu", *["cuda"][:count], *(f"cuda:{index}" for index in range(count))]
    if device not in allowed:
        raise argparse.ArgumentTypeError(f"{device!r} is not available here; this machine offers {', '.join(allowed)}")
    return device


def parser(about: str | None) -> argparse.ArgumentParser:
    """Options left out stay out of the result, so that a resumed run can tell them from those given."""
    result = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )

    for name, (default, meaning, rule) in SETTINGS.items():
        kind: dict[str, Any] = dict(type=available if name == "device" else rule.read, metavar=rule.metavar)
        if rule.kinds == (bool,):
            kind = dict(action=argparse.BooleanOptionalAction)
        result.add_argument("--" + name.replace("_", "-"), help=f"{meaning} (default: {default})", **kind)
    result.add_argument(
        "--parallel",
        choices=("ddp", "fsdp"),
        help="share each step among the processes that torchrun started: each holds the whole model (DistributedDataParallel), "
        "or a part of each block (fully_shard). The losses are those of one process, to rounding",
    )
    result.add_argument("--stop-at", type=whole(1).read, metavar="N", help="save and stop after this step, to be resumed later")
    result.add_argument(
        "--timeout", type=whole(1).read, metavar="N", help=f"seconds to wait for processes that do not answer (default: {TIMEOUT})"
    )
    result.add_argument("--output", type=place, metavar="FOLDER", help="new or empty folder to write to (default: runs/<time>)")
    result.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="PATH",
        help="continue the run in this folder (default: the one in runs/ saved last), with its settings; only --save-every, "
        "--stop-at, --timeout, --device, --parallel and the number of processes may be others. With the same machine, software, --parallel "
        "and number of processes and threads, the result equals bit for bit that of a run never stopped. If a file of its checkpoint is "
        "damaged, it goes on from the one before, checkpoint.old; where a checkpoint's own folder is named, only from that one",
    )
    return result


def option(name: str, value: object) -> str:
    """How a setting reads on the command line."""
    flag = name.replace("_", "-")
    return f"--{flag} {value}" if not isinstance(value, bool) else f"--{flag}" if value else f"--no-{flag}"


def continued(given: dict, saved: dict) -> dict:
    """The settings of a resumed run: those saved, with what is given anew; other options may only repeat them."""
    for name in sorted(given.keys() - CHANGEABLE):
        if given[name] != saved[name]:
            raise ValueError(f"{option(name, given[name])}: the run to resume has {option(name, saved[name])}; leave the option out")
    return {**saved, **given}


def new_folder(path: Path | None) -> Path:
    folder = path or Path("runs", time.strftime("%Y-%m-%d_%H-%M-%S"))
    # of a run that was killed at once the lock alone is left
    if folder.exists() and (not folder.is_dir() or any(each.name != LOCK for each in folder.iterdir())):
        raise ValueError(f"--output {folder}: already exists; name a new or empty folder, or continue a run with --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {folder}: cannot be made ({error.strerror}); name another folder") from None
    return folder


def check_processes(parallel: str | None, batch: int, device: str) -> None:
    """Raise ValueError unless these options suit the processes that there are."""
    count, torchrun = dist.get_world_size(), dist.is_torchelastic_launched()
    if torchrun and not parallel:
        raise ValueError(f"--parallel: choose ddp or fsdp for torchrun's {count} processes; without torchrun one process trains alone")
    if parallel and not torchrun:
        command = f"torchrun --standalone --nproc-per-node 2 {sys.argv[0]} --parallel {parallel}"
        raise ValueError(f"--parallel {parallel}: needs processes that torchrun starts: {command}")
    if batch % count:
        raise ValueError(f"--batch {batch}: must be a multiple of the number of processes, {count}")
    if torchrun and device != "cpu":
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        if device != "cuda" or here > torch.cuda.device_count():
            raise ValueError(
                f"--device {device}: each of {here} processes takes a GPU of its own: choose cuda, with no more processes than the "
                f"{torch.cuda.device_count()} GPUs, or cpu"
            )


def prepare(given: dict, hold: Callable[[Path], object]) -> Job:
    """Check the options against each other, the checkpoint and the text; an error says which is wrong and what is allowed.

    Args:
        hold: keeps other runs from writing to the run's folder, before a checkpoint there is read.
    """
    resume, output, stop_at, timeout, parallel = (given.pop(name, None) for name in ("resume", "output", "stop_at", "timeout", "parallel"))
    if resume is not None and output:
        raise ValueError(f"--output {output}: not allowed with --resume, which continues in the run's own folder")
    found, saved, notes = (None, {"step": 0, "rows": []}, []) if resume is None else checkpoint.find(resume, hold)
    if found:
        try:
            check_run(saved, checkpoint.tensors(found))
        except ValueError as error:
            remedy = "restore the checkpoint, or start a new run without --resume"
            raise ValueError(f"--resume {resume}: {found / 'run.json'} does not fit this program: {error}; {remedy}") from None
    defaults = {name: setting.default for name, setting in SETTINGS.items()}
    settings = continued(given, saved["settings"]) if found else {**defaults, **given}
    check_heads(settings)
    context, steps = settings["context"], settings["steps"]
    if stop_at and stop_at > steps:
        raise ValueError(f"--stop-at {stop_at}: must be at most --steps {steps}")
    try:
        available(settings["device"])
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"the run to resume used --device {error}; choose one with --device") from None
    check_processes(parallel, settings["batch"], settings["device"])
    train, held_out = corpus()
    if context >= len(held_out):
        raise ValueError(f"--context {context}: must be below {len(held_out)}, the bytes of held-out text")
    text = zlib.crc32(held_out.data, zlib.crc32(train.data))
    if settings.setdefault("text", text) != text:
        raise ValueError("--resume: this Python's standard library is not the one that the run was trained on; use the same Python")
    folder = found.parent if found else new_folder(output)
    if not found:
        hold(folder)
    return Job(
        settings, folder, parallel, found, notes, saved["step"], saved["rows"], stop_at or steps, timeout or TIMEOUT, train, held_out
    )
