"""The shapes of a model's parameters: by a Hugging Face config.json, which is read without transformers, or as they are given."""

import argparse
import json
import math
import pathlib
from collections import Counter
from typing import NamedTuple

from .errors import UserError

Shape = tuple[int, ...]
Shapes = Counter[Shape]  # how many parameters have each


class Family(NamedTuple):
    """What the numbers of a config do not say."""

    qkv_bias: bool = False  # without an attention_bias
    qk_norm: bool = False
    experts: str | None = None  # the key that counts them


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "mixtral": Family(experts="num_local_experts"),
    "qwen2": Family(qkv_bias=True),
    "qwen2_moe": Family(qkv_bias=True, experts="num_experts"),
    "qwen3": Family(qk_norm=True),
    "qwen3_moe": Family(qk_norm=True, experts="num_experts"),
}


def numel(shapes: Shapes) -> int:
    """Of all parameters."""
    return sum(math.prod(shape) * n for shape, n in shapes.items())


def parse(text: str) -> Shapes:
    """The type of an argument: "2*8192x8192,64" are two matrices and a vector."""
    shapes: Shapes = Counter()
    for part in text.split(","):
        times, star, sizes = part.strip().rpartition("*")
        numbers = [times if star else "1", *sizes.split("x")]
        if not all(number.isascii() and number.isdecimal() and int(number) for number in numbers):
            raise argparse.ArgumentTypeError(
                f"{part!r} is no shape: give sizes of at least 1, such as 8192x1024, or 80*8192x1024 for 80 of them"
            )
        shapes[tuple(map(int, numbers[1:]))] += int(numbers[0])
    return shapes


class Config:
    """The numbers of a config.json.

    Raises:
        UserError: there is none, here and below.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path / "config.json" if path.is_dir() else path
        try:
            self.values = json.loads(self.path.read_text("utf-8"))
        except OSError as error:
            raise UserError(f"--config {self.path}: {error.strerror}: give a model's config.json, or its folder") from None
        except ValueError as error:  # JSON's and UTF-8's
            raise UserError(f"--config {self.path}: it is not JSON ({error}): give a model's config.json") from None
        if not isinstance(self.values, dict):
            raise UserError(
                f"--config {self.path}: it holds a JSON {type(self.values).__name__}, not an object: give a model's config.json"
            )
        name = self.values.get("model_type")
        if not isinstance(name, str) or name not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise UserError(f"--config {self.path}: model_type {name!r} is not supported, only {known}: use --parameters or --shapes")
        self.family = FAMILIES[name]

    def number(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number; default: where there is none, or null."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            found = f"has no {key!r}" if key not in self.values else f"{key!r} is {value!r}"
            raise UserError(f"--config {self.path}: {found}; it must be a whole number of at least {least}; or use --parameters")
        return value

    def is_dense(self, layer: int) -> bool:
        """Whether a layer of a model with experts has none."""
        only = self.values.get("mlp_only_layers") or []
        if not isinstance(only, list):
            raise UserError(f"--config {self.path}: 'mlp_only_layers' is {only!r}; it must be a list of layers; or use --parameters")
        return layer in only or (layer + 1) % self.number("decoder_sparse_step", 1) != 0

    def attention(self) -> list[Shape]:
        """Of a layer, with both of its norms."""
        hidden, heads, family = self.number("hidden_size"), self.number("num_attention_heads"), self.family
        size = self.number("head_dim", None if family.qk_norm else hidden // heads)
        kv = self.number("num_key_value_heads", heads if self.values["model_type"] == "llama" else None) * size
        shapes: list[Shape] = [(heads * size, hidden), (kv, hidden), (kv, hidden), (hidden, heads * size), (hidden,), (hidden,)]
        if self.values.get("attention_bias"):
            shapes += [(heads * size,), (kv,), (kv,), (hidden,)]
        elif self.values.get("qkv_bias", family.qkv_bias):
            shapes += [(heads * size,), (kv,), (kv,)]
        return [*shapes, (size,), (size,)] if family.qk_norm else shapes

    def mlp(self, inner: int) -> list[Shape]:
        hidden = self.number("hidden_size")
        shapes: list[Shape] = [(inner, hidden), (inner, hidden), (hidden, inner)]
        return [*shapes, (inner,), (inner,), (hidden,)] if self.values.get("mlp_bias") else shapes

    def experts(self, key: str) -> list[Shape]:
        """Of a layer: experts, each with tensors of its own as in checkpoints, their router, and one for all tokens if there is one."""
        hidden, n = self.number("hidden_size"), self.number(key)
        inner = self.number("intermediate_size" if key == "num_local_experts" else "moe_intermediate_size")
        shapes = [*self.mlp(inner) * n, (n, hidden)]
        shared = self.number("shared_expert_intermediate_size", 0, least=0)
        return [*shapes, *self.mlp(shared), (1, hidden)] if shared else shapes

    def shapes(self) -> Shapes:
        """Of all parameters."""
        hidden, n_layers, experts = self.number("hidden_size"), self.number("num_hidden_layers"), self.family.experts
        n_dense = n_layers if experts is None else sum(map(self.is_dense, range(n_layers)))
        found: Shapes = Counter({(self.number("vocab_size"), hidden): 1 if self.values.get("tie_word_embeddings") else 2, (hidden,): 1})
        parts = [(self.attention(), n_layers)]
        parts += [(self.mlp(self.number("intermediate_size")), n_dense)] if n_dense else []
        parts += [(self.experts(experts), n_layers - n_dense)] if experts else []
        for part, times in parts:
            for shape in part:
                found[shape] += times
        return found
