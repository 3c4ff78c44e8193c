"""What the commands' arguments name, or why they end there."""

import argparse
from collections.abc import Collection

import torch

from fusedrms import variants
from fusedrms.options import UserError


def device_of(parser: argparse.ArgumentParser, kind: str) -> torch.device:
    """What --device names."""
    try:
        return variants.device_of(kind)
    except UserError as error:
        parser.error(str(error))


def chosen(parser: argparse.ArgumentParser, only: list[str] | None, known: Collection[str]) -> list[str]:
    """What --only names; all where it is not given."""
    if only is None:
        return list(known)
    try:
        variants.check_words("--only", only, known)
    except UserError as error:
        parser.error(str(error))
    return only
