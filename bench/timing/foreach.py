"""Baselines that torch does not have: the same step by as few `torch._foreach_*` calls as it takes."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Callable

import torch
from torch import Tensor

Make = Callable[[list[torch.nn.Parameter]], Callable[[], object]]


def _filled(params, value: float = 0.0) -> list[Tensor]:
    return [torch.full_like(param, value) for param in params]


def _grads(params) -> list[Tensor]:
    return [param.grad for param in params]


def rmsprop_inside(
    lr: float, alpha: float, eps: float, momentum: float, *, lr_in_momentum: bool, centered: bool = True, initial_square_avg: float = 0.0
) -> Make:
    """RMSProp with momentum and eps inside of the root."""
    inner, outer = (lr, 1.0) if lr_in_momentum else (1.0, lr)

    def make(params):
        square_avgs, grad_avgs, buffers = _filled(params, initial_square_avg), _filled(params) if centered else [], _filled(params)

        @torch.no_grad()
        def step():
            grads = _grads(params)
            torch._foreach_mul_(square_avgs, alpha)
            torch._foreach_addcmul_(square_avgs, grads, grads, 1 - alpha)
            if centered:
                torch._foreach_lerp_(grad_avgs, grads, 1 - alpha)
                roots = torch._foreach_addcmul(square_avgs, grad_avgs, grad_avgs, -1)
                torch._foreach_add_(roots, eps)
            else:
                roots = torch._foreach_add(square_avgs, eps)
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_addcdiv_(buffers, grads, roots, inner)
            torch._foreach_add_(params, buffers, alpha=-outer)

        return step

    return make


def smorms3(lr: float, eps: float) -> Make:
    """SMORMS3."""

    def make(params):
        square_avgs, grad_avgs, mems = _filled(params), _filled(params), _filled(params, 1.0)

        @torch.no_grad()
        def step():
            grads = _grads(params)
            rates = torch._foreach_add(mems, 1)
            torch._foreach_reciprocal_(rates)
            torch._foreach_lerp_(grad_avgs, grads, rates)
            torch._foreach_lerp_(square_avgs, torch._foreach_mul(grads, grads), rates)
            signals = torch._foreach_mul(grad_avgs, grad_avgs)
            torch._foreach_div_(signals, torch._foreach_add(square_avgs, eps))
            torch._foreach_addcmul_(mems, mems, signals, -1)
            torch._foreach_add_(mems, 1)
            torch._foreach_clamp_max_(signals, lr)
            torch._foreach_mul_(signals, grads)
            roots = torch._foreach_sqrt(square_avgs)
            torch._foreach_add_(roots, eps)
            torch._foreach_addcdiv_(params, signals, roots, -1)

        return step

    return make


def clip_norm(params) -> Callable[[], None]:
    """torch's RMSprop after its clip_grad_norm_."""
    step = torch.optim.RMSprop(params, foreach=True).step

    def run():
        torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
        step()

    return run
