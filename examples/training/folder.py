"""A run's folder: made by one run, locked by whichever writes to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "run.lock"


def new_folder(path: Path | None, remedy: str = "name a new or empty folder, or continue a run with --resume") -> Path:
    """Make the folder of a new run; without a path, runs/<time>. remedy: what to do where there is one with files in it."""
    folder = path or Path("runs", time.strftime("%Y-%m-%d_%H-%M-%S"))
    # of a run that was killed at once the lock alone remains
    if folder.exists() and (not folder.is_dir() or any(each.name != LOCK for each in folder.iterdir())):
        raise ValueError(f"--output {folder}: already exists; {remedy}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {folder}: cannot be made ({error.strerror}); name another folder") from None
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs from writing to the folder; ValueError if one does."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder}: another run is writing to it; wait until it ends, or name another folder with --output") from None
    except OSError as error:
        raise ValueError(f"{lock.lock_file}: cannot be written ({error.strerror}); make room for it, or remove what is there") from None
    try:
        yield
    finally:
        lock.release()
