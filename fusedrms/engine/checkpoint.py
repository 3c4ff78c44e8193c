"""What a checkpoint holds of an optimizer: the keys that torch's holds, so that either loads the other's, in each of torch's ways.

torch.distributed.checkpoint looks for every key of the optimizer that loads, a full state_dict may have no other, and a flattened one
must have what iterating over a parameter group gives. So the options that torch.optim.RMSprop lacks stand in the value of an option
that it has, and that changes no result, there or here: foreach.
"""

import inspect
import json
import math
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence, Set
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from .groups import named_parameters
from .naming import Source
from .options import check_codes, check_complete, check_precision, check_shards, check_state, check_steps, plain
from .plan import steps_of
from .recipe import Recipe, precision
from .sharded import ProcessGroups, local, locals_of, placed, process_groups
from .storage import MASTER, WIDE, counter, fit, fitted, is_left, obsolete, parted, whole, widened
from .ties import Ties

THEIRS = frozenset(inspect.signature(torch.optim.RMSprop).parameters) - {"params"}
# how a step runs and how values are stored, not what it computes: never taken from a checkpoint
HOW = frozenset({"capturable", "foreach", "differentiable", "stochastic_rounding", "master_weights", "state_dtype", "model_parallel_group"})
CARRIER = "foreach"
BEYOND, UNIT, STEPS = "model_parallel_group", "lr_in_momentum", "steps"
# timm's options, and what they are here
_TIMMS = {"decoupled_decay": "decoupled_weight_decay", "caution": None, "corrected_weight_decay": None}
_SWITCHES = {"momentum": "momentum_buffer", "centered": "grad_avg"}  # options, and what a parameter has only if they are on


def ours_of(options: Iterable[str]) -> frozenset[str]:
    """Those of the options that torch lacks."""
    return frozenset(options) - THEIRS


class Group(dict):
    """A parameter group with all options; torch's flattened checkpoints, which load all keys that it has, see those that they have."""

    def __init__(self, group: Mapping[str, Any], options: Iterable[str]):
        super().__init__(group)
        self.ours = ours_of(options)
        self.beyond: ProcessGroups | None = None  # that the option had when a step or a checkpoint looked

    def _keys(self, caller: FrameType) -> KeysView[str]:
        keys = super().keys()
        if caller.f_globals.get("__name__") != "torch.distributed.checkpoint.state_dict":
            return keys
        return {key: None for key in keys if key not in self.ours}.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys(sys._getframe(1)))

    def keys(self) -> KeysView[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._keys(sys._getframe(1))  # torch 2.9 calls it

    def __reduce__(self) -> tuple:
        return OrderedDict, (), None, None, iter(self.items())  # which torch.load(weights_only=True) takes


def settle(g: int, group: dict[str, Any], options: Iterable[str]) -> None:
    """Mend, in parameter group g, what was copied into it from a checkpoint: options as JSON, and process groups, which it lost.

    Raises:
        TypeError, ValueError: it is wrong.
    """
    if isinstance(group.get(CARRIER), str):
        said, _ = unpacked(g, {CARRIER: group[CARRIER]}, ours_of(options))
        group.update({**said, CARRIER: None})
    known = group.beyond if isinstance(group, Group) else None
    if not isinstance(group.get(BEYOND), set):
        try:
            known = process_groups(group.get(BEYOND)) or None
        except TypeError as error:
            raise TypeError(f"parameter group {g}: {error}") from None
    elif not known:
        return  # an error of the next step
    if group.get(BEYOND) is not known:
        group[BEYOND] = known
    if isinstance(group, Group):
        group.beyond = known


def opened(g: int, group: dict[str, Any], options: Iterable[str]) -> dict[str, Any]:
    """A new parameter group g with options that were copied from a checkpoint by their own names; those that it has so already stay."""
    if not isinstance(group.get(CARRIER), str):
        return group
    said, _ = unpacked(g, group, ours_of(options))
    return {**group, **said, CARRIER: None}


def packed(group: Mapping[str, Any], defaults: Mapping[str, Any], steps: float = 0) -> dict[str, Any]:
    """A parameter group as a checkpoint has it.

    Args:
        group: the group.
        defaults: of all options, those of their rule.
        steps: the most that one of its parameters has had.
    """
    ours = ours_of(defaults)
    if not precision({**defaults, **group}).is_noisy:  # a seed of nothing
        defaults = {**defaults, "seed": group.get("seed")}
    said = {name: value for name in sorted(ours - HOW) if (value := plain(group.get(name, defaults[name]))) != defaults[name]}
    kept = {key: plain(value) for key, value in group.items() if key not in ours}
    if said.get(UNIT) and steps:
        said[STEPS] = steps
    return {**kept, CARRIER: json.dumps(said, default=float)} if said else kept


def unpacked(g: int, saved: Mapping[str, Any], ours: frozenset[str]) -> tuple[dict[str, Any], float]:
    """What parameter group g of a checkpoint says of our options: in the carrier or, as in version 0.1, under their own names.

    Returns:
        The options, and after how many steps the carrier was written, which may be unknown: infinity.

    Raises:
        ValueError: it says what this version, or this rule, does not know.
    """
    said, steps = {}, math.inf
    if isinstance(text := saved.get(CARRIER), str):
        try:
            said = dict(json.loads(text))
            steps = float(said.pop(STEPS, steps))
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                f"the {CARRIER} of parameter group {g} in the checkpoint is {text[:80]!r}, no JSON of options: restore the checkpoint"
            ) from None
        if unknown := said.keys() - ours:
            raise ValueError(
                f"parameter group {g} of the checkpoint has {', '.join(f'{name}={said[name]!r}' for name in sorted(unknown))}, which this "
                "version, or this rule, does not know: load it with the version and the class that have saved it"
            )
    said |= {name: saved[name] for name in ours & saved.keys()}
    return {name: value for name, value in said.items() if name not in HOW}, steps


