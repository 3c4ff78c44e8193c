"""torchtitan's containers of optimizers, emulated: it needs a nightly torch and a GPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import processes
from pages import run

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # a checkpoint of one process
STEPS = 4
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
FLOAT, HALF = torch.float32, torch.bfloat16
MODES: list[tuple[torch.dtype, dict[str, Any]]] = [
    (FLOAT, dict()),
    (FLOAT, dict(momentum=0.9, centered=True, weight_decay=0.01)),
    (HALF, dict(momentum=0.9, master_weights="split", state_dtype="8bit")),
    (HALF, dict(stochastic_rounding=True, state_dtype=HALF)),
]


class Part(torch.nn.Module):
    """A stage of a pipeline: layers by the names that they have in the whole model."""

    def __init__(self, *numbers: int):
        super().__init__()
        self.layers = torch.nn.ModuleDict({str(k): torch.nn.Linear(9, 9) for k in numbers})

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for layer in self.layers.values():
            values = torch.tanh(layer(values))
        return values


class OptimizersContainer(torch.optim.Optimizer):
    """What torchtitan's does: an optimizer for each part of the model, and one flattened state_dict of all."""

    def __init__(self, parts: list[torch.nn.Module], cls: Callable[..., torch.optim.Optimizer], options: dict[str, Any]):
        self.pairs = self.made(parts, cls, options)
        super().__init__([param for part in parts for param in part.parameters()], options)

    def made(self, parts, cls, options) -> list[tuple[torch.nn.Module, torch.optim.Optimizer]]:
        return [(part, cls(part.parameters(), **options)) for part in parts]

    def step(self, closure: None = None) -> None:
        for _, optimizer in self.pairs:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for _, optimizer in self.pairs:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {key: value for pair in self.pairs for key, value in get_optimizer_state_dict(*pair, options=FLAT).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for pair in self.pairs:
            set_optimizer_state_dict(*pair, state_dict, options=FLAT)


class OptimizersInBackwardContainer(OptimizersContainer):
    """An optimizer for each parameter, which steps as soon as the gradient is there.

    torchtitan saves the states of as many of them as there are parts; this one saves all.
    """

    def made(self, parts, cls, options) -> list[tuple[torch.nn.Module, torch.optim.Optimizer]]:
        pairs = {param: (part, cls([param], **options)) for part in parts for param in part.parameters()}

        def step(param: torch.Tensor) -> None:
            _, optimizer = pairs[param]
            optimizer.step()
            optimizer.zero_grad()

        for param in pairs:
            param.register_post_accumulate_grad_hook(step)
        return list(pairs.values())

    def step(self, closure: None = None) -> None: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...


CONTAINERS = [OptimizersContainer, OptimizersInBackwardContainer]


def stages(dtype: torch.dtype, seed: int = 1) -> list[torch.nn.Module]:
    torch.manual_seed(seed)
    parts: list[torch.nn.Module] = [Part(0, 1).to(dtype), Part(2, 3, 4).to(dtype)]
    if distributed.is_initialized():
        for part in parts:
            fully_shard(part)
    return parts


def train(parts: list[torch.nn.Module], optimizer: torch.optim.Optimizer, begin: int, end: int) -> None:
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    for k in range(begin, end):
        values = torch.randn(8, 9, generator=torch.Generator().manual_seed(k))[rank::world].to(next(parts[0].parameters()).dtype)
        for part in parts:
            values = part(values)
        values.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def weights(parts: list[torch.nn.Module]) -> torch.Tensor:
    return torch.cat([(p.full_tensor() if isinstance(p, DTensor) else p).detach().flatten() for part in parts for p in part.parameters()])


class Model:
    """torchtitan's ModelWrapper: one state_dict of all parts."""

    def __init__(self, parts: list[torch.nn.Module]):
        self.parts = parts

    def state_dict(self) -> dict[str, Any]:
        return {key: value for part in self.parts for key, value in get_model_state_dict(part).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part in self.parts:
            set_model_state_dict(part, state_dict, options=StateDictOptions(strict=False))


def page(container: type[OptimizersContainer], parts: list[torch.nn.Module], options: dict[str, Any]) -> OptimizersContainer:
    names = dict(OptimizersContainer=container, model_parts=parts, options=options)
    return run("torchtitan's containers", {"dict(lr=1e-3, momentum=0.9)": "options"}, **names)["optimizers"]


def goes_on(container: type[OptimizersContainer], dtype: torch.dtype, options: dict[str, Any], folder: str) -> torch.Tensor:
    """A new model and container go on from a checkpoint as the old ones do, bit for bit."""
    options = dict(lr=1e-3, **options)
    parts = stages(dtype)
    optimizer = page(container, parts, options)
    train(parts, optimizer, 0, STEPS)
    checkpoint.save(dict(model=Model(parts), optimizer=optimizer), checkpoint_id=folder)
    train(parts, optimizer, STEPS, 2 * STEPS)

    others = stages(dtype, seed=2)
    resumed = page(container, others, options)
    checkpoint.load(dict(model=Model(others), optimizer=resumed), checkpoint_id=folder)
    assert {float(state["step"]) for _, each in resumed.pairs for state in each.state.values()} == {STEPS}
    train(others, resumed, STEPS, 2 * STEPS)
    assert torch.equal(weights(parts), weights(others))
    return weights(parts)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("dtype", "options"), MODES, ids=str)
def test_goes_on(container, dtype, options):
    found = goes_on(container, dtype, options, "checkpoint")
    if dtype == FLOAT:
        parts = stages(dtype)
        train(parts, torch.optim.RMSprop([param for part in parts for param in part.parameters()], lr=1e-3, **options), 0, 2 * STEPS)
        assert (found - weights(parts)).abs().max() < 2 * STEPS * 2**-22  # a few roundings a step
        assert (found - weights(stages(dtype))).abs().max() > 1e-3


def everything() -> None:
    for container in CONTAINERS:
        for k, (dtype, options) in enumerate(MODES):
            goes_on(container, dtype, options, f"{container.__name__}{k}")


def test_goes_on_sharded():
    processes.run(2, everything)
