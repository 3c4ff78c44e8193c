"""What the commands' arguments name, or why they end there."""

import argparse
import contextlib
import pathlib
import tempfile
from collections.abc import Collection, Iterator

import torch

from fusedrms.engine.options import UserError
from fusedrms.tools import variants
from fusedrms.tools.files import check_folder


def device_of(parser: argparse.ArgumentParser, kind: str) -> torch.device:
    """What --device names."""
    try:
        return variants.device_of(kind)
    except UserError as error:
        parser.error(str(error))


def check_output(parser: argparse.ArgumentParser, folder: pathlib.Path) -> None:
    """Make the directory of --output if need be, and see that it can be written before anything is measured."""
    try:
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"--output {folder}: {error.strerror}; name a directory that can be written")


@contextlib.contextmanager
def writing(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End with exit status 1, having said why, where results cannot be written; what is to be seen of them is printed before."""
    try:
        yield
    except OSError as error:
        remedy = "free space there, or name another place"
        parser.exit(1, f"{parser.prog}: error: {error.filename} cannot be written ({error.strerror}): {remedy}\n")


def chosen(parser: argparse.ArgumentParser, only: list[str] | None, known: Collection[str]) -> list[str]:
    """What --only names; all where it is not given."""
    if only is None:
        return list(known)
    try:
        variants.check_words("--only", only, known)
    except UserError as error:
        parser.error(str(error))
    return only
