"""Memory: how many bytes an optimizer holds."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.parameter import is_lazy as is_uninitialized
from torch.optim import Optimizer

from ..sharded import local


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
        states: dict[str, int] = {}
        for values in list(optimizer.state.values()):  # lists, since another thread may begin states
            for key, value in list(values.items()) if isinstance(values, dict) else ():
                if isinstance(value, Tensor):
                    states[key] = states.get(key, 0) + local(value).nbytes
        return cls(
            numel=sum(local(param).numel() for param in params),
            parameters=sum(local(param).nbytes for param in params),
            gradients=sum(local(param.grad).nbytes for param in params if param.grad is not None),
            states=states,
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
