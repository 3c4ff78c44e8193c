"""What the commands' arguments name, or why they end there."""

import argparse
from collections.abc import Collection

import torch

from fusedrms.kernels import devices


def device_of(parser: argparse.ArgumentParser, kind: str) -> torch.device:
    """What --device names."""
    try:
        return devices.find(kind)
    except LookupError as error:
        parser.error(f"--device {kind}: {error}; use --device cpu")


def chosen(parser: argparse.ArgumentParser, only: list[str] | None, known: Collection[str]) -> list[str]:
    """What --only names; all where it is not given."""
    if only is None:
        return list(known)
    wrong = [name for name in only if name not in known]
    if wrong or not only:
        parser.error(f"--only {','.join(wrong)}: it takes at least one of {', '.join(known)}")
    return only
