"""Steps within the backward pass: each gradient is used, and freed, as soon as it is there."""

# pyright: reportPrivateUsage=false
# a part shares what its owner's steps leave behind, which is no user's business

import math
from collections import OrderedDict
from collections.abc import Callable
from types import MethodType
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import ParamsT

from .engine.backwards import Backwards
from .engine.optimizer import FusedOptimizer
from .engine.options.checks import limits_norm
from .engine.options.groups import named_parameters
from .engine.run import Run
from .engine.step import loss_of
from .kernels import devices

_ATTRIBUTE = "_fusedrms_part"  # of a parameter
Fused = TypeVar("Fused", bound=FusedOptimizer)


def _limits_all(group: dict[str, Any]) -> bool:
    """Whether the norm of all gradients limits those of a parameter group."""
    return limits_norm(group) and group["clip_norm_over"] == "optimizer"


def _check(group: dict[str, Any], from_previous: bool) -> None:
    """ValueError for an option that needs what a backward has not; from_previous: the norm of the one before stands in for its own."""
    if _limits_all(group) and not from_previous:
        raise ValueError(
            f"clip_grad_norm={group['clip_grad_norm']} needs the norm of all gradients, but here each is used before the next one "
            "exists: use norm_from='previous', clip_norm_over='parameter' or clip_grad_value"
        )
    if group["model_parallel_group"] and (from_previous or group["clip_grad_norm"] is not None):
        raise ValueError(
            "clip_grad_norm with model_parallel_group is not supported by apply_in_backward, since other processes are at other gradients "
            "at that time: leave one of the two out"
        )
    if group["skip_nonfinite"]:
        raise ValueError("skip_nonfinite=True needs all gradients, but here each is used before the next one exists: leave it False")
    if group["skip_above"] is not None:
        raise ValueError(
            f"skip_above={group['skip_above']} needs the norm of all gradients, but here each is used before the next one exists: "
            "leave it None"
        )


class _Part:
    """The step of one parameter: that of an optimizer of its own, with the options and the state of the owner."""

    def __init__(self, owner: FusedOptimizer):
        self.owner = owner
        self._optimizer = type(owner).__new__(type(owner))
        run = Run(owner._run.ties)
        owner._run.parts.add(run)
        self._optimizer.__dict__.update(owner.__dict__, param_groups=[{}], state=type(owner.state)(dict), _run=run)

    def __reduce__(self):
        """A pickled parameter has no optimizer."""
        return OrderedDict, ()

    def step(self, param: Tensor) -> None:
        """Nothing for a parameter that the owner no longer has."""
        owner, optimizer = self.owner, self._optimizer
        found = _find(owner.param_groups, param, optimizer._first_number)
        if found is None:
            return
        group, number = found
        if number != optimizer._first_number:  # others were added or removed, or the order is another
            optimizer._first_number = number
            optimizer.release()
        own = {key: value for key, value in group.items() if key != "param_names"}
        run, backwards = optimizer._run, owner._run.backwards
        assert backwards
        _check(own, backwards.limits)
        owner._run.check_copies()
        owner._run.check_not_averaged("a backward with steps in it")
        backwards.enter(run)
        run.least_norm = _take_previous(own, backwards) if backwards.limits else None
        optimizer.param_groups[0] = {**own, "params": [param]}
        if param in owner.state:
            optimizer.state[param] = owner.state[param]
        try:
            type(owner).step(optimizer)
            owner.state[param] = optimizer.state[param]
            backwards.leave(run, run.grad_norm())
        finally:
            optimizer.state.clear()  # what the owner lets go is not kept alive here
        owner.__dict__["_opt_called"] = True  # which schedulers look for
        param.grad = None


def _take_previous(own: dict[str, Any], backwards: Backwards) -> Tensor | float | None:
    """Let a parameter be limited by the larger of its own norm and, which it returns, that of the backward before; measure in any case."""
    if devices.capturing():
        raise RuntimeError("norm_from='previous' is not supported in a CUDA graph: each replay would use the norm of the capture")
    previous = backwards.previous if own["clip_norm_over"] == "optimizer" else None
    own["clip_norm_over"] = "parameter"
    if own["clip_grad_norm"] is None:
        own["clip_grad_norm"] = math.inf
    return previous


def _find(groups: list[dict[str, Any]], param: Tensor, guess: int) -> tuple[dict[str, Any], int] | None:
    """The group of a parameter and its number among those of all groups, looked for first where it was."""
    begin = 0
    for group in groups:
        params = group["params"]
        if 0 <= guess - begin < len(params) and params[guess - begin] is param:
            return group, guess
        begin += len(params)
    begin = 0
    for group in groups:
        found = next((k for k, other in enumerate(group["params"]) if other is param), None)
        if found is not None:
            return group, begin + found
        begin += len(group["params"])
    return None


