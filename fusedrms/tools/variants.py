"""The usual ways to run a step, by name: what tune, inspect and compile go through."""

import contextlib
import functools
import importlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Collection
from typing import Any, NamedTuple, TypeGuard

import torch

from ..engine.optimizer import FusedOptimizer
from ..engine.options.naming import closest
from ..engine.state.storage import fit
from ..engine.state.tensor_checks import check_precision
from ..engine.tables.layout import storage_of
from ..kernels import devices
from ..kernels.storage import Storage
from ..rmsprop import FusedRMSProp
from ..smorms3 import FusedSMORMS3
from .errors import UserError

Found = tuple[type[FusedOptimizer], dict[str, Any]]  # a class and options of it

RULES: dict[str, Found] = {
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

OWN_RULE = "or a rule of your own, as MODULE:NAME or FILE.py:NAME"
FORM = f"DTYPE[+OPTION...], such as bfloat16+split+8bit; DTYPE is {', '.join(DTYPES)}; OPTION is {', '.join(OPTIONS)}"


class Variant(NamedTuple):
    """What a launch is compiled for, addresses aside."""

    rule: str  # its name, as launches know it
    mode: str
    storage: Storage
    asked: str  # the word for the rule


def parse_mode(mode: str) -> tuple[torch.dtype, dict[str, Any]]:
    """The parameters' dtype and the precision options of a mode's name, such as "bfloat16+split+8bit".

    Raises:
        ValueError: a part that is neither a dtype nor an option.
    """
    dtype, *options = mode.split("+")
    if dtype not in DTYPES or not set(options) <= set(OPTIONS):
        raise ValueError(f"mode {mode!r} is not supported: it must be {FORM}")
    chosen = [item for option in options for item in OPTIONS[option].items()]
    if len(dict(chosen)) < len(chosen):
        raise ValueError(f"mode {mode!r} has two options for the same thing: leave one out")
    return getattr(torch, dtype), dict(chosen)


@functools.cache
def find(rule: str) -> Found:
    """What a word for a rule says: one of RULES, or the place of a class, MODULE:NAME or FILE.py:NAME.

    Raises:
        ValueError: there is none.
    """
    if rule in RULES:
        return RULES[rule]
    place, colon, name = rule.rpartition(":")
    if not (place and colon and name):
        raise ValueError(f"rule {rule!r} is unknown: take one of {', '.join(RULES)}, {OWN_RULE}")
    module = _module(rule, place)
    value = getattr(module, name, None)
    if _has_rule(value):
        return value, {}
    classes = tuple(one for one, of in vars(module).items() if _has_rule(of))
    remedy = f"it has {', '.join(classes)}" if classes else "make one with @fusedrms.rule"
    if not hasattr(module, name):
        meant = closest(name, classes)
        raise ValueError(f"rule {rule!r}: {place} has no {name!r}: {f'did you mean {meant!r}?' if meant else remedy}")
    raise ValueError(f"rule {rule!r}: {name} is {value!r:.80}, not an optimizer class of fusedrms: {remedy}")


def _has_rule(value: Any) -> TypeGuard[type[FusedOptimizer]]:
    """Whether it is an optimizer's class, and no base of others."""
    return isinstance(value, type) and issubclass(value, FusedOptimizer) and "lr" in value._class_defaults()


def _module(rule: str, place: str) -> Any:
    """Imported, or run from its file; what lies beside it, or in the current directory, can be imported."""
    path = pathlib.Path(place).resolve() if place.endswith(".py") else None
    if path and not path.is_file():
        raise ValueError(f"rule {rule!r}: there is no file {place} in {pathlib.Path.cwd()}: give its path")
    folder = str(path.parent) if path else os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no output of the tool's
            return _run(path) if path else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and not path and error.name and f"{place}.".startswith(f"{error.name}."):
            raise ValueError(
                f"rule {rule!r}: there is no module {error.name!r} in {folder}, and none is installed: give its file, FILE.py:NAME"
            ) from None
        raise ValueError(f"rule {rule!r}: {place} cannot be imported, {type(error).__name__}: {error}") from error


def _run(path: pathlib.Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(rule: str, mode: str, params: list[torch.nn.Parameter]) -> FusedOptimizer:
    """The optimizer that runs a rule in a mode, for parameters of the mode's dtype."""
    cls, options = find(rule)
    return cls(params, **options, **parse_mode(mode)[1])


@functools.cache
def variant(rule: str, mode: str) -> Variant:
    """What make()'s steps launch where gradients have the parameters' dtype.

    Raises:
        ValueError: an unknown rule, mode, or options that exclude each other.
        RuntimeError: options that the dtype does not take.
    """
    return variant_of(find(rule), rule, mode)


def variant_of(found: Found, rule: str, mode: str) -> Variant:
    """The same of what a word for a rule says."""
    cls, options = found
    param = torch.nn.Parameter(torch.zeros(64, dtype=parse_mode(mode)[0], device="cpu"))
    param.grad = torch.zeros_like(param)
    (recipe,) = cls([param], **{**options, **parse_mode(mode)[1]})._recipes()
    check_precision("params[0]", param, recipe.precision)
    # a whole Plan would compile the launch on this machine's CPU
    tensors = fit(param, {}, recipe.states, recipe.precision, recipe.kinds)
    storage = storage_of(param, param.grad, tensors, recipe)._replace(measured=bool(recipe.stats))
    return Variant(rule=recipe.rule, mode=mode, storage=storage, asked=rule)


def words(text: str) -> list[str]:
    """Of a list such as "float32,bfloat16", as an argument of a command; each once."""
    return list(dict.fromkeys(word for word in text.split(",") if word))


def check_words(option: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise UserError for a word that an option of a command does not take, or where there is none."""
    wrong = [word for word in given if word not in known]
    if wrong or not given:
        raise UserError(f"{option} {','.join(wrong)}: give at least one of {', '.join(known)}")


def device_of(kind: str | None) -> torch.device:
    """The device that --device names; UserError if there is none."""
    try:
        return devices.find(kind)
    except LookupError as error:
        raise UserError(f"--device {kind}: {error}; use --device cpu") from None


def check(rules: Collection[str], modes: Collection[str]) -> None:
    """Raise UserError for a rule or mode that no optimizer takes, or where none is named."""
    if not rules or not modes:
        raise UserError("give at least one rule and one mode")
    for rule in rules:
        for mode in modes:
            try:
                variant(rule, mode)
            except (ValueError, RuntimeError, TypeError) as error:  # an option that the class does not have
                raise UserError(str(error)) from None
