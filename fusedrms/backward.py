"""Steps within the backward pass: each gradient is used, and freed, as soon as it is there."""

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from .optimizer import FusedOptimizer
from .plan import named_parameters


def _check(group: dict[str, Any]) -> None:
    if group["clip_grad_norm"] is not None and group["clip_norm_over"] == "optimizer":
        raise ValueError(
            f"clip_grad_norm={group['clip_grad_norm']} needs the norm of all gradients, but in a backward each is used before the next is "
            "there: use clip_norm_over='parameter' or clip_grad_value"
        )
    if group["skip_nonfinite"]:
        raise ValueError("skip_nonfinite=True needs all gradients, but in a backward each is used before the next is there: leave it False")


class _Part:
    """The step of one parameter: that of an optimizer of its own, with the options and the state of the whole."""

    def __init__(self, whole: FusedOptimizer, g: int, number: int, param: Tensor):
        self._whole, self._g = whole, g
        group = {key: value for key, value in whole.param_groups[g].items() if key != "param_names"}
        self._optimizer = type(whole).__new__(type(whole))
        self._optimizer.__dict__.update(whole.__dict__)
        self._optimizer.param_groups = [{**group, "params": [param]}]
        self._optimizer.state = type(whole.state)(dict)
        self._optimizer._first_number = number

    def step(self, param: Tensor) -> None:
        group, own = self._whole.param_groups[self._g], self._optimizer.param_groups[0]
        own.update((key, value) for key, value in group.items() if key not in ("params", "param_names"))
        _check(own)
        if param in self._whole.state:  # perhaps loaded since
            self._optimizer.state[param] = self._whole.state[param]
        else:
            self._optimizer.state.clear()
        type(self._whole).step(self._optimizer)
        self._whole.state[param] = self._optimizer.state[param]
        param.grad = None


def _step(self: FusedOptimizer, closure: Callable[[], Any] | None = None) -> Any:
    """Update what no backward has: parameters of groups that were added since, gradients that were set by hand."""
    if getattr(self, "found_inf", None) is not None:
        raise RuntimeError("a GradScaler cannot unscale gradients that a backward has used already: train in bfloat16, or step() as usual")
    loss = None
    if closure is not None:
        with torch.enable_grad():
            loss = closure()
    for number, (g, _, param) in enumerate(named_parameters(self.param_groups)):
        if param.grad is not None:
            if param not in self._parts:
                self._parts[param] = _Part(self, g, number, param)
            self._parts[param].step(param)
    return loss


def apply_in_backward(
    module: torch.nn.Module | Iterable[Tensor] | Iterable[dict[str, Any]], optimizer_class: type[FusedOptimizer], **options: Any
) -> FusedOptimizer:
    """Let every ``backward()`` update each parameter as soon as its gradient is complete, and free the gradient.

    So gradients never take the memory of a whole model. The result is that of ``optimizer_class(module.parameters(), **options)``
    with a ``step()`` and a ``zero_grad()`` after each backward, bit for bit, random bits included; but each parameter has a
    launch of its own.

    Args:
        module: a module, or what an optimizer takes: parameters or parameter groups.
        optimizer_class: one of this package's.
        options: its own.

    Returns:
        The optimizer, for schedules, ``state_dict()`` and ``load_state_dict()``; its ``step()`` updates only what still has a gradient,
        as parameters of groups have that were added later. Hooks of steps are called once for each parameter.

    Excluded is what needs several gradients at once: clip_grad_norm over the optimizer and skip_nonfinite (ValueError); a
    ``GradScaler`` (RuntimeError from its step); gradient accumulation, and hooks that finish gradients after the backward, as
    DistributedDataParallel's do.
    """
    if isinstance(module, DistributedDataParallel):
        raise ValueError("DistributedDataParallel averages gradients after these steps have used them: use FSDP2's fully_shard, or step()")
    whole = optimizer_class(module.parameters() if isinstance(module, torch.nn.Module) else module, **options)
    if not isinstance(whole, FusedOptimizer):
        raise TypeError(f"optimizer_class={optimizer_class!r} is none of this package, and only its optimizers do this: use FusedRMSProp")
    for group in whole.param_groups:
        _check(group)
    whole._parts = {}
    for number, (g, _, param) in enumerate(named_parameters(whole.param_groups)):
        if param.requires_grad:
            whole._parts[param] = _Part(whole, g, number, param)
            param.register_post_accumulate_grad_hook(whole._parts[param].step)
    whole.step = MethodType(_step, whole)
    return whole
