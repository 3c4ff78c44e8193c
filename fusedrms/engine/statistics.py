"""What a step's gradients, changes, parameters and states came to: of each parameter, each parameter group and all."""

# pyright: reportUnknownMemberType=false
# torch does not say what tolist() and all_reduce() take and return

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed

from ..kernels.tables import UNIT_SUMS
from .options.groups import NamedParameter, named_parameters
from .sharded import summed_over

if TYPE_CHECKING:
    from .optimizer import FusedOptimizer
    from .tables.plan import Plan


class _Table(NamedTuple):
    """A row for each of some parameters, or sets of them, float64 on one device."""

    squares: Tensor  # [n_rows, n_columns], summed; 0 where a row has no such state
    counts: Tensor  # [n_rows, 2], zeros and what is not finite
    largest: Tensor  # [n_rows]
    numels: Tensor  # [n_rows]
    has: np.ndarray  # bool [n_rows, n_columns]

    def sums(self, sets: list[list[int]]) -> "_Table":
        """A row for each set of rows, none of which is empty."""
        parts = [torch.tensor(rows, device=self.squares.device) for rows in sets]
        return _Table(
            squares=torch.stack([self.squares[rows].sum(0) for rows in parts]),
            counts=torch.stack([self.counts[rows].sum(0) for rows in parts]),
            largest=torch.stack([self.largest[rows].amax() for rows in parts]),
            numels=torch.stack([self.numels[rows].sum() for rows in parts]),
            has=np.stack([self.has[rows].any(0) for rows in sets]),
        )

    def dicts(self, columns: Sequence[str]) -> list[dict[str, Tensor]]:
        """Of each row its statistics by name."""
        norms, shares = self.squares.sqrt(), self.counts / self.numels.clamp(min=1).unsqueeze(1)
        ratio = norms[:, UNIT_SUMS.index("update")] / norms[:, UNIT_SUMS.index("param")]
        others = {"update_ratio": ratio, "grad_max": self.largest, "grad_zeros": shares[:, 0], "grad_nonfinite": shares[:, 1]}
        rows = zip(norms, self.has, *others.values(), strict=True)
        return [
            {f"{name}_norm": value for name, value, there in zip(columns, own, has, strict=True) if there}
            | dict(zip(others, rest, strict=True))
            for own, has, *rest in rows
        ]


class Stats:
    """Statistics of one step, from `FusedRMSProp.stats()`. They stay on the parameters' device; only `as_dict()` and `print()` wait for it.

    Each parameter, each parameter group and all parameters together have a dict of 0-d float64 tensors:

    | key | meaning |
    |---|---|
    | `grad_norm` | L2 norm of the gradient: rescaled, without loss scale, before any limit |
    | `update_norm` | L2 norm of what the step has changed |
    | `param_norm` | L2 norm of the new parameter, in full precision |
    | `square_avg_norm`, … | L2 norm of each of the rule's states |
    | `update_ratio` | `update_norm / param_norm` |
    | `grad_max` | largest magnitude in the gradient, NaN left out |
    | `grad_zeros` | share of the gradient's elements that are 0, from 0 to 1 |
    | `grad_nonfinite` | share of the gradient's elements that are NaN or infinite, from 0 to 1 |

    A complex element counts as two numbers. The statistics of a DTensor are those of the whole parameter. Squares are float32, or float64
    for float64 parameters: in float32 a magnitude below 1e-19 counts as 0, and one above 1.8e19 makes a norm infinite.

    Args:
        named: The measured parameters, at least one.
        columns: Names of what the squares are of.
        table: Sums, with a row for each parameter.

    Examples:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = FusedRMSProp(model.named_parameters(), stats=True)
        >>> model(torch.ones(8, 4)).sum().backward()
        >>> optimizer.step()
        >>> stats = optimizer.stats()
        >>> print(stats)  # of all parameters together
        Stats(parameters=2, grad_norm=25.3, update_norm=0.3162, ...)
        >>> stats.parameters["bias"]["grad_max"]
        tensor(8., dtype=torch.float64)
        >>> stats.as_dict(prefix="optimizer/")["optimizer/bias/grad_zeros"]
        0.0
    """

    def __init__(self, named: Sequence[NamedParameter], columns: Sequence[str], table: _Table):
        self._names, self._columns, self._table = [each.name for each in named], columns, table
        self._members: dict[int, list[int]] = {}
        for row, each in enumerate(named):
            self._members.setdefault(each.group, []).append(row)

    def __repr__(self):
        values = "".join(f", {name}={value:.4g}" for name, value in self.total.items())
        return f"{type(self).__name__}(parameters={len(self._names)}{values})"

    @cached_property
    def parameters(self) -> dict[str, dict[str, Tensor]]:
        """The statistics of each parameter, by its name in `param_names`; by `params[number]` if it has none, or shares it."""
        return dict(zip(self._names, self._table.dicts(self._columns), strict=True))

    @cached_property
    def groups(self) -> dict[int, dict[str, Tensor]]:
        """The statistics of each measured parameter group, by its number."""
        return dict(zip(self._members, self._table.sums([*self._members.values()]).dicts(self._columns), strict=True))

    @cached_property
    def total(self) -> dict[str, Tensor]:
        """The statistics of all measured parameters together."""
        return self._table.sums([list(range(len(self._names)))]).dicts(self._columns)[0]

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """All statistics as numbers, for TensorBoard, W&B or a CSV file. This waits for the device once.

        Args:
            prefix: Begins each key, such as "optimizer/". Default "".

        Returns:
            Numbers by `{prefix}{name}/{statistic}` for each parameter, `{prefix}group{number}/{statistic}` for each parameter group, and
                `{prefix}{statistic}` for all parameters together.
        """
        found = {f"{name}/": values for name, values in self.parameters.items()}
        found |= {f"group{g}/": values for g, values in self.groups.items()} | {"": self.total}
        keys = [f"{prefix}{name}{key}" for name, values in found.items() for key in values]
        numbers: list[float] = torch.stack([value for values in found.values() for value in values.values()]).tolist()  # pyright: ignore[reportUnknownVariableType]
        return dict(zip(keys, numbers, strict=True))


