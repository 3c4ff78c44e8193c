"""Memory: how many bytes an optimizer holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy as is_uninitialized
from torch.optim import Optimizer

from ..sharded import local


def state_tensors(states: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """The local tensors in the states of parameters, with their names."""
    for values in list(states):  # lists, since another thread may begin states
        if isinstance(values, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - else they are a user's own
            for key, value in list(values.items()):
                if isinstance(value, Tensor):
                    yield key, local(value)


def state_bytes(states: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Bytes of the local tensors in the states of parameters, by name."""
    found: dict[str, int] = {}
    for key, value in state_tensors(states):
        found[key] = found.get(key, 0) + value.nbytes
    return found


@dataclass(frozen=True)
class Memory:
    """How many bytes an optimizer holds in this process; `FusedRMSProp.memory()` makes it.

    States come with each parameter's first step, tables with the optimizer's first step. Of DTensors the local shards count.

    Attributes:
        numel: Number of elements of all parameters; a complex element counts once.
        parameters: Bytes of the parameters.
        gradients: Bytes of the gradients that exist.
        states: Bytes of each state by its name, masters and scales among them.
        tables: Bytes of the tables, which tell launches where their tensors are.

    Examples:
        >>> model = torch.nn.Linear(1000, 100, dtype=torch.bfloat16, device="meta")
        >>> optimizer = FusedRMSProp(model.parameters(), master_weights="split", state_dtype="8bit")
        >>> memory = optimizer.memory(planned=True)  # what a step will need
        >>> memory.parameters, memory.gradients, memory.states["master_param"]
        (200200, 200200, 200200)
        >>> round(memory.per_parameter["square_avg"], 2)
        1.0
    """

    numel: int
    parameters: int
    gradients: int
    states: dict[str, int]
    tables: int

    @property
    def total(self) -> int:
        """Bytes of all of it, gradients included."""
        return self.parameters + self.gradients + sum(self.states.values()) + self.tables

    @property
    def per_parameter(self) -> dict[str, float]:
        """Bytes divided by `numel`, by name: "parameters", "gradients", each state, "tables", "total"."""
        parts = dict(parameters=self.parameters, gradients=self.gradients, **self.states, tables=self.tables, total=self.total)
        return {name: n_bytes / max(1, self.numel) for name, n_bytes in parts.items()}


def memory_of(optimizer: Optimizer, tables: int) -> Memory:
    """What an optimizer holds now, and tables of so many bytes."""
    params = [param for group in optimizer.param_groups for param in group["params"] if not is_uninitialized(param)]
    return Memory(
        numel=sum(local(param).numel() for param in params),
        parameters=sum(local(param).nbytes for param in params),
        gradients=sum(local(param.grad).nbytes for param in params if param.grad is not None),
        states=state_bytes(optimizer.state.values()),
        tables=tables,
    )
