"""A byte-level GPT and the text it learns: the sources of Python's standard library.

    train, held_out = corpus()
    model = GPT(layers=2, width=64, context=32)
    loss = model(*batch(train, seed=0, step=0, size=8, context=32))

Importing it reads nothing and starts nothing.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data", "__pycache__"}


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each normalized first and added to the residual stream."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.mix(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Predicts each next byte from the bytes before it; the output layer shares the embedding's weights."""

    def __init__(self, layers: int, width: int, context: int, heads: int = 4):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.bytes = nn.Embedding(256, width)
        self.places = nn.Embedding(context, width)
        blocks = [Block(width, heads) for _ in range(layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.apply(self.initialize)
        for block in blocks:  # each block adds twice to the residual stream; keep its variance level
            for linear in (block.mix, block.down):
                nn.init.normal_(linear.weight, std=0.02 * (2 * layers) ** -0.5)

    @staticmethod
    def initialize(module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def logits(self, tokens: Tensor) -> Tensor:
        x = self.bytes(tokens) + self.places.weight[: tokens.shape[1]]
        return F.linear(self.norm(self.blocks(x)), self.bytes.weight)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats a byte, computed in float32 whatever the model's dtype."""
        return F.cross_entropy(self.logits(tokens).float().flatten(0, 1), targets.flatten())


def sources(folder: str | Path) -> list[Path]:
    """The .py files below `folder` in path order, tests and bulky tables left out."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = set(folders) - SKIPPED  # not even entered: site-packages may be large
        found += [Path(parent, name) for name in files if name.endswith(".py")]
    return sorted(found)


def corpus(folder: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out bytes; every tenth file is held out whole, so that the two never overlap."""
    folder = folder or sysconfig.get_paths()["stdlib"]
    texts = [path.read_bytes() for path in sources(folder)]
    if len(texts) < 10:
        advice = "use a Python whose standard library is installed as .py files"
        raise FileNotFoundError(f"{folder} holds {len(texts)} Python sources, too few to train on: {advice}")
    held_out = b"".join(texts[9::10])
    del texts[9::10]
    return np.frombuffer(b"".join(texts), np.uint8), np.frombuffer(held_out, np.uint8)


def windows(data: np.ndarray, starts: np.ndarray, context: int) -> tuple[Tensor, Tensor]:
    """The `context` bytes from each start, and the bytes that follow each of them."""
    chosen = torch.from_numpy(data[starts[:, None] + np.arange(context + 1)]).long()
    return chosen[:, :-1], chosen[:, 1:]


def batch(data: np.ndarray, seed: int, step: int, size: int, context: int) -> tuple[Tensor, Tensor]:
    """A random batch that depends on `seed` and `step` alone, so that resuming needs no generator state."""
    return windows(data, np.random.default_rng((seed, step)).integers(len(data) - context, size=size), context)


def spread(data: np.ndarray, size: int, context: int) -> tuple[Tensor, Tensor]:
    """`size` windows at even distances over all of `data`."""
    return windows(data, np.linspace(0, len(data) - context - 1, size).astype(int), context)