def _told_apart(named: Sequence[NamedParameter]) -> list[NamedParameter]:
    """All parameters, with names that neither another nor, in as_dict(), a parameter group has."""
    taken = Counter(each.name for each in named) + Counter({f"group{each.group}" for each in named})
    return [each if taken[each.name] == 1 else each._replace(name=f"params[{number}]") for number, each in enumerate(named)]


def _add_up(named: Sequence[NamedParameter], table: _Table) -> None:
    """Over the ranks that share DTensors, in place."""
    over = [summed_over(each.param) for each in named]
    for groups in dict.fromkeys(filter(None, over)):
        rows = torch.tensor([k for k, each in enumerate(over) if each == groups], device=table.squares.device)
        sums, largest = torch.cat([table.squares[rows], table.counts[rows]], 1), table.largest[rows]
        for group in groups:
            distributed.all_reduce(sums, group=group)
            distributed.all_reduce(largest, op=distributed.ReduceOp.MAX, group=group)
        table.squares[rows], table.counts[rows] = sums[:, :-2], sums[:, -2:]
        table.largest[rows] = largest


def statistics(optimizer: "FusedOptimizer", plans: list["Plan"]) -> Stats:
    """As FusedOptimizer.stats(); plans: that were measured."""
    groups = optimizer.param_groups
    if not any(group["stats"] for group in groups):
        raise RuntimeError("no parameter group has stats, so nothing is measured: make the optimizer with stats=True")
    named = _told_apart(list(named_parameters(groups)))
    found: dict[int, tuple[Tensor, Tensor, Sequence[str]]] = {}  # of each measured parameter its norms, the largest, its states
    number_of = {each.param: number for number, each in enumerate(named) if groups[each.group]["stats"]}
    for plan in plans:
        for params, measured in plan.measured():
            norms, largest = measured.totals()
            for row, param in enumerate(params):
                if param is not None and param in number_of:
                    found[number_of[param]] = norms[row], largest[row], measured.states
    if not found:
        raise RuntimeError("no step of this optimizer has been measured yet: make one with gradients before stats()")
    numbers = sorted(found)
    columns = [*UNIT_SUMS, *dict.fromkeys(name for number in numbers for name in found[number][2])]
    device = found[numbers[0]][0].device
    has = np.array([[name in UNIT_SUMS or name in found[number][2] for name in columns] for number in numbers])
    squares = torch.zeros(len(numbers), len(columns), dtype=torch.float64, device=device)
    counts = squares.new_zeros(len(numbers), 2)
    for row, number in enumerate(numbers):
        norms, _, states = found[number]
        values = norms.to(device).square()
        squares[row, [columns.index(name) for name in (*UNIT_SUMS, *states)]] = values[:-2]
        counts[row] = values[-2:].round()
    table = _Table(
        squares=squares,
        counts=counts,
        largest=torch.stack([found[number][1].to(device) for number in numbers]),
        numels=squares.new_tensor([each.param.numel() * (1 + each.param.is_complex()) for each in map(named.__getitem__, numbers)]),
        has=has,
    )
    chosen = [named[number] for number in numbers]
    _add_up(chosen, table)
    return Stats(chosen, columns, table)
