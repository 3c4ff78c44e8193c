"""What a checkpoint holds of an optimizer: the keys that torch's holds, so that either loads the other's, in each of torch's ways.

torch.distributed.checkpoint looks for every key of the optimizer that loads, a full state_dict may have no other, and a flattened one
must have what iterating over a parameter group gives. So the options that torch.optim.RMSprop lacks stand in the value of an option
that it has, and that changes no result, there or here: foreach.
"""

import inspect
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import torch
from torch import Tensor

from .naming import Source
from .options import check_codes, check_complete, check_precision, check_shards, check_state, plain
from .plan import named_parameters
from .recipe import Recipe, precision
from .sharded import local, locals_of, placed
from .storage import MASTER, WIDE, counter, fit, fitted, is_left, obsolete, parted, whole, widened
from .ties import Ties

THEIRS = frozenset(inspect.signature(torch.optim.RMSprop).parameters) - {"params"}
# how a step runs and how values are stored, not what it computes: never taken from a checkpoint
HOW = frozenset({"capturable", "foreach", "differentiable", "stochastic_rounding", "master_weights", "state_dtype", "model_parallel_group"})
CARRIER = "foreach"
_SWITCHES = {"momentum": "momentum_buffer", "centered": "grad_avg"}  # options, and what a parameter has only if they are on


def ours_of(options: Iterable[str]) -> frozenset[str]:
    """Those of the options that torch lacks."""
    return frozenset(options) - THEIRS


class Group(dict):
    """A parameter group with all options; to iterate over it gives what a checkpoint has of it, keys() and items() give everything."""

    def __init__(self, group: Mapping[str, Any], options: Iterable[str]):
        super().__init__(group)
        self.ours = ours_of(options)

    def __iter__(self) -> Iterator[str]:
        return (key for key in self.keys() if key not in self.ours)


def packed(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group as a checkpoint has it; defaults: of all options, those of their rule."""
    ours = ours_of(defaults)
    if not precision({**defaults, **group}).is_noisy:  # a seed of nothing
        defaults = {**defaults, "seed": group.get("seed")}
    said = {name: value for name in sorted(ours - HOW) if (value := plain(group.get(name, defaults[name]))) != defaults[name]}
    kept = {key: plain(value) for key, value in group.items() if key not in ours}
    return {**kept, CARRIER: json.dumps(said, default=float)} if said else kept


def unpacked(g: int, saved: Mapping[str, Any], ours: frozenset[str]) -> dict[str, Any]:
    """What parameter group g of a checkpoint says of our options: in the carrier or, as in version 0.1, under their own names.

    Raises:
        ValueError: it says what this version, or this rule, does not know.
    """
    said = {}
    if isinstance(text := saved.get(CARRIER), str):
        try:
            said = dict(json.loads(text))
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
    return {name: value for name, value in said.items() if name not in HOW}


def loaded(g: int, saved: Mapping[str, Any], mine: Mapping[str, Any], options: Iterable[str], states: list[set[str]]) -> dict[str, Any]:
    """The options of parameter group g as its checkpoint has them, and mine where it says nothing.

    Args:
        g: its number.
        saved: the group in the checkpoint.
        mine: the group that loads it.
        options: the names of all options.
        states: names of those that each of the group's parameters has in the checkpoint.

    Raises:
        ValueError: as of unpacked(); a momentum buffer without lr, which mine would take for one with it.
    """
    ours = ours_of(options)
    said = unpacked(g, saved, ours)
    theirs = {key: value for key, value in saved.items() if key not in HOW and key not in ours}
    for option, key in _SWITCHES.items():
        # torch.distributed.checkpoint brings only states that the optimizer has
        if not mine.get(option) and theirs.get(option) and states and not any(key in names for names in states):
            warnings.warn(
                f"parameter group {g} keeps {option}={mine[option]!r}, though the checkpoint has {option}={theirs[option]!r}: only states "
                f"that this optimizer has came with it, and {key} is none; to go on with it make the optimizer with "
                f"{option}={theirs[option]!r}",
                stacklevel=2,
            )
            theirs[option] = mine[option]
            said = {name: value for name, value in said.items() if (option, name) != ("momentum", "nesterov")}
    if mine.get("lr_in_momentum") and not said.get("lr_in_momentum") and float(theirs.get("momentum", 0)) > 0:
        raise ValueError(
            f"parameter group {g} has lr_in_momentum=True, but the checkpoint, of another class or other options, holds a momentum_buffer "
            "without lr: load it with lr_in_momentum=False, or set the momentum of its param_groups to 0 to start with a new buffer"
        )
    return {**{key: value for key, value in mine.items() if key != "params"}, **theirs, **said}


def only_makes_states() -> bool:
    """Whether step() is called by torch.distributed.checkpoint, with lr 0 and gradients of zeros, to have states to load into."""
    module = sys.modules.get("torch.distributed.checkpoint.state_dict")
    code = getattr(getattr(module, "_init_optim_state", None), "__code__", None)
    frame = sys._getframe() if code else None
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


class _Kept:
    """Carries a state through torch's load_state_dict, which would cast it to the parameter's dtype."""

    def __init__(self, value: Tensor):
        self.value = value


def unkept(values: Mapping[str, Any]) -> dict[str, Any]:
    """The state of one parameter after torch's load_state_dict: copies of what shielded() has kept from it, the others as they are."""
    return {name: value.value.clone() if isinstance(value, _Kept) else value for name, value in values.items()}


class Copies:
    """What a state_dict holds as a copy, since it is stored in another form: whoever writes into it must load it."""

    def __init__(self, named: Iterable[tuple[str, Tensor]]):
        self._known = []
        for name, tensor in named:
            twin = local(tensor).detach()
            twin.data = tensor.new_empty(0)  # has no memory, but is still told of what is written
            self._known.append((name, twin, twin._version))

    def check(self) -> None:
        """RuntimeError if one was written."""
        for name, twin, version in self._known:
            if twin._version != version:
                raise RuntimeError(
                    f"the {name} that state_dict() has returned was written, by torch.distributed.checkpoint.load say, but it is a copy, "
                    "for this optimizer stores it in another form: pass the state_dict to set_optimizer_state_dict() or load_state_dict()"
                )


def written(
    state_dict: dict[str, Any], groups: list[dict], states: Mapping[Any, Any], ties: Ties, defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], Copies | None]:
    """What torch's state_dict() gives as a checkpoint has it, in full precision, and the tensors that are copies in it.

    Args:
        state_dict: torch's.
        groups: the optimizer's parameter groups; states, ties: likewise.
        defaults: of all options, those of their rule.

    Raises:
        ValueError: codes or scales that do not fit their parameter.
    """
    named = list(named_parameters(groups))
    for _, name, param in named:
        if isinstance(values := states.get(param), dict):
            check_codes(name, local(param), values)
    state, copies = {}, []
    for index, values in state_dict["state"].items():
        if not isinstance(index, int) or not isinstance(values, dict):
            state[index] = values
            continue
        _, name, param = named[index]
        state[index] = saved = whole(param, values, ties)
        made = {key: value for key, value in saved.items() if isinstance(value, Tensor) and local(value) is not local(values.get(key))}
        copies += [(f"{key} of {name}", value) for key, value in made.items()]
    packed_groups = [packed(group, defaults) for group in state_dict["param_groups"]]
    return {**state_dict, "state": state, "param_groups": packed_groups}, Copies(copies) if copies else None