def loaded(
    g: int, saved: Mapping[str, Any], mine: Mapping[str, Any], options: Iterable[str], states: list[tuple[Tensor, dict]]
) -> tuple[dict[str, Any], frozenset[str]]:
    """The options of parameter group g as its checkpoint has them, and mine where it says nothing.

    Args:
        g: its number.
        saved: the group in the checkpoint.
        mine: the group that loads it.
        options: the names of all options.
        states: each of the group's parameters that has made steps, with its state in the checkpoint.

    Returns:
        The options, and the names of states that must begin anew.

    Raises:
        ValueError: as of unpacked(); a momentum buffer without lr, which mine would take for one with it.
    """
    ours = ours_of(options)
    said, steps = unpacked(g, saved, ours)
    if UNIT not in saved and states and steps < math.inf and all(_steps(values) > steps for _, values in states):
        said.pop(UNIT, None)  # another optimizer, which has no such buffer, went on, and left the carrier as it was
    theirs = {key: value for key, value in saved.items() if key not in HOW and key not in ours}
    for name, option in _TIMMS.items():
        value = theirs.pop(name, None)
        if value and option not in ours:
            raise ValueError(f"parameter group {g} of the checkpoint has {name}={value!r}, which timm's optimizers alone have")
        if value is not None and option:
            said.setdefault(option, value)
    names = [{key for key, value in values.items() if not is_left(param, key, value)} for param, values in states]
    for option, key in _SWITCHES.items():
        # torch.distributed.checkpoint brings only states that the optimizer has
        if option in mine and not mine[option] and theirs.get(option) and names and not any(key in known for known in names):
            warnings.warn(
                f"parameter group {g} keeps {option}={mine[option]!r}, though the checkpoint has {option}={theirs[option]!r}: only states "
                f"that this optimizer has came with it, and {key} is none; to go on with it make the optimizer with "
                f"{option}={theirs[option]!r}",
                stacklevel=2,
            )
            theirs[option] = mine[option]
            said = {name: value for name, value in said.items() if (option, name) != ("momentum", "nesterov")}
    found = {**{key: value for key, value in mine.items() if key != "params"}, **theirs, **said}
    has_momentum = bool(found.get("momentum"))
    if found.get("nesterov") and not said.get("nesterov") and not has_momentum:
        warnings.warn(f"parameter group {g} has nesterov=False from now on, since the checkpoint has momentum=0", stacklevel=2)
        found["nesterov"] = False
    foreign = bool(mine.get(UNIT)) and UNIT not in said
    if foreign and has_momentum:
        raise ValueError(
            f"parameter group {g} has {UNIT}=True, but the checkpoint, of another class or other options, holds a momentum_buffer "
            f"without lr: multiply each momentum_buffer in it by lr, and set {UNIT}=True in its param_groups; or set momentum=0 there, "
            "and the optimizer's own again once it is loaded, which begins a new buffer"
        )
    return found, frozenset(["momentum_buffer"] if foreign else [])


