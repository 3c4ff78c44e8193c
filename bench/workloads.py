"""What is timed: lists of shapes, optimizers, options."""

from collections.abc import Callable

import torch

from fusedrms import FusedRMSProp


def gpt2_small() -> list[tuple[int, ...]]:
    """The 148 parameters of GPT-2 small, 124 million numbers."""
    width, block = 768, []
    for n_in, n_out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
        block += [(n_in, n_out), (n_out,)]
    block += [(width,)] * 4  # two layer norms
    return [(50257, width), (1024, width), *block * 12, (width,), (width,)]


WORKLOADS: dict[str, list[tuple[int, ...]]] = {
    "2 of 4096x4096": [(4096, 4096)] * 2,
    "GPT-2 small": gpt2_small(),
    "2,000 of 64": [(64,)] * 2000,
    "A2C MLP": [(64, 17), (64,), (64, 64), (64,)] * 2 + [(6, 64), (6,), (1, 64), (1,)],
}
GPU_WORKLOADS = {"60 of 4096x4096": [(4096, 4096)] * 60}  # a billion numbers

OPTIONS = {"plain": {}, "centered+momentum": dict(centered=True, momentum=0.9)}


def _compiled(params, **options) -> Callable[[], object]:
    # a tensor lr: as a number it would be compiled in
    optimizer = torch.optim.RMSprop(params, lr=torch.tensor(1e-2, device=params[0].device), **options)
    return torch.compile(optimizer.step)


STEPS: dict[str, Callable[..., Callable[[], object]]] = {
    "fusedrms": lambda params, **options: FusedRMSProp(params, **options).step,
    "torch foreach": lambda params, **options: torch.optim.RMSprop(params, foreach=True, **options).step,
    "torch single": lambda params, **options: torch.optim.RMSprop(params, foreach=False, **options).step,
}
GPU_STEPS = {"torch compiled": _compiled}


def parameters(shapes: list[tuple[int, ...]], device: str) -> list[torch.nn.Parameter]:
    """float32 parameters with gradients."""
    params = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for param in params:
        param.grad = torch.randn_like(param)
    return params


def step_bytes(shapes: list[tuple[int, ...]], options: dict) -> int:
    """The fewest bytes a step can move: gradient read, parameter and states read and written, 4 bytes each."""
    n_states = 1 + bool(options.get("centered")) + bool(options.get("momentum"))
    return sum(torch.Size(shape).numel() for shape in shapes) * 4 * (1 + 2 * (1 + n_states))
