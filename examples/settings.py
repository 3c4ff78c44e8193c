"""The settings of a run: what each may be, on the command line and in the run.json of a checkpoint, by the same rules."""

from __future__ import annotations

import argparse
import re
import reprlib
import sys
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch

from fusedrms import FusedRMSProp
from report import COLUMNS

OPTIMIZERS = {"FusedRMSProp": FusedRMSProp, "torch.optim.RMSprop": torch.optim.RMSprop}
EVALUATIONS = 10


class Rule(NamedTuple):
    """What a value may be."""

    kinds: tuple[type, ...]  # the first is what the command line's text becomes
    holds: Callable[[Any], bool]
    wanted: str
    metavar: str | None = None

    def allows(self, value: object) -> bool:
        return type(value) in self.kinds and self.holds(value)  # not isinstance: True is no number

    def read(self, text: str) -> Any:
        """An argparse type."""
        try:
            value = self.kinds[0](text)
        except ValueError:
            value = None
        if not self.allows(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {self.wanted}")
        return value

    def check(self, name: str, value: object) -> None:
        """Raise ValueError unless a value that a file has is allowed."""
        if not self.allows(value):
            raise ValueError(f"{name} is {reprlib.repr(value)}, not {self.wanted}")


def whole(low: int, high: int = 2**31 - 1) -> Rule:
    return Rule((int,), lambda value: low <= value <= high, f"a whole number from {low} to {high}", "N")


class Setting(NamedTuple):
    default: object
    meaning: str
    rule: Rule


DTYPES = ("float32", "bfloat16", "float16")
SETTINGS = {
    "layers": Setting(2, "transformer blocks", whole(1)),
    "heads": Setting(4, "attention heads in each block", whole(1)),
    "width": Setting(192, "numbers that stand for a byte between blocks, a multiple of the heads", whole(1)),
    "context": Setting(64, "bytes that the model sees", whole(1)),
    "batch": Setting(12, "sequences in a step", whole(1)),
    "steps": Setting(700, "steps in all; the learning rate's schedule spans them", whole(1)),
    "lr": Setting(1e-3, "peak learning rate", Rule((float, int), lambda x: 0 < x <= sys.float_info.max, "a finite number above 0")),
    "seed": Setting(0, "of the weights and the batches", whole(0)),
    "dtype": Setting(
        "float32",
        "of parameters and activations",
        Rule((str,), DTYPES.__contains__, f"one of {', '.join(DTYPES)}", f"{{{','.join(DTYPES)}}}"),
    ),
    "compare": Setting(True, "train with torch.optim.RMSprop as well", Rule((bool,), lambda _: True, "true or false")),
    "save_every": Setting(100, "steps from one checkpoint to the next, of which the last two are kept", whole(1)),
    "device": Setting(
        "cuda" if torch.cuda.is_available() else "cpu",
        "cpu, cuda or cuda:N",
        Rule((str,), lambda name: re.fullmatch(r"cpu|cuda(:\d+)?", name) is not None, "cpu, cuda or cuda:N"),
    ),
}
CHANGEABLE = {"save_every", "device"}  # a resumed run may set these anew; all others define the run
SAVED = {**{name: setting.rule for name, setting in SETTINGS.items()}, "text": whole(0, 2**32 - 1)}  # its checksum
NUMBER = Rule((float, int), lambda x: isinstance(x, float) or abs(x) <= sys.float_info.max, "a number")  # a loss may be NaN


def optimizers(settings: dict) -> list[str]:
    """Which train."""
    return list(OPTIMIZERS)[: 1 + settings["compare"]]


def is_evaluated(step: int, steps: int) -> bool:
    """Whether the held-out loss is measured after a step."""
    return step % max(1, steps // EVALUATIONS) == 0 or step == steps


def check_heads(settings: dict) -> None:
    width, heads = settings["width"], settings["heads"]
    if width % heads:
        raise ValueError(f"--width {width}: must be a multiple of --heads {heads}")


def check_keys(name: str, value: object, wanted: Collection[str]) -> None:
    """Raise ValueError unless a value of a file is an object with these keys."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {reprlib.repr(value)}, not an object with {', '.join(wanted)}")
    for key in wanted:
        if key not in value:
            raise ValueError(f"{name} has no {key}")
    for key in value:
        if key not in wanted:
            raise ValueError(f"{name} has {reprlib.repr(key)}, which this version does not know")


def check_run(about: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ValueError, which names what is wrong, unless run.json is that of a run with these tensors."""
    settings, step, rows = (about[name] for name in ("settings", "step", "rows"))
    check_keys("settings", settings, SAVED)
    for name, rule in SAVED.items():
        rule.check(f"settings.{name}", settings[name])
    check_heads(settings)
    check_model(settings, tensors)
    whole(1, settings["steps"]).check("step", step)
    check_rows(rows, step, settings["steps"], optimizers(settings))


def check_model(settings: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Before a model is built, whose size these settings decide."""
    first, *others = (f"{name}.model." for name in OPTIMIZERS)
    try:
        embedding, places = tensors[f"{first}bytes.weight"], tensors[f"{first}places.weight"]
    except KeyError as error:
        raise ValueError(f"the tensors beside it have no {error}") from None
    found = {
        "layers": sum(name.startswith(f"{first}blocks.") and name.endswith(".norm1.weight") for name in tensors),
        "width": embedding.shape[-1],
        "context": places.shape[0],
        "dtype": str(embedding.dtype).removeprefix("torch."),
        "compare": any(f"{other}bytes.weight" in tensors for other in others),
    }
    for name, value in found.items():
        if settings[name] != value:
            raise ValueError(f"settings.{name} is {settings[name]!r}, but the model beside it has {value!r}")


def check_rows(rows: object, step: int, steps: int, names: list[str]) -> None:
    """The metrics: a row for each step and optimizer."""
    if not isinstance(rows, list):
        raise ValueError(f"rows is {reprlib.repr(rows)}, not a list")
    if len(rows) != step * len(names):
        raise ValueError(f"rows has {len(rows)} entries, not {step * len(names)}, which is {len(names)} for each of {step} steps")
    for k, row in enumerate(rows):
        number = k // len(names) + 1
        columns = [name for name in COLUMNS if name != "held_out_loss" or is_evaluated(number, steps)]
        check_keys(f"rows[{k}]", row, columns)
        known = dict(step=number, optimizer=names[k % len(names)])
        for name in columns:
            if name not in known:
                NUMBER.check(f"rows[{k}].{name}", row[name])
            elif type(row[name]) is not type(known[name]) or row[name] != known[name]:
                raise ValueError(f"rows[{k}].{name} is {reprlib.repr(row[name])}, not {known[name]!r}")
