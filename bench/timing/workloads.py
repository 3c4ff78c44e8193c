"""What is timed on: lists of shapes, and parameters of those shapes."""

import math

import torch
from torch import Tensor

from bench.common.store import BIG, SMALL

Shapes = list[tuple[int, ...]]


def gpt2_small() -> Shapes:
    """148 tensors, 124 million parameters: Radford et al. (2019)."""
    width, block = 768, []
    for n_in, n_out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
        block += [(n_in, n_out), (n_out,)]
    block += [(width,)] * 4  # two layer norms
    return [(50257, width), (1024, width), *block * 12, (width,), (width,)]


def llama3_8b(n_layers: int) -> Shapes:
    """Layers of Llama 3 8B, 9 tensors and 218 million parameters each: arXiv:2407.21783, table 3."""
    width, kv, hidden = 4096, 1024, 14336
    attention = [(width, width), (kv, width), (kv, width), (width, width)]
    return [*attention, (hidden, width), (hidden, width), (width, hidden), (width,), (width,)] * n_layers


def _convolution(n_out: int, n_in: int, size: int) -> Shapes:
    """With its batch norm."""
    return [(n_out, n_in, size, size), (n_out,), (n_out,)]


def resnet50() -> Shapes:
    """161 tensors, 25.6 million parameters: He et al., arXiv:1512.03385, table 1."""
    shapes, n_in = _convolution(64, 3, 7), 64
    for width, n_blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(n_blocks):
            shapes += _convolution(width, n_in, 1) + _convolution(width, width, 3) + _convolution(4 * width, width, 1)
            if block == 0:
                shapes += _convolution(4 * width, n_in, 1)
            n_in = 4 * width
    return [*shapes, (1000, n_in), (1000,)]


def efficientnet_b0() -> Shapes:
    """213 tensors, 5.3 million parameters: Tan and Le, arXiv:1905.11946, table 1."""
    shapes, n_in = _convolution(32, 3, 3), 32
    stages = (1, 16, 1, 3), (6, 24, 2, 3), (6, 40, 2, 5), (6, 80, 3, 3), (6, 112, 3, 5), (6, 192, 4, 5), (6, 320, 1, 3)
    for expansion, n_out, n_blocks, size in stages:
        for _ in range(n_blocks):
            width, squeezed = expansion * n_in, n_in // 4
            shapes += _convolution(width, n_in, 1) if expansion > 1 else []
            shapes += _convolution(width, 1, size)
            shapes += [(squeezed, width, 1, 1), (squeezed,), (width, squeezed, 1, 1), (width,)]  # squeeze and excitation
            shapes += _convolution(n_out, width, 1)
            n_in = n_out
    return [*shapes, *_convolution(1280, n_in, 1), (1000, 1280), (1000,)]


MODELS: dict[str, Shapes] = {
    BIG: [(4096, 4096)] * 2,
    "A2C MLP": [(64, 17), (64,), (64, 64), (64,)] * 2 + [(6, 64), (6,), (1, 64), (1,)],
    "GPT-2 small": gpt2_small(),
    "ResNet-50": resnet50(),
    "EfficientNet-B0": efficientnet_b0(),
    SMALL: [(64,)] * 2000,
}
LAYERS: dict[str, dict[str, Shapes]] = {  # as many as a run has time for
    "cpu": {"Llama-3-8B, 1 layer": llama3_8b(1)},
    "gpu": {"Llama-3-8B, 4 layers": llama3_8b(4)},
}
SCALE: dict[str, Shapes] = {f"{n:,} parameters": [(n,)] for e in range(3, 10) for n in (10**e, 3 * 10**e) if n <= 10**9}
COUNT: dict[str, Shapes] = {f"{n:,} of 64": [(64,)] * n for n in (1, 10, 100, 1000, 10000)}
FAMILIES = {"model": MODELS | LAYERS["cpu"] | LAYERS["gpu"], "scale": SCALE, "count": COUNT}
WORKLOADS = {name: (family, shapes) for family, workloads in FAMILIES.items() for name, shapes in workloads.items()}


def _noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Normal numbers, the same again after a million: a billion of them take longer than all rounds."""
    numel, period = math.prod(shape), 2**20
    block = torch.randn(min(numel, period), device=device)
    values = torch.empty(-(-numel // len(block)), len(block), device=device)
    return values.copy_(block).view(-1)[:numel].view(shape)


def parameters(shapes: Shapes, device: torch.device) -> list[torch.nn.Parameter]:
    """float32 parameters with gradients."""
    params = [torch.nn.Parameter(_noise(shape, device)) for shape in shapes]
    for param in params:
        param.grad = _noise(param.shape, device)
    return params


def converted(params: list[torch.nn.Parameter], dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """Parameters of another dtype, which take the gradients away."""
    made = [torch.nn.Parameter(param.detach().to(dtype)) for param in params]
    for new, old in zip(made, params, strict=True):
        assert old.grad is not None
        new.grad, old.grad = old.grad.to(dtype), None
    return made
