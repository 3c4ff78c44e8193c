"""Parameter groups that take options of a checkpoint: copied into them by hand, or loaded."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..options.checks import as_tuple
from ..options.skip_above import SKIP_ABOVE
from ..sharded import process_groups
from ..state.precision import PARAM_EMA, Kinds
from ..state.storage import must_drop
from .carrier import ACCEPTED, CARRIER, LR_IN_MOMENTUM, MODEL_PARALLEL, NEVER_LOADED, beyond_torch, unpack_options
from .dcp import Group

# timm's options, and what they are here
_TIMMS = {"decoupled_decay": "decoupled_weight_decay", "caution": "caution"}
_SWITCHES = {"momentum": "momentum_buffer", "centered": "grad_avg", "ema_decay": PARAM_EMA}  # and what a parameter has only if they are on
_ALONG = {"momentum": "nesterov", "ema_decay": "ema_warmup"}  # options that are nothing without them

States = Sequence[tuple[Tensor, dict]]  # of a group: each parameter that has made steps, with its state in the checkpoint


def mend(g: int, group: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Mend, in parameter group g, what was copied into it from a checkpoint: options as JSON, and process groups, which it lost.

    A list of JSON's, which could change in place, becomes a tuple; defaults: of all options.

    Raises:
        TypeError, ValueError: it is wrong.
    """
    if isinstance(group.get(CARRIER), str):
        carried = unpack_options(g, {CARRIER: group[CARRIER]}, beyond_torch(defaults))
        group.update({**carried.options, CARRIER: None})
    for option, default in defaults.items():
        if option in group and (option == SKIP_ABOVE or type(default) is tuple):
            group[option] = as_tuple(group[option])
    known = group.process_groups if isinstance(group, Group) else None
    if not isinstance(group.get(MODEL_PARALLEL), set):
        try:
            known = process_groups(group.get(MODEL_PARALLEL)) or None
        except TypeError as error:
            raise TypeError(f"parameter group {g}: {error}") from None
    elif not known:
        return  # an error of the next step
    if group.get(MODEL_PARALLEL) is not known:
        group[MODEL_PARALLEL] = known
    if isinstance(group, Group):
        group.process_groups = known


def unpack_group(g: int, group: dict[str, Any], options: Iterable[str]) -> dict[str, Any]:
    """A new parameter group g with options that were copied from a checkpoint by their own names; those that it has so already stay."""
    if not isinstance(group.get(CARRIER), str):
        return group
    return {**group, **unpack_options(g, group, beyond_torch(options)).options, CARRIER: None}


def load_group(
    g: int, saved: Mapping[str, Any], mine: Mapping[str, Any], options: Iterable[str], states: States, kinds: Kinds
) -> tuple[dict[str, Any], frozenset[str]]:
    """The options of parameter group g as its checkpoint has them, and mine where it says nothing.

    Args:
        g: its number.
        saved: the group in the checkpoint.
        mine: the group that loads it.
        options: the names of all options.
        states: as they are in the checkpoint.
        kinds: as in Recipe.

    Returns:
        The options, with the accepted norms beside them, and the names of states that must begin anew.

    Raises:
        ValueError: as of unpack_options(); a momentum buffer without lr, which mine would take for one with it.
    """
    ours = beyond_torch(options)
    carried, steps, accepted = unpack_options(g, saved, ours)
    if LR_IN_MOMENTUM not in saved and _is_outdated(steps, states):
        carried.pop(LR_IN_MOMENTUM, None)
    theirs = {key: value for key, value in saved.items() if key not in NEVER_LOADED and key not in ours}
    _take_timms(g, theirs, carried, ours)
    _leave_off(g, theirs, carried, mine, states, kinds)
    found = {**{key: value for key, value in mine.items() if key != "params"}, **theirs, **carried, ACCEPTED: accepted}
    if "momentum" in mine:
        _turn_off_nesterov(g, found, carried)
    return found, frozenset(["momentum_buffer"] if _is_foreign_buffer(g, found, carried, mine) else [])


def _is_outdated(steps: float, states: States) -> bool:
    """Whether another optimizer, whose buffer is without lr, went on after so many steps, and left the carrier as it was."""
    return bool(states) and steps < math.inf and all(_steps(values) > steps for _, values in states)


def _steps(values: dict) -> float:
    try:
        return float(values["step"])
    except (TypeError, ValueError, RuntimeError):  # refused when it is taken
        return -math.inf


def _take_timms(g: int, theirs: dict[str, Any], carried: dict[str, Any], ours: frozenset[str]) -> None:
    """Move timm's options, by our names, to those carried; ValueError for one that is on and that no option here is."""
    is_timms = "decoupled_decay" in theirs
    for name, option in _TIMMS.items():
        value = theirs.pop(name, None)
        if value and option not in ours:
            raise ValueError(f"parameter group {g} of the checkpoint has {name}={value!r}, which only optimizers of timm have")
        if value is not None and option:
            carried.setdefault(option, value)
    if is_timms and not theirs.get("momentum"):  # without effect there, refused here
        carried.pop("caution", None)
    if is_timms and not carried.get("decoupled_weight_decay"):
        carried.pop("corrected_weight_decay", None)


def _leave_off(g: int, theirs: dict[str, Any], carried: dict[str, Any], mine: Mapping[str, Any], states: States, kinds: Kinds) -> None:
    """Leave off what is off in mine where the checkpoint has it on but brings no state of it, and warn."""
    # torch.distributed.checkpoint brings only states that the optimizer has
    brought = [{key for key, value in values.items() if not must_drop(kinds, param, key, value)} for param, values in states]
    for option, state in _SWITCHES.items():
        said = carried if option in carried else theirs
        if (
            option not in mine
            or state not in (*kinds, PARAM_EMA)
            or mine[option]
            or not said.get(option)
            or not brought
            or any(state in names for names in brought)
        ):
            continue
        warnings.warn(
            f"parameter group {g} keeps {option}={mine[option]!r}, though the checkpoint has {option}={said[option]!r}: it was loaded "
            f"without {state}, since this optimizer has none. To take it over, make the optimizer with {option}={said[option]!r}",
            stacklevel=3,
        )
        said[option] = mine[option]
        if option in _ALONG:
            carried.pop(_ALONG[option], None)


def _turn_off_nesterov(g: int, found: dict[str, Any], carried: Mapping[str, Any]) -> None:
    """Leave nesterov off where it is mine alone and the checkpoint has no momentum, and warn."""
    if found.get("nesterov") and not carried.get("nesterov") and not found.get("momentum"):
        warnings.warn(f"parameter group {g} has nesterov=False from now on, because the checkpoint has momentum=0", stacklevel=3)
        found["nesterov"] = False


def _is_foreign_buffer(g: int, found: Mapping[str, Any], carried: Mapping[str, Any], mine: Mapping[str, Any]) -> bool:
    """Whether mine has lr in its buffer and the checkpoint has not; ValueError if it has momentum, so that its buffer would be used."""
    foreign = bool(mine.get(LR_IN_MOMENTUM)) and LR_IN_MOMENTUM not in carried
    if foreign and found.get("momentum"):
        raise ValueError(
            f"parameter group {g} has {LR_IN_MOMENTUM}=True, but the checkpoint holds a momentum_buffer without lr. To convert "
            f"it, multiply each momentum_buffer in it by lr and set {LR_IN_MOMENTUM}=True in its param_groups. To begin a new buffer, set "
            "momentum=0 in its param_groups, load it, and then set the optimizer's momentum again"
        )
    return foreign
