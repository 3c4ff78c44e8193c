"""The rows that a part leaves in a file as it finds them."""

import argparse
import json
import pathlib

import torch

from bench.common.arguments import add_device, device_of, make_parser
from bench.common.store import Row
from fusedrms.tools.files import check_file, place


def rows_parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """Of a part that writes rows."""
    parser = make_parser(module, doc)
    add_device(parser, "cuda")
    parser.add_argument("--quick", action="store_true", help="a small part, to try it")
    parser.add_argument("--rows", type=place, help="file to which each row is added as a line of JSON, as soon as it is known")
    return parser


def parsed(parser: argparse.ArgumentParser, argv: list[str] | None) -> tuple[argparse.Namespace, torch.device]:
    """The arguments and the device, once it is known that rows can be written."""
    given = parser.parse_args(argv)
    try:
        if given.rows:
            check_file(given.rows)
            given.rows.touch()
    except OSError as error:
        parser.error(f"--rows {given.rows}: {error.strerror}; name a file that can be written")
    return given, device_of(parser, given.device)


def append(path: pathlib.Path | None, row: Row) -> None:
    """A line of JSON, which is all there or not at all."""
    if path:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def reason(error: BaseException) -> str:
    """In a line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
