"""A noisy quadratic, on which presets differ: curvatures of two orders of magnitude, and gradients with noise of their own size."""

import torch
from torch import Tensor

from ..presets.family import made
from ..presets.preset import Preset

N, LEAST, NOISE = 64, 0.01, 0.1


def losses(preset: Preset, lr: float, steps: int, seed: int = 0) -> list[float]:
    """Before each step and after the last, of a preset with its defaults.

    The loss is the mean of curvature * w**2 / 2 over 64 parameters, which begin at 1 and have curvatures from 0.01 to 1; each gradient is
    curvature * w and normal noise of deviation 0.1. seed: of the noise, which is the same for all presets.
    """
    curvature = torch.logspace(0, 1, N, base=LEAST, device="cpu")
    generator = torch.Generator("cpu").manual_seed(seed)
    param = torch.nn.Parameter(torch.ones(N, device="cpu"))
    optimizer = made(preset, [param], lr)

    def loss(w: Tensor) -> float:
        return float((curvature * w.double() ** 2).mean() / 2)

    found = [loss(param.detach())]
    for _ in range(steps):
        param.grad = curvature * param.detach() + NOISE * torch.randn(N, generator=generator, device="cpu")
        optimizer.step()
        found.append(loss(param.detach()))
    return found
