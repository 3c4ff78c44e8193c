"""Parameters and gradients that every system is given: numbers that binary fractions of few digits hold exactly, in any order."""

import math

import numpy as np

STEPS = 5


def start(shapes: tuple[tuple[int, ...], ...]) -> list[np.ndarray]:
    """The parameters before the first step, between -2 and 2."""
    return [((np.arange(math.prod(shape)) * 5 + 2 * k) % 9 / 2 - 1.875).reshape(shape) for k, shape in enumerate(shapes)]


def gradients(shapes: tuple[tuple[int, ...], ...], step: int) -> list[np.ndarray]:
    """Of a step, which counts from 0: between -.625 and .625, some of them 0."""
    return [(((np.arange(math.prod(shape)) * 7 + 3 * step + 4 * k) % 11 - 5) / 8).reshape(shape) for k, shape in enumerate(shapes)]