def _part(owner: FusedOptimizer, param: Tensor) -> _Part:
    """Kept by the parameter, where Python's garbage collector sees it; in torch's hooks it does not."""
    part = getattr(param, _ATTRIBUTE, None)
    if not isinstance(part, _Part) or part.owner is not owner:
        part = _Part(owner)
        setattr(param, _ATTRIBUTE, part)
    return part


def _use(param: Tensor) -> None:
    """A hook that keeps nothing alive."""
    if isinstance(part := getattr(param, _ATTRIBUTE, None), _Part):
        part.step(param)


def _step(self: FusedOptimizer, closure: Callable[[], Any] | None = None) -> Any:
    """Update what no backward has: parameters of groups that were added since, gradients that were set by hand."""
    if getattr(self, "found_inf", None) is not None:
        raise RuntimeError(
            "a GradScaler cannot unscale gradients that the backward has already used: train in bfloat16, or without apply_in_backward"
        )
    loss = None if closure is None else loss_of(self, closure)
    for each in named_parameters(self.param_groups):
        if each.param.grad is not None:
            _part(self, each.param).step(each.param)
    return loss


def _make(module: Any, optimizer_class: Callable[..., Fused], norm_from: str | None, options: dict[str, Any]) -> Fused:
    """The optimizer of apply_in_backward, whose arguments it checks."""
    if isinstance(module, DistributedDataParallel):
        raise ValueError(
            "apply_in_backward uses gradients before DistributedDataParallel averages them: use FSDP2's fully_shard, or call step()"
        )
    if norm_from not in (None, "previous"):
        raise ValueError(f"norm_from={norm_from!r} is not supported: it must be 'previous' or None")
    optimizer = optimizer_class(module.parameters() if isinstance(module, torch.nn.Module) else module, **options)
    if not isinstance(optimizer, FusedOptimizer):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"optimizer_class={optimizer_class!r} makes no optimizer of fusedrms: use FusedRMSProp, say")
    for group in optimizer.param_groups:
        _check(group, from_previous=norm_from is not None)
    if norm_from and not any(map(_limits_all, optimizer.param_groups)):
        raise ValueError(
            f"norm_from={norm_from!r} has no effect: set clip_grad_norm with clip_norm_over='optimizer' in a group, or leave it out"
        )
    return optimizer


def apply_in_backward(
    module: torch.nn.Module | ParamsT,
    optimizer_class: Callable[..., Fused],
    *,
    norm_from: Literal["previous"] | None = None,
    **options: Any,
) -> Fused:
    """Let every `backward()` update each parameter as soon as its gradient is complete, and free the gradient.

    So the gradients of a whole model are never in memory together. The result is that of `optimizer_class(module.parameters(), **options)`
    with a `step()` and a `zero_grad()` after each backward, bit for bit, random bits included. But each parameter has a launch of its own.
    Call it after `fully_shard`, which makes other parameters.

    Args:
        module: The model, or parameters or parameter groups as the class takes them.
        optimizer_class: `FusedRMSProp`, `FusedRMSPropGraves`, `FusedSMORMS3`, a class that `rule` has made, or a preset.
        norm_from: "previous" lets `clip_grad_norm` limit gradients by the norm of all gradients in the backward before; see below. Default
            None: there is no norm of all gradients.
        options: Options of the class.

    Returns:
        The optimizer, for schedules, `state_dict()` and `load_state_dict()`. Its `step()` updates only parameters that still have a
            gradient: those of groups that were added later, and those that required no gradient at this call. Hooks of steps are called
            once for each parameter. Where a parameter is in several such optimizers, the latest updates it.

    Raises:
        TypeError: `optimizer_class` makes no optimizer of this package.
        ValueError: An option that needs all gradients at once, a `DistributedDataParallel` module, another `norm_from`, or a `norm_from`
            that serves no parameter group; and as the class.

    Examples:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = apply_in_backward(model, FusedRMSProp, lr=1e-3)
        >>> model(torch.ones(8, 4)).square().mean().backward()  # updates the parameters
        >>> model.weight.grad is None
        True

    Whatever needs several gradients at once is excluded: a finite `clip_grad_norm` over the optimizer without `norm_from`,
    `skip_nonfinite`, `skip_above`, a `GradScaler`, gradient accumulation. "Around training" in the documentation's reference lists all of
    it, and says what `norm_from="previous"` computes.
    """
    optimizer = _make(module, optimizer_class, norm_from, options)
    optimizer._run.backwards = Backwards(optimizer._run.parts, limits=norm_from is not None)
    for each in named_parameters(optimizer.param_groups):
        if each.param.requires_grad:
            _part(optimizer, each.param)
            each.param.register_post_accumulate_grad_hook(_use)  # pyright: ignore[reportUnknownMemberType]
    optimizer.step = MethodType(_step, optimizer)
    return optimizer
