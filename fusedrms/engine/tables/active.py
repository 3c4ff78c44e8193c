"""The parameters that a step would update, and whether it can."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels import devices
from ..options.groups import NamedParameter
from ..options.recipe import Recipe
from ..ownership.memory import Named, check_apart, check_memory
from ..sharded import local, locals_of
from ..state.precision import stored
from ..state.state_checks import check_state, check_steps
from ..state.tensor_checks import check_placement, check_precision, check_tensors


class Active(NamedTuple):
    """A parameter that has a gradient."""

    number: int  # among all parameters of the optimizer
    group: int  # index of its parameter group
    name: str  # what errors call it
    param: Tensor
    own_grad: Tensor  # its grad
    grad: Tensor  # what a step reads: the local tensor of that, or of what it was redistributed to


def find_active(
    optimizer: str, named: list[NamedParameter], recipes: list[Recipe], state: Mapping, redistributed: dict[Tensor, Tensor]
) -> list[Active]:
    """What a step would update.

    Args:
        optimizer: its name, for errors.
        named: its parameters.
        recipes: one for each group.
        state: the optimizer's.
        redistributed: placed_grads() of all parameters.

    Raises:
        RuntimeError: a parameter or gradient that cannot be updated.
        ValueError: a state of another shape than its parameter's.
    """
    active: list[Active] = []
    touched: list[Named] = []
    for number, each in enumerate(named):
        own_grad = each.param.grad  # read once: another thread may set it
        if own_grad is None:
            continue
        check_placement(each.name, each.param, own_grad)
        param, recipe, values = local(each.param), recipes[each.group], state.get(each.param, {})
        grad = redistributed[each.param] if each.param in redistributed else local(own_grad)
        check_tensors(optimizer, each.name, param, grad)
        check_precision(each.name, param, recipe.precision)
        check_state(each.name, param, values, recipe.states, recipe.kinds)
        active.append(Active(number=number, group=each.group, name=each.name, param=each.param, own_grad=own_grad, grad=grad))
        values = locals_of(values)
        written = [
            key for key in (*stored(param, recipe.states, recipe.precision, recipe.kinds), "step") if isinstance(values.get(key), Tensor)
        ]
        touched += [Named(each.name, param), Named(f"{each.name}.grad", grad, written=False)]
        touched += [Named(f"the {key} of {each.name}", values[key]) for key in written]
    if len({each.param for each in active}) != len(active):
        raise RuntimeError(f"a parameter is listed twice, and {optimizer} would update it twice at once: list it once")
    check_memory(touched)
    check_apart(touched)
    return active


def steps_of(params: list[Tensor], state: Mapping) -> dict[Tensor, float]:
    """How many each parameter has had; of those counted on GPUs all are asked for at once."""
    counts = {param: state[param]["step"] for param in params if "step" in state.get(param, ())}
    on_gpu = {param: count for param, count in counts.items() if isinstance(count, Tensor) and devices.is_gpu(count.device)}
    home = next((count.device for count in on_gpu.values()), None)
    known = torch.stack([count.reshape(()).to(home, torch.float64) for count in on_gpu.values()]).tolist() if on_gpu else []
    return {param: float(count) for param, count in counts.items() if param not in on_gpu} | dict(zip(on_gpu, known, strict=True))


def steps_before(active: list[Active], state: Mapping) -> list[float]:
    """How many steps each has had; ValueError for what is no number of steps."""
    known = steps_of([each.param for each in active], state)
    steps = [known.get(each.param, 0.0) for each in active]
    for each, number in zip(active, steps, strict=True):
        check_steps(each.name, number)
    return steps
