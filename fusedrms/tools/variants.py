"""The usual ways to run a step, by name: what tune, inspect and compile go through."""

import functools
from collections.abc import Collection
from typing import Any, NamedTuple

import torch

from ..engine.state.storage import fit
from ..engine.state.tensor_checks import check_precision
from ..engine.tables.layout import storage_of
from ..kernels import devices
from ..kernels.storage import Storage
from ..rmsprop import FusedRMSProp
from ..smorms3 import FusedSMORMS3
from .errors import UserError

RULES: dict[str, tuple[type[FusedRMSProp] | type[FusedSMORMS3], dict[str, Any]]] = {
    "rmsprop": (FusedRMSProp, {}),
    "rmsprop_momentum": (FusedRMSProp, dict(momentum=0.9)),
    "rmsprop_centered": (FusedRMSProp, dict(centered=True)),
    "rmsprop_centered_momentum": (FusedRMSProp, dict(centered=True, momentum=0.9)),
    "smorms3": (FusedSMORMS3, {}),
}
DTYPES = ("float32", "float64", "bfloat16", "float16")
OPTIONS: dict[str, dict[str, Any]] = {
    "stochastic": dict(stochastic_rounding=True),
    "master": dict(master_weights="float32"),
    "split": dict(master_weights="split"),
    "split24": dict(master_weights="split24"),
    "bf16": dict(state_dtype=torch.bfloat16),
    "8bit": dict(state_dtype="8bit"),
    "4bit": dict(state_dtype="4bit"),
    "ema": dict(ema_decay=0.9999),
    "stats": dict(stats=True),
    "caution": dict(caution=True),
}
# the dtype of parameters and gradients, and how they and their states are stored: of each one the others of OPTIONS may be asked for too
MODES = (
    "float32",
    "float32+8bit",
    "float32+4bit",
    "bfloat16",
    "bfloat16+stochastic",
    "bfloat16+master",
    "bfloat16+split",
    "bfloat16+split24",
    "bfloat16+bf16",
    "bfloat16+8bit",
    "bfloat16+stochastic+bf16",
    "bfloat16+stochastic+8bit",
    "bfloat16+stochastic+4bit",
    "bfloat16+split+bf16",
    "bfloat16+split+8bit",
    "bfloat16+split24+8bit",
    "bfloat16+split24+4bit",
    "bfloat16+master+8bit",
    "float16",
    "float16+stochastic",
    "float64",
)

LISTED = f"{', '.join(MODES)}, each also with +ema, +stats or +caution"


class Variant(NamedTuple):
    """What a launch is compiled for, addresses aside."""

    rule: str
    mode: str
    storage: Storage


def parse_mode(mode: str) -> tuple[torch.dtype, dict[str, Any]]:
    """The parameters' dtype and the precision options of a mode's name, such as "bfloat16+split+8bit".

    Raises:
        ValueError: a part that is neither a dtype nor an option.
    """
    dtype, *options = mode.split("+")
    if dtype not in DTYPES or not set(options) <= set(OPTIONS):
        raise ValueError(f"mode {mode!r} is none of DTYPE[+OPTION...] with DTYPE {', '.join(DTYPES)} and OPTION {', '.join(OPTIONS)}")
    chosen = [item for option in options for item in OPTIONS[option].items()]
    if len(dict(chosen)) < len(chosen):
        raise ValueError(f"mode {mode!r} says twice how one thing is stored")
    return getattr(torch, dtype), dict(chosen)


def make(rule: str, mode: str, params: list[torch.nn.Parameter]) -> FusedRMSProp | FusedSMORMS3:
    """The optimizer that runs a rule in a mode, for parameters of the mode's dtype."""
    cls, options = RULES[rule]
    return cls(params, **options, **parse_mode(mode)[1])


@functools.cache
def variant(rule: str, mode: str) -> Variant:
    """What make()'s steps launch where gradients have the parameters' dtype.

    Raises:
        ValueError: an unknown rule, mode, or options that exclude each other.
        RuntimeError: options that the dtype does not take.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is none of {', '.join(RULES)}")
    param = torch.nn.Parameter(torch.zeros(64, dtype=parse_mode(mode)[0], device="cpu"))
    param.grad = torch.zeros_like(param)
    (recipe,) = make(rule, mode, [param])._recipes()
    check_precision("params[0]", param, recipe.precision)
    # a whole Plan would compile the launch on this machine's CPU
    tensors = fit(param, {}, recipe.states, recipe.precision, recipe.kinds)
    storage = storage_of(param, param.grad, tensors, recipe)._replace(measured=bool(recipe.stats))
    return Variant(rule=rule, mode=mode, storage=storage)


def words(text: str) -> list[str]:
    """Of a list such as "float32,bfloat16", as an argument of a command; each once."""
    return list(dict.fromkeys(word for word in text.split(",") if word))


def check_words(option: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise UserError for a word that an option of a command does not take, or where there is none."""
    wrong = [word for word in given if word not in known]
    if wrong or not given:
        raise UserError(f"{option} {','.join(wrong)}: it takes at least one of {', '.join(known)}")


def device_of(kind: str | None) -> torch.device:
    """The device that --device names; UserError if there is none."""
    try:
        return devices.find(kind)
    except LookupError as error:
        raise UserError(f"--device {kind}: {error}; use --device cpu") from None


def check(rules: Collection[str], modes: Collection[str]) -> None:
    """Raise UserError for a rule or mode that no optimizer takes, or where none is named."""
    if not rules or not modes:
        raise UserError("name at least one rule and one mode")
    for rule in rules:
        for mode in modes:
            try:
                variant(rule, mode)
            except (ValueError, RuntimeError, TypeError) as error:  # an option that the class does not have
                raise UserError(str(error)) from None
