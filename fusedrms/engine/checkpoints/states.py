"""The states of parameters: as a checkpoint has them, through torch's load_state_dict, and stored again as the kernels read them."""

from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any

from torch import Tensor

from ..options.groups import NamedParameter, named_parameters
from ..options.naming import Source
from ..options.recipe import Recipe
from ..options.skip_above import SKIP_ABOVE
from ..sharded import as_dtensor, local, locals_of
from ..state.full_precision import dequantized, export_state, resolve_variance
from ..state.precision import MASTER, WIDE, Kinds
from ..state.quantized import dim_orders
from ..state.state_checks import check_codes, check_complete, check_shards, check_state, check_steps
from ..state.storage import counter, fit, must_drop, obsolete
from ..state.strides import state_like
from ..state.tensor_checks import check_precision
from ..state.ties import Ties
from ..tables.active import steps_of
from .carrier import LR_IN_MOMENTUM, pack_group
from .groups import load_group


class _Shielded:
    """Carries a state through torch's load_state_dict, which casts tensors to the parameter's dtype and makes text another."""

    def __init__(self, value: Tensor | str):
        self._value = value

    def copy(self) -> Tensor | str:
        return self._value.clone() if isinstance(self._value, Tensor) else self._value


def to_checkpoint(
    state_dict: dict[str, Any],
    groups: Sequence[dict[str, Any]],
    states: Mapping[Any, Any],
    *,
    ties: Ties,
    defaults: Mapping[str, Any],
    accepted: Sequence[float],
    kinds: Kinds,
) -> tuple[dict[str, Any], list[tuple[str, Tensor]]]:
    """What torch's state_dict() gives as a checkpoint has it, in full precision, and which tensors are copies in it, with their names.

    Args:
        state_dict: torch's.
        groups: the optimizer's parameter groups; states, ties: likewise.
        defaults: of all options, those of their rule.
        accepted: norms of the last steps that skip_above did not leave out.
        kinds: as in Recipe.

    Raises:
        ValueError: codes or scales that do not fit their parameter.
    """
    named = list(named_parameters(groups))
    for each in named:
        if isinstance(values := states.get(each.param), dict):
            check_codes(each.name, local(each.param), values, kinds)
    state, copies = {}, []
    for index, values in state_dict["state"].items():
        if not isinstance(index, int) or not isinstance(values, dict):
            state[index] = values
            continue
        each = named[index]
        state[index] = saved = export_state(kinds, each.param, values, ties)
        made = {key: value for key, value in saved.items() if isinstance(value, Tensor) and local(value) is not local(values.get(key))}
        if made and isinstance(values.get("step"), Tensor):  # whoever writes into some of it writes into nothing of the optimizer
            saved["step"] = values["step"].clone()
        copies += [(f"{key} of {each.name}", value) for key, value in made.items()]
    steps = steps_of([param for group in groups if group.get(LR_IN_MOMENTUM) for param in group["params"]], states)
    most = [max((steps.get(param, 0.0) for param in group["params"]), default=0.0) for group in groups]
    first = next((g for g, group in enumerate(groups) if group.get(SKIP_ABOVE) is not None), None)
    packed = [
        pack_group(group, defaults, n, accepted if g == first else ())
        for g, (group, n) in enumerate(zip(state_dict["param_groups"], most, strict=True))
    ]
    return {**state_dict, "state": state, "param_groups": packed}, copies


def from_checkpoint(
    state_dict: dict[str, Any], groups: Sequence[dict[str, Any]], options: Set[str], kinds: Kinds, source: Source | None
) -> dict[str, Any]:
    """A checkpoint as torch's load_state_dict() may see it: groups with all options, and states that it neither casts nor moves.

    Args:
        state_dict: the checkpoint.
        groups: the parameter groups that load it.
        options: the names of all options.
        kinds: as in Recipe.
        source: what has made the optimizer from other names, if anything has.

    Raises:
        ValueError: as of load_group().
    """
    states = state_dict["state"]
    theirs, anew = [], {}
    for g, (mine, saved) in enumerate(zip(groups, state_dict["param_groups"], strict=False)):
        if source and (saved.keys() & source.names) - options:
            saved = source.translate(saved)  # a checkpoint of the source's own optimizer
        pairs = list(zip(mine["params"], saved.get("params", ()), strict=False))
        begun = [(param, values) for param, index in pairs if isinstance(values := states.get(index), dict) and "step" in values]
        group, restarted = load_group(g, saved, mine, options, begun, kinds)
        theirs.append(group)
        anew |= dict.fromkeys((index for _, index in pairs), restarted)
    theirs += state_dict["param_groups"][len(theirs) :]  # torch's error for a wrong number of groups
    shielded = {index: _shield(values, anew.get(index, ())) if isinstance(values, dict) else values for index, values in states.items()}
    return {**state_dict, "state": shielded, "param_groups": theirs}


