"""States that are made before a step needs them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .options.groups import NamedParameter
from .options.recipe import Recipe
from .sharded import as_dtensor, local, locals_of
from .state.full_precision import full_precision
from .state.precision import Kinds
from .state.state_checks import check_state
from .state.storage import beginning, counter, fit_in_place
from .state.strides import state_like
from .state.tensor_checks import check_precision


def make_states(named: Sequence[NamedParameter], recipes: Sequence[Recipe], states: Any) -> None:
    """Make those of some parameters.

    Args:
        named: the parameters.
        recipes: one for each parameter group.
        states: the optimizer's.

    Raises:
        RuntimeError, ValueError: as of a step, before any state was made.
    """
    for group, name, param in named:
        check_precision(name, local(param), recipes[group].precision)
        check_state(name, local(param), states.get(param, {}), recipes[group].states, recipes[group].kinds)
    for group, _, param in named:
        values = states[param]
        fit_in_place(param, values, recipes[group].states, recipes[group].precision, recipes[group].kinds)
        if not isinstance(step := values.get("step", 0.0), Tensor):
            values["step"] = counter(None, float(step))


def planned_states(named: Sequence[NamedParameter], recipes: Sequence[Recipe]) -> Mapping[Any, dict[str, Tensor]]:
    """What make_states() would make of parameters without states, on the meta device, where it takes no memory; of local shards alone."""
    states: defaultdict[Any, dict[str, Tensor]] = defaultdict(dict)
    make_states([each._replace(param=torch.empty_like(local(each.param), device="meta")) for each in named], recipes, states)
    return states


def begin_missing(
    named: Sequence[NamedParameter], states: Mapping[Any, Any], initial_of: Callable[[int], dict[str, float | None]], kinds: Kinds
) -> None:
    """Begin, where a parameter has made steps, the states that its group asks for since then, as the next step would.

    Args:
        named: all parameters.
        states: the optimizer's.
        initial_of: what the states of a parameter group start from, by its number.
        kinds: as in Recipe.
    """
    for each in named:
        values = states.get(each.param)
        if isinstance(values, dict) and "step" in values:
            for key, first in initial_of(each.group).items():
                if key not in values:  # nor, by setdefault, if another thread has begun it meanwhile, and stepped
                    param = local(each.param)
                    first = beginning(param, full_precision(kinds, param, locals_of(values)), first) if first is None else first
                    values.setdefault(key, as_dtensor(each.param, state_like(param, first)))
