"""The job that the options ask for, checked against each other, the processes, the checkpoint and the text."""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from gpt import corpus
from training.checkpoint_files import ABOUT, tensors
from training.folder import new_folder
from training.options import TIMEOUT, available
from training.resume import Found, find
from training.run_json import check_run
from training.settings import ADDED, CHANGEABLE, SETTINGS, check_heads


class Job(NamedTuple):
    """All that a run needs to know before it starts."""

    settings: argparse.Namespace
    folder: Path
    parallel: str | None
    checkpoint: Path | None  # to resume from, after `step` steps, whose metrics are `rows`
    notes: list[str]  # what there is to say of it
    step: int
    rows: list[dict]
    stop_at: int
    timeout: int  # seconds
    train_text: np.ndarray
    held_out_text: np.ndarray


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


def resumable(path: str, lock: Callable[[Path], object]) -> Found:
    """The checkpoint that --resume names; ValueError unless this program can go on from it."""
    found = find(path, lock)
    if isinstance(settings := found.about["settings"], dict):
        found.about["settings"] = {**ADDED, **settings}
    try:
        check_run(found.about, tensors(found.folder))
    except ValueError as error:
        remedy = "restore the checkpoint, or start a new run without --resume"
        raise ValueError(f"--resume {path}: {found.folder / ABOUT} does not fit this program: {error}; {remedy}") from None
    return found


def check_device(device: str) -> None:
    """Raise ValueError unless the device of a run, which may have begun on another machine, is available here."""
    try:
        available(device)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"the run to resume used --device {error}; choose one with --device") from None


def texts(settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """The text to train on and the held-out text; their checksum becomes a setting, and is checked where it is one."""
    train, held_out = corpus()
    if settings["context"] >= len(held_out):
        raise ValueError(f"--context {settings['context']}: must be below {len(held_out)}, the bytes of held-out text")
    checksum = zlib.crc32(held_out.data, zlib.crc32(train.data))
    if settings.setdefault("text", checksum) != checksum:
        raise ValueError("--resume: this Python's standard library is not the one that the run was trained on; use the same Python")
    return train, held_out


def prepare(options: dict, lock: Callable[[Path], object]) -> Job:
    """Check the options and make the run's folder; an error says which option is wrong and what is allowed.

    Args:
        options: those given on the command line, by name.
        lock: keeps other runs from writing to the run's folder, before a checkpoint there is read.
    """
    resume, output, stop_at, timeout, parallel = (
        options.pop(name, None) for name in ("resume", "output", "stop_at", "timeout", "parallel")
    )
    if resume is not None and output:
        raise ValueError(f"--output {output}: not allowed with --resume, which continues in the run's own folder")
    found = None if resume is None else resumable(resume, lock)
    if found:
        settings = continued(options, found.about["settings"])
    else:
        settings = {**{name: setting.default for name, setting in SETTINGS.items()}, **options}
    check_heads(settings["width"], settings["heads"])
    if stop_at and stop_at > settings["steps"]:
        raise ValueError(f"--stop-at {stop_at}: must be at most --steps {settings['steps']}")
    check_device(settings["device"])
    check_processes(parallel, settings["batch"], settings["device"])
    train_text, held_out_text = texts(settings)
    folder = found.folder.parent if found else new_folder(output)
    if not found:
        lock(folder)
    return Job(
        settings=argparse.Namespace(**settings),
        folder=folder,
        parallel=parallel,
        checkpoint=found.folder if found else None,
        notes=found.notes if found else [],
        step=found.about["step"] if found else 0,
        rows=found.about["rows"] if found else [],
        stop_at=stop_at or settings["steps"],
        timeout=timeout or TIMEOUT,
        train_text=train_text,
        held_out_text=held_out_text,
    )