def shielded(state_dict: dict[str, Any], groups: list[dict], options: Set[str], source: Source | None) -> dict[str, Any]:
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
    theirs = []
    for g, (mine, saved) in enumerate(zip(groups, state_dict["param_groups"], strict=False)):
        if source and (saved.keys() & source.names) - options:
            saved = source.translate(saved)  # a checkpoint of the source's own optimizer
        pairs = [(param, states.get(index)) for param, index in zip(mine["params"], saved.get("params", ()), strict=False)]
        names = [
            {key for key, value in values.items() if not is_left(param, key, value)}
            for param, values in pairs
            if isinstance(values, dict) and "step" in values
        ]
        theirs.append(loaded(g, saved, mine, options, names))
    theirs += state_dict["param_groups"][len(theirs) :]  # torch's error for a wrong number of groups
    kept = {
        # of a name that a flattened checkpoint lacks torch makes an empty dict
        index: {
            key: _Kept(value) if isinstance(value, Tensor) else value
            for key, value in values.items()
            if not isinstance(value, dict) or value
        }
        if isinstance(values, dict)
        else values
        for index, values in states.items()
    }
    return {**state_dict, "state": kept, "param_groups": theirs}


def taken(optimizer: str, param: Tensor, values: Mapping[str, Any], name: str, recipe: Recipe) -> dict[str, Any]:
    """The state of a parameter that load_state_dict, pickle or deepcopy brings, stored as the kernels read it.

    Args:
        optimizer: the name of its class, for errors.
        param: the parameter, whole.
        values: its state, with what shielded() has kept.
        name: the parameter's.
        recipe: that of its group.

    Raises:
        ValueError: a state is missing, or of another shape.
        RuntimeError: a parameter that cannot be stored as the recipe says.
    """
    initial, here = recipe.states, local(param)
    wanted = {*initial, *([MASTER] if recipe.precision.master_weights and here.dtype in WIDE else [])}
    whole_ones = {key: value for key, value in unkept(values).items() if key in wanted or not is_left(param, key, value)}
    known = locals_of(whole_ones)
    check_precision(name, here, recipe.precision)
    if saved := any(isinstance(value, _Kept) for value in values.values()):
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
    known |= {**others, "step": counter(step, float(step)), **kept}
    return {key: placed(param, value) for key, value in known.items()}
