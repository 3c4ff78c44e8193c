"""Steps within the backward pass: each gradient is used, and freed, as soon as it is there."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from .engine.optimizer import FusedOptimizer
from .engine.options.groups import named_parameters
from .engine.run import Run
from .engine.step import loss_of

_ATTRIBUTE = "_fusedrms_part"  # of a parameter


def _check(group: dict[str, Any]) -> None:
    if group["clip_grad_norm"] is not None and group["clip_norm_over"] == "optimizer":
        raise ValueError(
            f"clip_grad_norm={group['clip_grad_norm']} needs the norm of all gradients, but in a backward each is used before the next is "
            "there: use clip_norm_over='parameter' or clip_grad_value"
        )
    if group["skip_nonfinite"]:
        raise ValueError("skip_nonfinite=True needs all gradients, but in a backward each is used before the next is there: leave it False")
    if group["skip_above"] is not None:
        raise ValueError(
            f"skip_above={group['skip_above']} needs the norm of all gradients, but in a backward each is used before the next is there: "
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
        _check(own)
        owner._run.check_copies()
        owner._run.check_not_averaged("a backward with steps in it")
        optimizer.param_groups[0] = {**own, "params": [param]}
        if param in owner.state:
            optimizer.state[param] = owner.state[param]
        try:
            type(owner).step(optimizer)
            owner.state[param] = optimizer.state[param]
        finally:
            optimizer.state.clear()  # what the owner lets go is not kept alive here
        owner.__dict__["_opt_called"] = True  # which schedulers look for
        param.grad = None


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
        raise RuntimeError("a GradScaler cannot unscale gradients that a backward has used already: train in bfloat16, or step() as usual")
    loss = None if closure is None else loss_of(self, closure)
    for each in named_parameters(self.param_groups):
        if each.param.grad is not None:
            _part(self, each.param).step(each.param)
    return loss


def apply_in_backward(
    module: torch.nn.Module | Iterable[Tensor] | Iterable[dict[str, Any]], optimizer_class: Callable[..., FusedOptimizer], **options: Any
) -> FusedOptimizer:
    """Let every ``backward()`` update each parameter as soon as its gradient is complete, and free the gradient.

    So gradients never take the memory of a whole model. The result is that of ``optimizer_class(module.parameters(), **options)``
    with a ``step()`` and a ``zero_grad()`` after each backward, bit for bit, random bits included; but each parameter has a
    launch of its own.

    Args:
        module: a module, or what an optimizer takes: parameters or parameter groups.
        optimizer_class: one of this package's, or of its presets.
        options: its own.

    Returns:
        The optimizer, for schedules, ``state_dict()`` and ``load_state_dict()``; its ``step()`` updates only what still has a gradient:
        parameters of groups that were added later, and those that required no gradient at this call. Hooks of steps are called once
        for each parameter. Where a parameter is in several such optimizers the latest updates it.

    Raises:
        TypeError: optimizer_class is none of this package's.
        ValueError: an option that needs all gradients, a DistributedDataParallel module, and as of the class.

    Excluded is what needs several gradients at once: clip_grad_norm over the optimizer, skip_nonfinite and skip_above (ValueError); a
    ``GradScaler`` (RuntimeError from its step); gradient accumulation, and hooks that finish gradients after the backward, as
    DistributedDataParallel's do. Reentrant activation checkpointing (``use_reentrant=True``) runs a backward of its own for each
    part that it recomputes: a weight that several of them share is updated after each. Use ``use_reentrant=False`` there.
    """
    if isinstance(module, DistributedDataParallel):
        raise ValueError("DistributedDataParallel averages gradients after these steps have used them: use FSDP2's fully_shard, or step()")
    optimizer = optimizer_class(module.parameters() if isinstance(module, torch.nn.Module) else module, **options)
    if not isinstance(optimizer, FusedOptimizer):
        raise TypeError(f"optimizer_class={optimizer_class!r} is none of this package, and only its optimizers do this: use FusedRMSProp")
    for group in optimizer.param_groups:
        _check(group)
    for each in named_parameters(optimizer.param_groups):
        if each.param.requires_grad:
            _part(optimizer, each.param)
            each.param.register_post_accumulate_grad_hook(_use)
    optimizer.step = MethodType(_step, optimizer)
    return optimizer
