"""The options in a checkpoint: under the keys that torch's has, so that either loads the other's, in each of torch's ways.

torch.distributed.checkpoint looks for every key of the optimizer that loads, a full state_dict may have no other, and a flattened one
must have what iterating over a parameter group gives. So the options that torch.optim.RMSprop lacks stand in the value of an option
that it has, and that changes no result, there or here: foreach.
"""

import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..options.checks import plain
from ..options.recipe import precision

TORCH_OPTIONS = frozenset(inspect.signature(torch.optim.RMSprop).parameters) - {"params"}
CARRIER = "foreach"
MODEL_PARALLEL, LR_IN_MOMENTUM = "model_parallel_group", "lr_in_momentum"
# how a step runs and how values are stored, not what it computes: never taken from a checkpoint
NEVER_LOADED = frozenset(
    {"capturable", CARRIER, "differentiable", "stochastic_rounding", "master_weights", "state_dtype", "stats", MODEL_PARALLEL}
)
_STEPS = "steps"  # after how many steps the carrier was written
ACCEPTED = "accepted_norms"  # of the last steps that skip_above did not leave out
_NORM = "previous_norm"  # by which the next backward is limited, in one of the groups


def beyond_torch(options: Iterable[str]) -> frozenset[str]:
    """Those of the options that torch lacks."""
    return frozenset(options) - TORCH_OPTIONS


class Unpacked(NamedTuple):
    """What a parameter group of a checkpoint says beyond torch's options."""

    options: dict[str, Any]
    steps: float  # after which the carrier was written; infinity if that is unknown
    accepted: list[float]  # norms, the oldest first


def pack_group(group: Mapping[str, Any], defaults: Mapping[str, Any], steps: float = 0, accepted: Sequence[float] = ()) -> dict[str, Any]:
    """A parameter group as a checkpoint has it.

    Args:
        group: the group.
        defaults: of all options, those of their rule.
        steps: the most that one of its parameters has had.
        accepted: norms of the last steps that skip_above did not leave out, if this group has them for all.
    """
    ours = beyond_torch(defaults)
    if not precision({**defaults, **group}).is_stochastic:  # a seed of nothing
        defaults = {**defaults, "seed": group.get("seed")}
    carried = {name: value for name in sorted(ours - NEVER_LOADED) if (value := plain(group.get(name, defaults[name]))) != defaults[name]}
    kept = {key: plain(value) for key, value in group.items() if key not in ours}
    if carried.get(LR_IN_MOMENTUM) and steps:
        carried[_STEPS] = steps
    if accepted:
        carried[ACCEPTED] = list(accepted)
    return {**kept, CARRIER: json.dumps(carried, default=float)} if carried else kept


def pack_norm(groups: list[dict[str, Any]], norm: float) -> None:
    """Let the groups of a checkpoint tell by which norm the next backward is limited."""
    carried = json.loads(text) if isinstance(text := groups[0].get(CARRIER), str) else {}
    groups[0] = {**groups[0], CARRIER: json.dumps({**carried, _NORM: norm})}


def unpack_norm(groups: Iterable[Mapping[str, Any]]) -> float | None:
    """What pack_norm() has put into groups whose options can be unpacked."""
    carried = [json.loads(text) for group in groups if isinstance(text := group.get(CARRIER), str)]
    return next((float(dict(each)[_NORM]) for each in carried if _NORM in dict(each)), None)


def unpack_options(g: int, saved: Mapping[str, Any], ours: frozenset[str]) -> Unpacked:
    """What parameter group g of a checkpoint says of our options: in the carrier or, as in version 0.1, under their own names.

    Raises:
        ValueError: it says what this version, or this rule, does not know.
    """
    carried, steps, accepted = {}, math.inf, []
    if isinstance(text := saved.get(CARRIER), str):
        try:
            carried = dict(json.loads(text))
            steps = float(carried.pop(_STEPS, steps))
            accepted = [_positive(norm) for norm in carried.pop(ACCEPTED, ())]
            if not float(carried.pop(_NORM, 0)) >= 0:
                raise ValueError
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                f"the {CARRIER} of parameter group {g} in the checkpoint is {text[:80]!r}, not options in JSON: load another checkpoint"
            ) from None
        if unknown := carried.keys() - ours:
            raise ValueError(
                f"parameter group {g} of the checkpoint has {', '.join(f'{name}={carried[name]!r}' for name in sorted(unknown))}, which "
                "this version, or this rule, does not know: load it with the version and the class that saved it"
            )
    carried |= {name: saved[name] for name in ours & saved.keys()}
    return Unpacked({name: value for name, value in carried.items() if name not in NEVER_LOADED}, steps, accepted)


def _positive(value: Any) -> float:
    if not 0 < float(value) < math.inf:
        raise ValueError
    return float(value)
