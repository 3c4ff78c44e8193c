"""The files of a checkpoint, which may hold anything when they are read."""

# torch.distributed.checkpoint does not name what it exports
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

CURRENT, PREVIOUS = "checkpoint", "checkpoint.old"  # in a run's folder
ABOUT = "run.json"
METADATA = ".metadata"
SUMS = "SHA256SUMS"


def files(folder: Path) -> list[Path]:
    """All that a checkpoint is read from."""
    return sorted(file for pattern in ("*.distcp", METADATA, ABOUT) for file in folder.glob(pattern))


def read(file: Path, reader: Callable[[Path], Any]) -> Any:
    """What a reader finds in a file; ValueError if it fails."""
    try:
        if not file.is_file():  # a pipe would block
            raise ValueError("it is no regular file" if os.path.lexists(file) else "it is missing")
        return reader(file)
    except Exception as error:  # what a reader raises on files that others wrote may be nearly anything
        raise ValueError(f"{file.name}: {str(error).partition(chr(10))[0] or type(error).__name__}") from None


def metadata(folder: Path) -> Any:
    return read(folder / METADATA, lambda file: dcp.FileSystemReader(file.parent).read_metadata())


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by their names, without their values."""
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
        for name, entry in metadata(folder).state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
