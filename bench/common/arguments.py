"""What the commands' arguments name, or why they end there."""

import argparse
import contextlib
import pathlib
import tempfile
from collections.abc import Collection, Iterator

import torch

from fusedrms.kernels import devices
from fusedrms.tools import variants
from fusedrms.tools.errors import UserError
from fusedrms.tools.files import check_folder, place

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "bench/results"


def make_parser(module: str, doc: str | None, output: bool = False) -> argparse.ArgumentParser:
    """Of a module that is a command; output: with --output."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if output:
        parser.add_argument("--output", type=place, default=RESULTS, help="directory (default: bench/results)")
    return parser


def add_device(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--device", choices=["cpu", *devices.KINDS], default=default, help="device to time on (default: %(default)s)")


def device_of(parser: argparse.ArgumentParser, kind: str) -> torch.device:
    """What --device names."""
    try:
        return variants.device_of(kind)
    except UserError as error:
        parser.error(str(error))


def chosen(parser: argparse.ArgumentParser, only: list[str] | None, known: Collection[str], option: str = "--only") -> list[str]:
    """What the option names; all where it is not given."""
    if only is None:
        return list(known)
    try:
        variants.check_words(option, only, known)
    except UserError as error:
        parser.error(str(error))
    return only


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