def _shield(values: dict[str, Any], anew: Collection[str]) -> dict[str, Any]:
    """The state of one parameter, shielded from torch's load_state_dict; anew: names that it leaves out."""
    # of a name that a flattened checkpoint lacks torch makes an empty dict
    known = {key: value for key, value in values.items() if (not isinstance(value, dict) or value) and key not in anew}
    return {key: _Shielded(value) if isinstance(value, Tensor | str) else value for key, value in known.items()}


def unshield(values: Mapping[str, Any]) -> dict[str, Any]:
    """The state of one parameter after torch's load_state_dict: copies of what was shielded from it, the others as they are."""
    return {name: value.copy() if isinstance(value, _Shielded) else value for name, value in values.items()}


def restore_states(
    optimizer: str, groups: Sequence[dict[str, Any]], recipes: Sequence[Recipe], states: Mapping[Any, Any], saved: bool
) -> dict[Any, dict[str, Any]]:
    """The states that load_state_dict, pickle or deepcopy brings, stored as the kernels read them.

    Args:
        optimizer: the name of its class, for errors.
        groups: its parameter groups.
        recipes: one for each.
        states: by their parameter, shielded; others as they are.
        saved: load_state_dict brings them.

    Raises:
        ValueError: a state is missing, or of another shape; a step that is no number of steps.
        RuntimeError: a parameter that cannot be stored as its recipe says.
    """
    named = {each.param: each for each in named_parameters(groups)}
    restored = {}
    for key, values in states.items():  # one by one: in full precision they may be too large to be there at once
        if isinstance(values, dict):
            restored[key] = values = unshield(values)
            if key in named and values:
                restored[key] = _restore(optimizer, named[key], values, recipes[named[key].group], saved)
    return restored


def _restore(optimizer: str, named: NamedParameter, values: dict[str, Any], recipe: Recipe, saved: bool) -> dict[str, Any]:
    """As restore_states(), of one parameter."""
    name, param = named.name, named.param
    shard = local(param)
    # the parameter may yet be loaded: an average that did not come with it begins with the next step
    initial = {key: first for key, first in recipe.states.items() if first is not None or key in values}
    wanted = {*initial, *([MASTER] if recipe.precision.master_weights and shard.dtype in WIDE else [])}
    values = {key: value for key, value in values.items() if key in wanted or not must_drop(recipe.kinds, param, key, value)}
    known = locals_of(values)
    check_precision(name, shard, recipe.precision)
    if saved:
        check_shards(name, param, values, wanted)
        if "step" in known or initial.keys() & known.keys():  # else it has only been given a master
            check_complete(optimizer, name, known, initial)
    check_state(name, shard, known, initial, recipe.kinds)
    known = dequantized(recipe.kinds, shard, known) if saved else resolve_variance(recipe.kinds, shard, known, initial)
    kept = fit(shard, known, initial, recipe.precision, recipe.kinds, loading=True)
    known = {key: value for key, value in known.items() if key not in obsolete(known, initial, kept)}
    others = {
        key: state_like(shard, value)
        for key, value in known.items()
        if isinstance(value, Tensor) and value.shape == shard.shape and value.dtype.itemsize > 1 and key not in kept
    }
    step = known.get("step", 0.0)
    check_steps(name, steps := float(step))
    known |= {**others, "step": counter(step, steps), **kept, **dim_orders(recipe.kinds, shard, kept)}
    return {key: as_dtensor(param, value) for key, value in known.items()}
