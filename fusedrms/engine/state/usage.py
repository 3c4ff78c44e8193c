"""Memory: how many bytes an optimizer holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy as is_uninitialized
from torch.optim import Optimizer

from ..sharded import local


def state_bytes(states: Iterable[Any]) -> dict[str, int]:
    """Bytes of the local tensors in the states of parameters, by name."""
    found: dict[str, int] = {}
    for values in list(states):  # lists, since another thread may begin states
        for key, value in list(values.items()) if isinstance(values, dict) else ():
            if isinstance(value, Tensor):
                found[key] = found.get(key, 0) + local(value).nbytes
    return found


@dataclass(frozen=True)
class Memory:
    """Bytes of what an optimizer holds in this process; states come with a parameter's first step, tables with the optimizer's."""

    numel: int  # numbers in all parameters, those of a complex one counted once
    parameters: int
    gradients: int
    states: dict[str, int]  # by name; masters and scales among them
    tables: int  # that the launches read

    @classmethod
    def of(cls, optimizer: Optimizer, tables: int) -> "Memory":
        params = [param for group in optimizer.param_groups for param in group["params"] if not is_uninitialized(param)]
        return cls(
            numel=sum(local(param).numel() for param in params),
            parameters=sum(local(param).nbytes for param in params),
            gradients=sum(local(param.grad).nbytes for param in params if param.grad is not None),
            states=state_bytes(optimizer.state.values()),
            tables=tables,
        )

    @property
    def total(self) -> int:
        """All of it, gradients included."""
        return self.parameters + self.gradients + sum(self.states.values()) + self.tables

    @property
    def per_parameter(self) -> dict[str, float]:
        """The same, divided by the number of parameters, by name: "parameters", "gradients", each state, "tables", "total"."""
        parts = dict(parameters=self.parameters, gradients=self.gradients, **self.states, tables=self.tables, total=self.total)
        return {name: n_bytes / max(1, self.numel) for name, n_bytes in parts.items()}
