"""What parameters, gradients, masters and states take of a GPU: in our modes and with torch's optimizers, by having them make these on
the meta device; with others by what their sources say (others.json).
"""

import json
import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..engine.state.precision import MASTER
from ..engine.state.usage import Memory, memory_of
from ..kernels.quant import GROUP
from ..rmsprop import FusedRMSProp
from .models import Shape, Shapes
from .variants import find, make, parse_mode

Source = tuple[str, str]  # what it is, and its address
MANY = 2**20  # parameters, of which bytes for each show; groups of scales divide it
PYTORCH: Source = ("torch.optim's own states, as this torch makes them", "https://docs.pytorch.org/docs/stable/optim.html")


class Held(NamedTuple):
    """Bytes; counters of steps, which lie on the host, are not among them."""

    parameters: float
    gradients: float
    masters: float
    states: float

    @property
    def total(self) -> float:
        return sum(self)

    def scaled(self, factor: float) -> "Held":
        return Held(*(part * factor for part in self))


class Way(NamedTuple):
    """One to keep what a training step needs."""

    name: str
    kind: str  # mode, torch, or published
    of: Callable[[Shape], Held]  # that a parameter of a shape takes
    note: str = ""
    sources: tuple[Source, ...] = ()


class Row(NamedTuple):
    """What a way takes of one GPU of some that share a model."""

    way: Way
    held: Held
    per_parameter: Held
    left: float  # of the GPU's memory; below 0: it does not fit
    largest: int  # parameters that so many GPUs hold


def _held(memory: Memory) -> Held:
    states = {key: n_bytes for key, n_bytes in memory.states.items() if key != "step"}
    return Held(memory.parameters, memory.gradients, states.pop(MASTER, 0), sum(states.values()))


def _param(shape: Shape, dtype: torch.dtype) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"))


def mode(rule: str, name: str, in_backward: bool = False) -> Way:
    """One of ours; in_backward: gradients are gone when the backward ends, as apply_in_backward has it."""

    def of(shape: Shape) -> Held:
        held = _held(make(rule, name, [_param(shape, parse_mode(name)[0])]).memory(planned=True))
        return held._replace(gradients=0) if in_backward else held

    return Way(name, "mode", of)


def _torch(name: str, dtype: torch.dtype, new: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]) -> Way:
    def of(shape: Shape) -> Held:
        param = _param(shape, dtype)
        param.grad = torch.empty_like(param)
        optimizer = new([param])
        optimizer.step()
        return _held(memory_of(optimizer, tables=0))

    return Way(f"torch {name}, {str(dtype).removeprefix('torch.')}", "torch", of, sources=(PYTORCH,))


def torch_ways(rule: str) -> list[Way]:
    """torch's optimizers: RMSprop with a rule's options, if it has that rule, and AdamW."""
    cls, options = find(rule)
    dtypes = (torch.float32, torch.bfloat16) if cls is FusedRMSProp else ()
    ways = [_torch("RMSprop", dtype, lambda params: torch.optim.RMSprop(params, **options)) for dtype in dtypes]
    return [*ways, _torch("AdamW", torch.float32, torch.optim.AdamW)]


def published() -> list[Way]:
    """Of others.json."""

    def way(found: dict) -> Way:
        each = Held(*(found[field] for field in Held._fields))
        sources = tuple(map(tuple, found["sources"]))
        return Way(found["name"], "published", lambda shape: each.scaled(math.prod(shape)), found["note"], sources)

    return [way(found) for found in json.loads((pathlib.Path(__file__).parent / "others.json").read_text())]


def shard(shape: Shape, n_gpus: int) -> Shape:
    """Of the first GPU, which has most: FSDP2's fully_shard divides rows, and as many are kept for the others."""
    return -(-shape[0] // n_gpus), *shape[1:]


def row(way: Way, shapes: Shapes, n_gpus: int, memory: float) -> Row:
    """Of a model's shapes; those of a model that is known by its size alone are one vector."""
    held = [way.of(shard(shape, n_gpus)).scaled(n) for shape, n in shapes.items()]
    together, each = Held(*map(sum, zip(*held, strict=True))), way.of((MANY,)).scaled(1 / MANY)
    fitting = int(memory / each.total) // GROUP * GROUP  # whole groups, of which each has its share of a scale and no more
    return Row(way, together, each, memory - together.total, fitting * n_gpus)
