"""Checkpoints of a run: written by one process or many, read by one or many, in one form.

A run's folder has a folder `checkpoint`, in which torch.distributed.checkpoint keeps models and optimizers, each process writing
its part, run.json the rest, and SHA256SUMS, written last, a checksum of each file. The one before is kept as `checkpoint.old`: where
a file is damaged, a run goes on from there. At any moment one of the two is complete.
"""

# torch.distributed.checkpoint does not name what it exports
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from parallel import first_decides
from settings import check_keys

NEW, CURRENT, OLD, GONE = "checkpoint.new", "checkpoint", "checkpoint.old", "checkpoint.gone"
SUMS = "SHA256SUMS"
SUM = re.compile(r"([0-9a-f]{64})  ([^/\n]+)\n")  # a line as sha256sum writes it


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


def digest(file: Path) -> str:
    """SHA-256 of a file; 15 MB take 10 ms."""
    result = hashlib.sha256()
    with file.open("rb", buffering=0) as content:
        while part := content.read(1 << 20):
            result.update(part)
    return result.hexdigest()


def files(folder: Path) -> list[Path]:
    """All that a checkpoint is read from."""
    return sorted(file for pattern in ("*.distcp", ".metadata", "run.json") for file in folder.glob(pattern))


def save(folder: Path, parts: dict[str, Any], about: dict, last: Path | None = None) -> Path:
    """Replace the checkpoint in `folder` once the new one is complete; all processes call it.

    Args:
        last: the checkpoint that the run has loaded or saved last. If it is the old one, that stays, and what came after it goes.

    Returns:
        The new checkpoint.

    Raises:
        OSError, CheckpointException: it cannot be written, in all processes; the one before is whole.
    """
    new, current, old, gone = (folder / name for name in (NEW, CURRENT, OLD, GONE))

    def remove() -> None:
        for part in (new, gone):
            shutil.rmtree(part, ignore_errors=True)

    def complete() -> None:
        # run.json names the checksums, so that they are missed where they are lost
        (new / "run.json").write_text(json.dumps({**about, "checksums": SUMS}))
        (new / SUMS).write_text("".join(f"{digest(file)}  {file.name}\n" for file in files(new)))
        moves = [(current, gone)] if last == old else [(old, gone), (current, old)]
        for source, target in moves:
            if source.exists():
                source.rename(target)
        new.rename(current)
        shutil.rmtree(gone, ignore_errors=True)  # last: what is removed may take a while

    if dist.get_rank() == 0:  # before any process writes: a save begins with a plan that the first takes part in
        remove()
    try:
        dcp.save(parts, checkpoint_id=new)
        first_decides(complete)
    except (OSError, CheckpointException):
        first_decides(remove)  # what is half written takes the room
        raise
    return current


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


def sums(folder: Path) -> list[tuple[str, str]]:
    """The checksums in SHA256SUMS, with the files' names."""
    listed = []
    for line in read(folder / SUMS, Path.read_bytes).decode(errors="replace").splitlines(keepends=True):
        match = SUM.fullmatch(line)
        if not match:
            raise ValueError(f"{SUMS}: {reprlib.repr(line)} is no line of a checksum, two spaces and a name")
        listed.append(match.groups())
    return listed


def verify(folder: Path) -> None:
    """Raise ValueError, which names what is damaged, unless a checkpoint's files are those that were saved."""
    listed = sums(folder)
    wrong = [f"{file.name}: {SUMS} does not list it" for file in files(folder) if file.name not in (name for _, name in listed)]
    for wanted, name in listed:
        try:
            found, size = read(folder / name, lambda file: (digest(file), file.stat().st_size))
        except ValueError as error:
            wrong.append(str(error))
        else:
            if found != wanted:
                wrong.append(f"{name}: its {size:,} bytes are not those of its checksum in {SUMS}")
    if wrong:
        raise ValueError("; ".join(wrong))


class Found(NamedTuple):
    """A checkpoint to resume from."""

    folder: Path
    about: dict  # its run.json
    notes: list[str]  # what the user is to know


def checked(folder: Path) -> Found:
    """A checkpoint that is whole; ValueError names what is damaged."""
    summed = os.path.lexists(folder / SUMS)
    if summed:
        verify(folder)
    metadata(folder)
    for file in files(folder):
        read(file, lambda _: None)
    about = read(folder / "run.json", lambda file: json.loads(file.read_text()))
    promised = isinstance(about, dict) and about.pop("checksums", None)
    check_keys("run.json", about, ("settings", "step", "rows"))
    if promised and not summed:
        raise ValueError(f"{SUMS}: it is missing")
    unsure = f"{folder} has no {SUMS}, since an earlier version saved it: its files cannot be verified"
    return Found(folder, about, [] if summed else [unsure])


def located(path: str) -> tuple[Path, list[str]]:
    """A run's folder and the names of its checkpoints, the newest first; only one if `path` is a checkpoint's own folder."""
    run = Path(path)
    if not path:
        saved = [file for name in (CURRENT, OLD) for file in Path("runs").glob(f"*/{name}/*")]
        if not saved:
            return Path("runs"), []
        run = max(saved, key=lambda file: file.lstat().st_mtime).parent.parent
    elif any(os.path.lexists(run / name) for name in (".metadata", "run.json")):
        folder = run.resolve()  # of "." and links, too
        return folder.parent, [folder.name]
    return run, [CURRENT, OLD]


def find(path: str, hold: Callable[[Path], object] = lambda _: None) -> Found:
    """The newest whole checkpoint of the run whose folder `path` is, or the checkpoint at `path`; an empty path: of the run saved last.

    Args:
        hold: keeps other runs from writing to a run's folder, before anything there is read.
    """
    run, names = located(path)
    if not any(os.path.lexists(run / name) for name in names):
        wanted = "name a run's folder, or the folder checkpoint in it"
        raise ValueError(f"--resume {path or Path('runs').resolve()}: there is no checkpoint; {wanted}")
    hold(run)
    notes: list[str] = []
    for folder in (run / name for name in names if os.path.lexists(run / name)):
        try:
            found = checked(folder)
        except ValueError as error:
            notes.append(f"{folder} is damaged, or not a checkpoint of this program ({error})")
            continue
        if notes:
            notes.append(f"Going on from the checkpoint before it, {folder}, saved after step {found.about['step']}")
        return found._replace(notes=notes + found.notes)
    before = "" if OLD in names or not os.path.lexists(run / OLD) else f"name {run} to go on from the checkpoint before it, "
    raise ValueError(f"--resume {path}: {'; '.join(notes)}; restore the file, {before}or name the folder of another run")


def load(folder: Path, parts: dict[str, Any]) -> None:
    """Load what save() was given as `parts`; all processes call it."""
    try:
        dcp.load(parts, checkpoint_id=folder)
    except CheckpointException as error:
        raise ValueError(f"--resume {folder}: the checkpoint is damaged ({causes(error)})") from None
