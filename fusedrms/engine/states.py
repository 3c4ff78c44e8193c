"""States that are made before a step needs them."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy as is_uninitialized

from .options.groups import NamedParameter, named_parameters
from .options.recipe import Recipe
from .sharded import as_dtensor, local, locals_of
from .state.full_precision import full_precision
from .state.precision import Kinds
from .state.state_checks import check_state
from .state.storage import beginning, counter, fit_in_place
from .state.strides import state_like
from .state.tensor_checks import check_precision
from .state.usage import Memory, state_bytes


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


def planned_memory(held: Memory, groups: Sequence[dict[str, Any]], recipes: Sequence[Recipe], in_backward: bool) -> Memory:
    """Memory with the gradients and states that a step of all parameters will need, of local shards.

    Args:
        held: what there is now.
        groups: the parameter groups.
        recipes: one for each of them.
        in_backward: a backward frees each gradient as it uses it.
    """
    named = [each for each in named_parameters(groups) if not is_uninitialized(each.param)]
    named = [each for each in named if each.param.requires_grad or each.param.grad is not None]
    grads = [] if in_backward else [param if param.grad is None else param.grad for _, _, param in named]
    states: defaultdict[Any, dict[str, Tensor]] = defaultdict(dict)  # made on the meta device, where they take no memory
    make_states([each._replace(param=torch.empty_like(local(each.param), device="meta")) for each in named], recipes, states)
    return dataclasses.replace(held, gradients=sum(local(grad).nbytes for grad in grads), states=state_bytes(states.values()))


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
