"""Pictures of ten shapes, drawn with torch: light on dark, turned, of any place, size and colours, crossed by a stroke, noisy.

    images, labels = draw(count=8, seed=0)  # float32 [8, 3, 32, 32] of about -1 to 1, int64 [8]

The same seed draws the same pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 32
NOISE = 0.3


def box(u: Tensor, v: Tensor, width: float, height: float) -> Tensor:
    return torch.maximum(u.abs() - width, v.abs() - height)


def radius(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v)


# how far a point is outside of each shape, negative inside; all fit about the circle of radius 1
SHAPES = {
    "disc": lambda u, v: radius(u, v) - 0.9,
    "ring": lambda u, v: (radius(u, v) - 0.75).abs() - 0.2,
    "square": lambda u, v: box(u, v, 0.75, 0.75),
    "frame": lambda u, v: box(u, v, 0.65, 0.65).abs() - 0.18,
    "triangle": lambda u, v: torch.maximum(v, 0.866 * u.abs() - 0.5 * v) - 0.5,
    "half a disc": lambda u, v: torch.maximum(radius(u, v) - 1, u),
    "cross": lambda u, v: torch.minimum(box(u, v, 0.95, 0.25), box(u, v, 0.25, 0.95)),
    "T": lambda u, v: torch.minimum(box(u, v - 0.7, 0.95, 0.25), box(u, v, 0.25, 0.95)),
    "L": lambda u, v: torch.minimum(box(u, v - 0.7, 0.95, 0.25), box(u - 0.7, v, 0.25, 0.95)),
    "two bars": lambda u, v: torch.maximum(u.abs() - 0.95, (v.abs() - 0.55).abs() - 0.22),
}
CLASSES = len(SHAPES)


def draw(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images and labels."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *(shape or (1, 1)), generator=generator)

    labels = torch.randint(CLASSES, (count,), generator=generator)
    line = torch.linspace(-1, 1, SIDE)
    size, angle = between(0.4, 0.7), between(0, 2 * torch.pi)
    x, y = line - between(-0.3, 0.3), line[:, None] - between(-0.3, 0.3)
    u, v = (x * angle.cos() + y * angle.sin()) / size, (y * angle.cos() - x * angle.sin()) / size
    outside = torch.empty(count, SIDE, SIDE)
    for label, shape in enumerate(SHAPES.values()):
        chosen = labels == label
        outside[chosen] = shape(u[chosen], v[chosen])
    angle = between(0, torch.pi)  # of a stroke that is in the way
    away = (line * angle.cos() + line[:, None] * angle.sin() - between(-0.6, 0.6)).abs() - 0.04
    ink = torch.maximum(torch.sigmoid(-24 * size * outside), torch.sigmoid(-24 * away))[:, None]
    paper = between(-1, 0, 3, 1, 1)
    contrast = between(0.5, 1, 3, 1, 1)
    noise = NOISE * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return paper + contrast * ink + noise, labels
