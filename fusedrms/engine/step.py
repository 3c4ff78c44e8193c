"""One step of an optimizer, from its parameter groups to the launches."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

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


MOST_SETS = 4  # of parameters with gradients whose tables are kept: experts, two heads, the two networks of a GAN


def loss_of(optimizer: "FusedOptimizer", closure: Callable[[], Any]) -> Any:
    """What a closure returns; RuntimeError for one whose gradients a GradScaler has not seen."""
    if getattr(optimizer, "found_inf", None) is not None:
        raise RuntimeError(
            "step() takes no closure from a GradScaler, which looks for infinities before: compute loss and gradients before scaler.step()"
        )
    with torch.enable_grad():
        return closure()


def update(optimizer: "FusedOptimizer") -> None:
    """Update every parameter that has a gradient."""
    run = optimizer._run
    if run.copies:
        run.check_copies()
    if run.averaged:
        run.check_not_averaged("step()")
    recipes = run.recipes.of(optimizer)
    capturing = devices.capturing()
    if capturing and not run.recipes.capturable:
        raise RuntimeError("step() is captured in a CUDA graph, but capturable=False: make the optimizer with capturable=True")
    if run.ties.known and not capturing:
        run.ties.settle(optimizer._params(), optimizer.state)
    grad_scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    found = _planned(optimizer, recipes, capturing, found_inf)
    plan = found.plan
    if debug.ON:
        run.facts = debug.watch(optimizer.param_groups, plan, found.owned, run.facts, found.why)
    measures = False
    if run.recipes.stats:
        # where a graph may be captured next, whose replays all measure, nothing must be left to be made then
        measures = run.measures(capturing) or (run.recipes.capturable and not plan.is_measured)
    run.count(plan.step(recipes, found.owned, grad_scale, found_inf, run.least_norm, capturing=capturing, measures=measures))
    if measures:
        run.measured = plan
    run.tables = [plan, *found.others]
    if capturing:
        run.captured.append(plan)


class _Found(NamedTuple):
    """What a step is made with."""

    plan: Plan
    owned: "Owned"  # what its launches read, so that nobody, another thread say, can give it away meanwhile
    others: list[Plan]  # which may hold for the next steps
    why: str | None = None  # the plan is a new one


def _planned(optimizer: "FusedOptimizer", recipes: list[Recipe], capturing: bool, found_inf: Tensor | None) -> _Found:
    """A plan of the last steps, if its tables still hold, or a new one."""
    run, groups, state = optimizer._run, optimizer.param_groups, optimizer.state
    kept, run.tables = run.tables, []  # a step that fails leaves no tables behind
    shards = kept[0].sharded(groups) if kept else sharded(optimizer._params())
    redistributed = placed_grads(shards) if shards else {}
    # only the device knows of a step then
    on_device = found_inf is not None or run.recipes.capturable or run.recipes.skips
    others: list[Plan] = []
    for n, plan in enumerate(kept):
        if plan.counts_on_device >= on_device:
            owned = plan.holds(groups, recipes, state, redistributed)
            if owned is not None:
                return _Found(plan, owned, others + kept[n + 1 :])
            if plan.other_grads:
                others.append(plan)
    if capturing:
        run.tables = kept
        raise RuntimeError(
            "step() is captured in a CUDA graph before it has made its tables: make one step before, with the same parameters, "
            "options and attributes (grad_scale, found_inf), and gradients of the same shapes and strides"
        )
    why = "since the old ones do not hold for these options, tensors or gradients" if kept else "where there were none"
    kept = plan = None  # free the old tables first
    known = set(shards)
    redistributed |= placed_grads([param for param in sharded(optimizer._params()) if param not in known])
    optimizer._check_rules()
    plan = Plan(
        name=type(optimizer).__name__,
        groups=groups,
        recipes=recipes,
        state=state,
        redistributed=redistributed,
        count_on_device=on_device,
        first_number=optimizer._first_number,
        spikes=run.spikes_for(run.recipes.skip_above),
    )
    owned = plan.holds(groups, recipes, state, redistributed)
    if owned is None:
        raise RuntimeError("parameters or gradients changed while step() read them: another thread may be writing them")
    return _Found(plan, owned, others[: MOST_SETS - 1], why)