def _steps(values: dict) -> float:
    try:
        return float(values["step"])
    except (TypeError, ValueError, RuntimeError):  # refused when it is taken
        return -math.inf


def only_makes_states() -> bool:
    """Whether step() is called by torch.distributed.checkpoint, with lr 0 and gradients of zeros, to have states to load into."""
    module = sys.modules.get("torch.distributed.checkpoint.state_dict")
    code = getattr(getattr(module, "_init_optim_state", None), "__code__", None)
    frame = sys._getframe() if code else None
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


class _Kept:
    """Carries a state through torch's load_state_dict, which casts tensors to the parameter's dtype and makes text another."""

    def __init__(self, value: Tensor | str):
        self._value = value

    def copy(self) -> Tensor | str:
        return self._value.clone() if isinstance(self._value, Tensor) else self._value


def unkept(values: Mapping[str, Any]) -> dict[str, Any]:
    """The state of one parameter after torch's load_state_dict: copies of what shielded() has kept from it, the others as they are."""
    return {name: value.copy() if isinstance(value, _Kept) else value for name, value in values.items()}


class Copies:
    """What a state_dict holds as copies, since it is stored in another form: whoever writes into one must load it.

    Args:
        named: the copies.
        before: of the state_dict before.
    """

    def __init__(self, named: Iterable[tuple[str, Tensor]], before: "Copies | None"):
        self._lost = before.lost() if before else None
        self._known = []
        for name, tensor in named:
            here = local(tensor)
            twin = here.detach()
            twin.data = here.new_empty(0)  # has no memory, but is still told of what is written
            self._known.append((name, twin, twin._version))

    def lost(self) -> str | None:
        """The first that was written, if one was."""
        return self._lost or next((name for name, twin, version in self._known if twin._version != version), None)

    def check(self) -> None:
        """RuntimeError if one was written."""
        if name := self.lost():
            raise RuntimeError(
                f"the {name} that state_dict() has returned was written, by torch.distributed.checkpoint.load say, but it is a copy, "
                "for this optimizer stores it in another form: pass the state_dict to set_optimizer_state_dict() or load_state_dict(); or, "
                "to go on without what was written, call optimizer.load_state_dict(optimizer.state_dict())"
            )


def written(
    state_dict: dict[str, Any], groups: Sequence[dict], states: Mapping[Any, Any], ties: Ties, defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], list[tuple[str, Tensor]]]:
    """What torch's state_dict() gives as a checkpoint has it, in full precision, and which tensors are copies in it, with their names.

    Args:
        state_dict: torch's.
        groups: the optimizer's parameter groups; states, ties: likewise.
        defaults: of all options, those of their rule.

    Raises:
        ValueError: codes or scales that do not fit their parameter.
    """
    named = list(named_parameters(groups))
    for each in named:
        if isinstance(values := states.get(each.param), dict):
            check_codes(each.name, local(each.param), values)
    state, copies = {}, []
    for index, values in state_dict["state"].items():
        if not isinstance(index, int) or not isinstance(values, dict):
            state[index] = values
            continue
        each = named[index]
        state[index] = saved = whole(each.param, values, ties)
        made = {key: value for key, value in saved.items() if isinstance(value, Tensor) and local(value) is not local(values.get(key))}
        if made and isinstance(values.get("step"), Tensor):  # whoever writes into some of it writes into nothing of the optimizer
            saved["step"] = values["step"].clone()
        copies += [(f"{key} of {each.name}", value) for key, value in made.items()]
    steps = steps_of([param for group in groups if group.get(UNIT) for param in group["params"]], states)
    most = [max((steps.get(param, 0.0) for param in group["params"]), default=0.0) for group in groups]
    packed_groups = [packed(group, defaults, n) for group, n in zip(state_dict["param_groups"], most, strict=True)]
    return {**state_dict, "state": state, "param_groups": packed_groups}, copies


