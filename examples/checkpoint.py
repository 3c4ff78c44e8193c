"""Checkpoints of a run: written by one process or many, read by one or many, in one form.

A run's folder has a folder `checkpoint`, in which torch.distributed.checkpoint keeps models and optimizers, each process writing
its part, and run.json the rest. While it is replaced, the one before is called `checkpoint.old`, and one is always complete.
"""

# torch.distributed.checkpoint does not name what it exports
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from parallel import first_decides
from settings import check_keys

NEW, CURRENT, OLD = "checkpoint.new", "checkpoint", "checkpoint.old"


class NotSaved(Exception):
    """A run's files cannot be written; the text is for the user."""


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
        whole = any((folder / name / "run.json").is_file() for name in (CURRENT, OLD))
        after = (
            f"continue with --resume {folder}: the checkpoint before is whole"
            if whole
            else "start anew with another --output: there is no checkpoint yet"
        )
        free = f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free there"
        raise NotSaved(f"{folder / what} cannot be written ({causes(error)}; {free}). Make room, then {after}") from None


def save(folder: Path, parts: dict[str, Any], about: dict) -> None:
    """Replace the checkpoint in `folder` once the new one is complete; all processes call it.

    Raises:
        OSError, CheckpointException: it cannot be written, in all processes; the one before is whole.
    """
    new, current, old = folder / NEW, folder / CURRENT, folder / OLD

    def remove() -> None:
        shutil.rmtree(new, ignore_errors=True)

    def complete() -> None:
        (new / "run.json").write_text(json.dumps(about))
        if current.exists():
            shutil.rmtree(old, ignore_errors=True)
            current.rename(old)
        new.rename(current)
        shutil.rmtree(old, ignore_errors=True)

    if dist.get_rank() == 0:  # before any process writes: a save begins with a plan that the first takes part in
        remove()
    try:
        dcp.save(parts, checkpoint_id=new)
        first_decides(complete)
    except (OSError, CheckpointException):
        first_decides(remove)  # what is half written takes the room
        raise


def read(file: Path, reader: Callable[[Path], Any]) -> Any:
    """What a reader finds in a file, which may hold anything; ValueError if it fails."""
    try:
        if not file.is_file():  # a pipe would block
            raise ValueError("it is no regular file" if os.path.lexists(file) else "it is missing")
        return reader(file)
    except Exception as error:  # what a reader raises on files that others wrote may be nearly anything
        raise ValueError(f"{file.name}: {str(error).partition(chr(10))[0] or type(error).__name__}") from None


def metadata(folder: Path) -> Any:
    return read(folder / ".metadata", lambda file: dcp.FileSystemReader(file.parent).read_metadata())


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by their names, without their values."""
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
        for name, entry in metadata(folder).state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def find(path: str) -> tuple[Path, dict]:
    """The folder and run.json of the checkpoint at `path`, a run's folder or the checkpoint's; an empty path: of the one saved last."""
    wanted = "name a run's folder, or the folder checkpoint in it"
    if path:
        found = [folder for folder in (Path(path), Path(path, CURRENT), Path(path, OLD)) if os.path.lexists(folder / "run.json")][:1]
    else:
        files = [file for name in (CURRENT, OLD) for file in Path("runs").glob(f"*/{name}/run.json")]
        found = [file.parent for file in sorted(files, key=lambda file: file.stat().st_mtime)][-1:]
    if not found:
        raise ValueError(f"--resume {path or Path('runs').resolve()}: there is no checkpoint; {wanted}")
    try:
        metadata(found[0])
        for file in found[0].glob("*.distcp"):
            read(file, lambda _: None)
        about = read(found[0] / "run.json", lambda file: json.loads(file.read_text()))
        check_keys("run.json", about, ("settings", "step", "rows"))
        return found[0], about
    except ValueError as error:
        raise ValueError(f"--resume {path}: {found[0]} is not a checkpoint of this program ({error}); {wanted} of another run") from None


def load(folder: Path, parts: dict[str, Any]) -> None:
    """Load what save() was given as `parts`; all processes call it."""
    try:
        dcp.load(parts, checkpoint_id=folder)
    except CheckpointException as error:
        raise ValueError(f"--resume {folder}: the checkpoint is damaged ({causes(error)})") from None
