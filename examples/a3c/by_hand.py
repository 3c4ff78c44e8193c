"""RMSProp in Python, as programs for A3C have it, and what a step of it takes beside FusedRMSProp's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from fusedrms.engine.optimizer import FusedOptimizer

OPTIMIZERS = ("fusedrms", "by-hand")


class SharedRMSProp(torch.optim.Optimizer):
    """A loop over parameters, whose counters and square averages processes share; epsilon inside of the root."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, alpha: float, eps: float, clip_grad_norm: float):
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, clip_grad_norm=clip_grad_norm))
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param] = dict(step=torch.zeros(()), square_avg=torch.zeros_like(param))

    def share_memory(self) -> SharedRMSProp:
        for state in self.state.values():
            for value in state.values():
                value.share_memory_()
        return self

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            nn.utils.clip_grad_norm_(group["params"], group["clip_grad_norm"])
            for param in group["params"]:
                state, square_avg = self.state[param], self.state[param]["square_avg"]
                state["step"] += 1
                square_avg.mul_(group["alpha"]).addcmul_(param.grad, param.grad, value=1 - group["alpha"])
                param.addcdiv_(param.grad, (square_avg + group["eps"]).sqrt_(), value=-group["lr"])


def compare(
    make: Callable[[str, list[nn.Parameter]], FusedOptimizer | SharedRMSProp],
    model: nn.Module,
    play: Callable[[], Sequence[Tensor]],
    rounds: int = 200,
) -> dict[str, float]:
    """Median seconds of a step of each optimizer, and of "the rest" of an update: playing and gradients.

    In each round both step along the same gradients, the one first or the other, with the caches as playing has left them.

    Args:
        make: an optimizer's name and parameters -> the optimizer.
        model: whose parameters each gets a copy of.
        play: returns gradients of the parameters, new ones each time.
        rounds: how many are timed, after a tenth as many that are not.
    """
    optimizers = {}
    for name in OPTIMIZERS:
        params = [nn.Parameter(param.detach().clone()) for param in model.parameters()]
        optimizers[name] = make(name, params).share_memory(), params
    seconds = {name: [] for name in ("the rest", *OPTIMIZERS)}
    for number in range(rounds + rounds // 10):
        began = time.perf_counter()
        gradients = play()
        seconds["the rest"].append(time.perf_counter() - began)
        for name in OPTIMIZERS[:: 1 if number % 2 else -1]:
            optimizer, params = optimizers[name]
            for param, gradient in zip(params, gradients, strict=True):
                param.grad = gradient.clone()  # by hand it is clipped in place
            optimizer.param_groups[0]["lr"] *= 0.99  # another at each step, as in training
            began = time.perf_counter()
            optimizer.step()
            seconds[name].append(time.perf_counter() - began)
    return {name: median(times[rounds // 10 :]) for name, times in seconds.items()}
