"""What is trained: two GPTs of examples/ on Python's standard library, and a convnet on scikit-learn's digits."""

import functools
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bench.studies.family.problems import digits
from bench.studies.precision.modes import STATES, USUAL
from gpt import GPT, batch, corpus, spread

Batch = tuple[Tensor, Tensor]


class Task(Protocol):
    def model(self) -> nn.Module:
        """Its call takes a batch and gives the mean loss."""
        ...

    def batch(self, seed: int, step: int) -> Batch: ...

    def held_out(self) -> list[Batch]: ...


_corpus, _digits = functools.cache(corpus), functools.cache(digits)


def _parts(inputs: Tensor, targets: Tensor) -> list[Batch]:
    return list(zip(inputs.split(64), targets.split(64), strict=True))


class Text(NamedTuple):
    """The next byte of Python's standard library, by a GPT."""

    layers: int
    width: int
    heads: int
    size: int
    windows: int  # that are held out
    context: int = 64

    def model(self) -> nn.Module:
        return GPT(self.layers, self.width, self.context, self.heads)

    def batch(self, seed: int, step: int) -> Batch:
        return batch(_corpus()[0], seed, step, self.size, self.context)

    def held_out(self) -> list[Batch]:
        return _parts(*spread(_corpus()[1], self.windows, self.context))


class Convnet(nn.Module):
    """Takes images of 8x8 that may lie a pixel aside."""

    def __init__(self, width: int):
        super().__init__()
        first = nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU()
        then = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * width, 10)
        self.layers = nn.Sequential(*first, *then)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.layers(images), labels)


class Digits(NamedTuple):
    """Handwritten digits, each time moved by up to a pixel, by a convnet."""

    width: int
    size: int

    def model(self) -> nn.Module:
        return Convnet(self.width)

    def batch(self, seed: int, step: int) -> Batch:
        images, labels, _, _ = _digits()
        generator = np.random.default_rng((seed, step))
        chosen = torch.from_numpy(generator.integers(len(labels), size=self.size))
        down, right = generator.integers(3, size=2)
        return nn.functional.pad(images[chosen], (1, 1, 1, 1))[..., down : down + 8, right : right + 8], labels[chosen]

    def held_out(self) -> list[Batch]:
        return _parts(*_digits()[2:])


class Problem(NamedTuple):
    title: str
    task: Task
    lr: float
    steps: int
    seeds: int
    modes: tuple[str, ...] = USUAL
    momentum: float = 0.0
    centered: bool = False
    packages: tuple[str, ...] = ()


SMALL = Text(layers=2, width=192, heads=4, size=12, windows=256)
LARGE = Text(layers=4, width=456, heads=8, size=8, windows=128)
DIGITS = Digits(width=32, size=64)
PROBLEMS = {
    "gpt": Problem("byte-level GPT of 0.95 million parameters", SMALL, lr=3e-4, steps=2000, seeds=4),
    "gpt-large": Problem("byte-level GPT of 10 million parameters", LARGE, lr=3e-4, steps=600, seeds=3),
    "digits": Problem("convnet on scikit-learn's digits", DIGITS, lr=1e-3, steps=2000, seeds=8, packages=("scikit-learn",)),
    "gpt-momentum": Problem("the small GPT with momentum", SMALL, lr=3e-5, steps=500, seeds=2, modes=STATES, momentum=0.9),
    "gpt-centered": Problem("the small GPT, centered", SMALL, lr=3e-4, steps=500, seeds=2, modes=STATES, centered=True),
}
