"""One step of an optimizer, from its parameter groups to the launches."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..kernels import devices
from . import debug
from .options.recipe import Recipe
from .sharded import placed_grads, sharded
from .tables.plan import Plan

if TYPE_CHECKING:
    from .optimizer import FusedOptimizer
    from .ownership.facts import Owned


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """What a closure returns, if there is one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def check_closure(optimizer: "FusedOptimizer", closure: Callable[[], Any] | None) -> None:
    """RuntimeError for a closure whose gradients a GradScaler has not seen."""
    if closure is not None and getattr(optimizer, "found_inf", None) is not None:
        raise RuntimeError("a GradScaler looks for infinities before step() calls the closure: call it before scaler.step()")


def update(optimizer: "FusedOptimizer") -> None:
    """Update every parameter that has a gradient."""
    run = optimizer._run
    run.check_copies()
    recipes = optimizer._recipes()
    capturing = _check_capture(optimizer)
    if not capturing:
        run.ties.settle(optimizer._params(), optimizer.state)
    grad_scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    plan, owned, why = _planned(optimizer, recipes, capturing, found_inf)
    if debug.ON:
        run.facts = debug.watch(optimizer.param_groups, plan, owned, run.facts, why)
    run.count(plan.step(recipes, owned, grad_scale=grad_scale, found_inf=found_inf, capturing=capturing))
    run.plan = plan
    if capturing:
        run.captured.append(plan)


def _is_capturable(optimizer: "FusedOptimizer") -> bool:
    return any(group["capturable"] for group in optimizer.param_groups)


def _check_capture(optimizer: "FusedOptimizer") -> bool:
    """Whether a CUDA graph captures the step; RuntimeError if it may not."""
    capturing = devices.capturing()
    if capturing and not _is_capturable(optimizer):
        raise RuntimeError("step() is captured in a CUDA graph, but capturable=False: make the optimizer with capturable=True")
    return capturing


def _planned(
    optimizer: "FusedOptimizer", recipes: list[Recipe], capturing: bool, found_inf: Tensor | None
) -> "tuple[Plan, Owned, str | None]":
    """The plan of the last step, if its tables still hold, or a new one.

    Returns:
        The plan; what its launches read, so that nobody, another thread say, can give it away meanwhile; why it is a new one, or None.
    """
    run, groups = optimizer._run, optimizer.param_groups
    plan, run.plan = run.plan, None  # a step that fails leaves no tables behind
    shards = sharded(optimizer._params()) if plan is None else plan.sharded(groups)
    redistributed = placed_grads(shards)
    # only the device knows of a step then
    on_device = found_inf is not None or _is_capturable(optimizer) or any(recipe.skip_nonfinite for recipe in recipes)
    if plan is not None and plan.counts_on_device >= on_device:
        owned = plan.holds(groups, recipes, optimizer.state, redistributed)
        if owned is not None:
            return plan, owned, None
    if capturing:
        run.plan = plan
        raise RuntimeError(
            "step() is captured in a CUDA graph, but must make its tables first: make a step before, with the same parameters, "
            "options and attributes (grad_scale, found_inf), and gradients of the same shapes and strides"
        )
    why = "where there were none" if plan is None else "since the old ones do not hold for these options, tensors or gradients"
    plan = None  # free the old tables first
    known = set(shards)
    redistributed |= placed_grads([param for param in sharded(optimizer._params()) if param not in known])
    plan = Plan(
        name=type(optimizer).__name__,
        groups=groups,
        recipes=recipes,
        state=optimizer.state,
        redistributed=redistributed,
        count_on_device=on_device,
        first_number=optimizer._first_number,
    )
    owned = plan.holds(groups, recipes, optimizer.state, redistributed)
    if owned is None:
        raise RuntimeError("parameters or gradients changed while step() read them: another thread may be writing them")
    return plan, owned, why
