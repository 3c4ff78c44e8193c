"""Checkpoints of a run: written by one process or many, read by one or many, in one form.

A run's folder has a folder `checkpoint`, in which torch.distributed.checkpoint keeps models and optimizers, each process writing
its part, and run.json the rest. While it is replaced, the one before is called `checkpoint.old`, and one is always complete.
"""

# torch.distributed.checkpoint does not name what it exports
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

NEW, CURRENT, OLD = "checkpoint.new", "checkpoint", "checkpoint.old"


def save(folder: Path, parts: dict[str, Any], about: dict) -> None:
    """Replace the checkpoint in `folder` once the new one is complete; all processes call it."""
    first = dist.get_rank() == 0
    new, current, old = folder / NEW, folder / CURRENT, folder / OLD
    if first:  # before any process writes: a save begins with a plan that the first takes part in
        shutil.rmtree(new, ignore_errors=True)
    dcp.save(parts, checkpoint_id=new)
    if first:
        (new / "run.json").write_text(json.dumps(about))
        if current.exists():
            shutil.rmtree(old, ignore_errors=True)
            current.rename(old)
        new.rename(current)
        shutil.rmtree(old, ignore_errors=True)


def find(path: str) -> tuple[Path, dict]:
    """The folder and run.json of the checkpoint at `path`, a run's folder or the checkpoint's; an empty path: of the one saved last."""
    wanted = "name a run's folder, or the folder checkpoint in it"
    if path:
        found = [folder for folder in (Path(path), Path(path, CURRENT), Path(path, OLD)) if (folder / "run.json").is_file()][:1]
    else:
        files = [file for name in (CURRENT, OLD) for file in Path("runs").glob(f"*/{name}/run.json")]
        found = [file.parent for file in sorted(files, key=lambda file: file.stat().st_mtime)][-1:]
    if not found:
        raise ValueError(f"--resume {path or Path('runs').resolve()}: there is no checkpoint; {wanted}")
    try:
        dcp.FileSystemReader(found[0]).read_metadata()
        about = json.loads((found[0] / "run.json").read_text())
        return found[0], {key: about[key] for key in ("settings", "step", "rows")}
    except Exception as error:  # what the reader raises on files that others wrote may be nearly anything
        raise ValueError(f"--resume {path}: {found[0]} is not a checkpoint of this program ({type(error).__name__})") from None


def load(folder: Path, parts: dict[str, Any]) -> None:
    """Load what save() was given as `parts`; all processes call it."""
    try:
        dcp.load(parts, checkpoint_id=folder)
    except CheckpointException as error:
        causes = {f"{type(cause).__name__}: {cause}" for cause, _ in error.failures.values()}
        raise ValueError(f"--resume {folder}: the checkpoint is damaged ({'; '.join(sorted(causes))})") from None