def shielded(state_dict: dict[str, Any], groups: Sequence[dict], options: Set[str], source: Source | None) -> dict[str, Any]:
    """A checkpoint as torch's load_state_dict() may see it: groups with all options, and states that it neither casts nor moves.

    Args:
        state_dict: the checkpoint.
        groups: the parameter groups that load it.
        options: the names of all options.
        source: the preset that has made the optimizer, if one has.

    Raises:
        ValueError: as of loaded().
    """
    states = state_dict["state"]
    theirs, anew = [], {}
    for g, (mine, saved) in enumerate(zip(groups, state_dict["param_groups"], strict=False)):
        if source and (saved.keys() & source.names) - options:
            saved = source.translate(saved)  # a checkpoint of the source's own optimizer
        pairs = list(zip(mine["params"], saved.get("params", ()), strict=False))
        begun = [(param, values) for param, index in pairs if isinstance(values := states.get(index), dict) and "step" in values]
        group, left = loaded(g, saved, mine, options, begun)
        theirs.append(group)
        anew |= dict.fromkeys((index for _, index in pairs), left)
    theirs += state_dict["param_groups"][len(theirs) :]  # torch's error for a wrong number of groups
    kept = {
        # of a name that a flattened checkpoint lacks torch makes an empty dict
        index: {
            key: _Kept(value) if isinstance(value, Tensor | str) else value
            for key, value in values.items()
            if (not isinstance(value, dict) or value) and key not in anew.get(index, ())
        }
        if isinstance(values, dict)
        else values
        for index, values in states.items()
    }
    return {**state_dict, "state": kept, "param_groups": theirs}


def taken(optimizer: str, param: Tensor, values: Mapping[str, Any], name: str, recipe: Recipe, saved: bool) -> dict[str, Any]:
    """The state of a parameter that load_state_dict, pickle or deepcopy brings, stored as the kernels read it.

    Args:
        optimizer: the name of its class, for errors.
        param: the parameter, whole.
        values: its state, with what shielded() has kept.
        name: the parameter's.
        recipe: that of its group.
        saved: load_state_dict brings it.

    Raises:
        ValueError: a state is missing, or of another shape; a step that is no number of steps.
        RuntimeError: a parameter that cannot be stored as the recipe says.
    """
    initial, here = recipe.states, local(param)
    wanted = {*initial, *([MASTER] if recipe.precision.master_weights and here.dtype in WIDE else [])}
    whole_ones = {key: value for key, value in unkept(values).items() if key in wanted or not is_left(param, key, value)}
    known = locals_of(whole_ones)
    check_precision(name, here, recipe.precision)
    if saved:
        check_shards(name, param, whole_ones, wanted)
        if "step" in known or initial.keys() & known.keys():  # else it has only been given a master
            check_complete(optimizer, name, known, initial)
    check_state(name, here, known, initial)
    known = widened(known) if saved else parted(known, initial)
    kept = fit(here, known, initial, recipe.precision, loading=True)
    known = {key: value for key, value in known.items() if key not in obsolete(known, initial, kept)}
    others = {
        key: fitted(here, value)
        for key, value in known.items()
        if isinstance(value, Tensor) and value.shape == here.shape and value.dtype.itemsize > 1 and key not in kept
    }
    step = known.get("step", 0.0)
    check_steps(name, steps := float(step))
    known |= {**others, "step": counter(step, steps), **kept}
    return {key: placed(param, value) for key, value in known.items()}
