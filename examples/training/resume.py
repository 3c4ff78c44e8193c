"""Which checkpoint a run goes on from: the newest one that is not damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from training.checkpoint_files import ABOUT, CURRENT, METADATA, PREVIOUS, SUMS, files, metadata, read
from training.checksums import verify
from training.run_json import check_keys


class Found(NamedTuple):
    """A checkpoint to resume from."""

    folder: Path
    about: dict  # its run.json
    notes: list[str]  # what the user is to know


def checked(folder: Path) -> Found:
    """The checkpoint in a folder; ValueError names what is damaged."""
    summed = os.path.lexists(folder / SUMS)
    if summed:
        verify(folder)
    metadata(folder)
    for file in files(folder):
        read(file, lambda _: None)
    about = read(folder / ABOUT, lambda file: json.loads(file.read_text()))
    promised = isinstance(about, dict) and about.pop("checksums", None)
    check_keys(ABOUT, about, ("settings", "step", "rows"))
    if promised and not summed:
        raise ValueError(f"{SUMS}: it is missing")
    unsure = f"{folder} has no {SUMS}, since an earlier version saved it: its files cannot be verified"
    return Found(folder=folder, about=about, notes=[] if summed else [unsure])


def located(path: str) -> tuple[Path, list[str]]:
    """A run's folder and the names of its checkpoints, the newest first; only one if `path` is a checkpoint's own folder."""
    run = Path(path)
    if not path:
        saved = [file for name in (CURRENT, PREVIOUS) for file in Path("runs").glob(f"*/{name}/*")]
        if not saved:
            return Path("runs"), []
        run = max(saved, key=lambda file: file.lstat().st_mtime).parent.parent
    elif any(os.path.lexists(run / name) for name in (METADATA, ABOUT)):
        folder = run.resolve()  # of "." and links, too
        return folder.parent, [folder.name]
    return run, [CURRENT, PREVIOUS]


def find(path: str, lock: Callable[[Path], object] = lambda _: None) -> Found:
    """The newest undamaged checkpoint of the run whose folder `path` is, or the checkpoint at `path`; an empty path: of the run saved last.

    Args:
        lock: keeps other runs from writing to a run's folder, before anything there is read.
    """
    run, names = located(path)
    if not any(os.path.lexists(run / name) for name in names):
        expected = "name a run's folder, or the folder checkpoint in it"
        raise ValueError(f"--resume {path or Path('runs').resolve()}: there is no checkpoint; {expected}")
    lock(run)
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
    before = "" if PREVIOUS in names or not os.path.lexists(run / PREVIOUS) else f"name {run} to go on from the checkpoint before it, "
    raise ValueError(f"--resume {path}: {'; '.join(notes)}; restore the file, {before}or name the folder of another run")
