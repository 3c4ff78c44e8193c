"""The settings of a run: what each may be, on the command line and in the run.json of a checkpoint, by the same rules."""

from __future__ import annotations

import argparse
import re
import reprlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

OPTIMIZERS = ("FusedRMSProp", "torch.optim.RMSprop")
EVALUATIONS = 10


class Rule(NamedTuple):
    """What a value may be."""

    types: tuple[type, ...]  # the first is what the command line's text becomes
    holds: Callable[[Any], bool]
    expected: str
    metavar: str | None = None

    def allows(self, value: object) -> bool:
        return type(value) in self.types and self.holds(value)  # not isinstance: True is no number

    def parse(self, text: str) -> Any:
        """An argparse type."""
        try:
            value = self.types[0](text)
        except ValueError:
            value = None
        if not self.allows(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {self.expected}")
        return value

    def check(self, name: str, value: object) -> None:
        """Raise ValueError unless a value that a file has is allowed."""
        if not self.allows(value):
            raise ValueError(f"{name} is {reprlib.repr(value)}, not {self.expected}")


def integer(low: int, high: int = 2**31 - 1) -> Rule:
    return Rule((int,), lambda value: low <= value <= high, f"a whole number from {low} to {high}", "N")


class Setting(NamedTuple):
    default: object
    meaning: str
    rule: Rule


DTYPES = ("float32", "bfloat16", "float16")
SETTINGS = {
    "layers": Setting(2, "transformer blocks", integer(1)),
    "heads": Setting(4, "attention heads in each block", integer(1)),
    "width": Setting(192, "numbers that stand for a byte between blocks, a multiple of the heads", integer(1)),
    "context": Setting(64, "bytes that the model sees", integer(1)),
    "batch": Setting(12, "sequences in a step", integer(1)),
    "steps": Setting(700, "steps in all; the learning rate's schedule spans them", integer(1)),
    "lr": Setting(1e-3, "peak learning rate", Rule((float, int), lambda x: 0 < x <= sys.float_info.max, "a finite number above 0")),
    "seed": Setting(0, "of the weights and the batches", integer(0)),
    "dtype": Setting(
        "float32",
        "of parameters and activations",
        Rule((str,), DTYPES.__contains__, f"one of {', '.join(DTYPES)}", f"{{{','.join(DTYPES)}}}"),
    ),
    "compare": Setting(True, "train with torch.optim.RMSprop as well", Rule((bool,), lambda _: True, "true or false")),
    "save_every": Setting(100, "steps from one checkpoint to the next, of which the last two are kept", integer(1)),
    "stats": Setting(
        10, "steps from one whose update ratios and other statistics of FusedRMSProp go to stats.csv to the next; 0: none", integer(0)
    ),
    "device": Setting(
        "cuda" if torch.cuda.is_available() else "cpu",
        "cpu, cuda or cuda:N",
        Rule((str,), lambda name: re.fullmatch(r"cpu|cuda(:\d+)?", name) is not None, "cpu, cuda or cuda:N"),
    ),
}
CHANGEABLE = {"save_every", "stats", "device"}  # a resumed run may set these anew; all others define the run
ADDED = {"stats": 0}  # settings that runs saved by earlier versions lack, and what those did
SAVED = {**{name: setting.rule for name, setting in SETTINGS.items()}, "text": integer(0, 2**32 - 1)}  # its checksum


def optimizers(compare: bool) -> list[str]:
    """The names of those that train."""
    return list(OPTIMIZERS if compare else OPTIMIZERS[:1])


def is_evaluated(step: int, steps: int) -> bool:
    """Whether the held-out loss is measured after a step."""
    return step % max(1, steps // EVALUATIONS) == 0 or step == steps


def check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"--width {width}: must be a multiple of --heads {heads}")
