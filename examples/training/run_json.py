"""What run.json must hold: the settings, the step and the metrics of a run, as they fit the tensors of the same checkpoint."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Collection

import torch

from training.report import COLUMNS
from training.settings import OPTIMIZERS, SAVED, Rule, check_heads, integer, is_evaluated, optimizers

NUMBER = Rule((float, int), lambda x: isinstance(x, float) or abs(x) <= sys.float_info.max, "a number")  # a loss may be NaN


def check_keys(name: str, value: object, expected: Collection[str]) -> None:
    """Raise ValueError unless a value of a file is an object with these keys."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {reprlib.repr(value)}, not an object with {', '.join(expected)}")
    for key in expected:
        if key not in value:
            raise ValueError(f"{name} has no {key}")
    for key in value:
        if key not in expected:
            raise ValueError(f"{name} has {reprlib.repr(key)}, which this version does not know")


def check_run(about: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ValueError, which names what is wrong, unless run.json is that of a run with these tensors."""
    settings, step, rows = (about[name] for name in ("settings", "step", "rows"))
    check_keys("settings", settings, SAVED)
    for name, rule in SAVED.items():
        rule.check(f"settings.{name}", settings[name])
    check_heads(settings["width"], settings["heads"])
    check_model(settings, tensors)
    integer(1, settings["steps"]).check("step", step)
    check_rows(rows, step, settings["steps"], optimizers(settings["compare"]))


def check_model(settings: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Before a model is built, whose size these settings decide."""
    first, *others = (f"{name}.model." for name in OPTIMIZERS)
    try:
        embedding, positions = tensors[f"{first}bytes.weight"], tensors[f"{first}places.weight"]
    except KeyError as error:
        raise ValueError(f"the tensors beside it have no {error}") from None
    found = {
        "layers": sum(name.startswith(f"{first}blocks.") and name.endswith(".norm1.weight") for name in tensors),
        "width": embedding.shape[-1],
        "context": positions.shape[0],
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
