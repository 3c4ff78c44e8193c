"""What a checkpoint holds of an optimizer: the keys that torch's holds, so that either loads the other's, in each of torch's ways.

torch.distributed.checkpoint looks for every key of the optimizer that loads, a full state_dict may have no other, and a flattened one
must have what iterating over a parameter group gives. So the options that torch.optim.RMSprop lacks stand in the value of an option
that it has, and that changes no result, there or here: foreach.
"""

import inspect
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .options import plain
from .sharded import local
from .storage import is_noisy

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
    if not is_noisy(group):  # a seed of nothing
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
        except (TypeError, ValueError):
            raise ValueError(
                f"the {CARRIER} of parameter group {g} in the checkpoint is {text!r}, no JSON of options: restore the checkpoint"
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
