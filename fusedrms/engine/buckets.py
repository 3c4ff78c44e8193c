"""Parameters that share a launch, and the tables it reads."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..kernels import devices
from ..kernels.cpu.count import Counters
from ..kernels.launch import Config, norm_chunk_size, prepare, prepare_count, prepare_squares
from ..kernels.rules import Common
from ..kernels.storage import Storage
from ..kernels.tables import FIRST_NORM, SKIP, NormTables, Tables
from .configs import choose
from .memory import Named
from .options import STORED, check_scheduled_lr
from .recipe import Recipe
from .storage import dense_like
from .uploads import Uploads

NAMES = {**STORED, torch.uint8: "uint8", torch.int8: "int8", torch.int16: "int16"}
ALIGNMENT = 16  # bytes of a vector access
CORRECTION = Common._fields.index("correction")
CHANGING = "addresses", "hyper", "random_key"  # tables that a step may change


def on_device(table: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """As the driver of that device reads it."""
    return torch.from_numpy(table).to(device) if devices.uses_triton(device) else table


class Layout(NamedTuple):
    """What a launch is compiled for: parameters share one exactly when rule and Layout agree."""

    device: torch.device
    storage: Storage
    aligned: bool  # every address is a multiple of ALIGNMENT


class Member(NamedTuple):
    """One parameter of a bucket."""

    number: int  # among the parameters that have a gradient
    group: int  # index of its parameter group
    param: Tensor  # what is here of it, and of its gradient
    grad: Tensor
    beside: tuple[Tensor, ...]  # the parameter's master or remainder, if it has one
    states: tuple[tuple[Tensor, ...], ...]  # each state, or its codes and their scales
    variance: bool  # state 0 is kept as the variance about state 1
    stochastic: bool  # the parameter is rounded stochastically
    noise: tuple[int, int]  # two words that no other parameter or seed has
    origin: int  # where in the parameter the first number lies that is here, two of which make a complex element
    counter: Tensor  # of its steps
    norm: int  # which norm limits its gradient
    corrected_from: float | None  # its averages are bias corrected, with this many steps behind them
    stage_param: bool  # it has gaps: updated through a copy
    stage_grad: bool  # its elements lie in another order than the parameter's: read through a copy

    @property
    def kept(self) -> list[Tensor]:
        """What is updated beside the parameter, in the order of its rows."""
        return [*self.beside, *(tensor for state in self.states for tensor in state)]

    @property
    def numel(self) -> int:
        """Of the numbers to update, two of which make a complex element."""
        return self.param.numel() * (1 + self.param.is_complex())

    def layout(self) -> Layout:
        read = [*self.kept, *([] if self.stage_param else [self.param]), *([] if self.stage_grad else [self.grad])]
        values = (self.grad,), (self.param, *self.beside), *self.states
        dtypes = tuple(tuple(NAMES[tensor.dtype] for tensor in rows) for rows in values)
        storage, lower = Storage(dtypes, self.stochastic, self.variance), self.origin % 2**32
        if storage.random and lower and lower + self.numel > 2**32:
            storage = storage._replace(wraps=True)
        return Layout(self.param.device, storage, not any(tensor.data_ptr() % ALIGNMENT for tensor in read))


def chunks(numels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The tensor (int32) and first element (int64) of each chunk of at most `size` elements."""
    counts = -(-numels // size)
    tensor = np.repeat(np.arange(len(numels), dtype=np.int32), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return tensor, (np.arange(len(tensor), dtype=np.int64) - first) * size


class Bucket:
    """The parameters of one rule and Layout, and the tables of their launch; counted on their device if that alone knows of a step.

    Holds no tensor of the user's, only what tells where they lie.
    """

    def __init__(self, rule: str, n_args: int, layout: Layout, members: list[Member], count_on_device: bool):
        self.rule, self.layout = rule, layout
        self.index = np.array([member.number for member in members])
        rows: dict[tuple, int] = {}  # of hyper: parameters of one group, and of one count of steps where the numbers depend on it
        row = [rows.setdefault((member.group, member.corrected_from), len(rows)) for member in members]
        self._groups = [group for group, _ in rows]
        self._first = np.array([row.index(r) for r in range(len(rows))])  # parameter of each row
        self._corrected = np.flatnonzero([member.corrected_from is not None for member in members])
        self._counted_with = self._first[np.array(row)[self._corrected]]
        self.numels = np.array([member.numel for member in members], np.int64)
        kept = np.array([[tensor.data_ptr() for tensor in member.kept] for member in members], np.int64).T
        self._n_rows = 2 + len(kept)  # and one of counters, where they are on a GPU
        counted = [str(member.counter.dtype).removeprefix("torch.") for member in members]
        self._counters = None if count_on_device and devices.is_gpu(layout.device) else Counters(counted)
        self._host = Tables(
            np.concatenate([np.zeros((2, len(members)), np.int64), kept, np.zeros((int(not self._counters), len(members)), np.int64)]),
            self.numels,
            np.array(row, np.int32),
            *chunks(self.numels[:0], 1),  # those that a launch reads depend on how it is configured
            np.zeros((len(rows), len(Common._fields) + n_args), layout.storage.compute),
            np.array([FIRST_NORM + member.norm for member in members], np.int32),
            np.array([(*member.noise, 0) for member in members], np.uint32).view(np.int32),
            np.array([member.origin for member in members], np.int64),
        )
        self._counter_addresses = self._counters.addresses if self._counters else self._host.addresses[self._n_rows]
        self.norm_index = self._host.norm_index
        # where the kernels read them: in place on a CPU, else on the device
        self._tables, self._uploads = Tables(*(on_device(table, layout.device) for table in self._host)), None
        self.use(choose(rule, layout.device, layout.storage, layout.aligned, self.numels))
        if devices.is_gpu(layout.device):
            self._stream = devices.current_stream(layout.device)
            host, there = ({name: getattr(tables, name) for name in CHANGING} for tables in (self._host, self._tables))
            self._uploads = Uploads(host, there, count_on_device)
        if not self._counters:
            self._counted = torch.zeros(len(members), dtype=torch.float64, device=layout.device)
            self._double = on_device(np.array([dtype == "float64" for dtype in counted], np.int32), layout.device)
            tables = self._tables
            self._count = prepare_count(tables.addresses[self._n_rows], self._double, self._counted, tables.random_key)
        self._staged = {
            0: [c for c, member in enumerate(members) if member.stage_grad],
            1: [c for c, member in enumerate(members) if member.stage_param],
        }
        self._copies: dict[tuple[int, int], Tensor] = {}
        self.uses_copies = any(self._staged.values())  # addresses alone do not tell what to read
        self._rows: list[tuple | None] = [None] * len(rows)

    def use(self, config: Config) -> None:
        """Launch with this configuration from now on."""
        chunk_tensor, chunk_start = (on_device(table, self.layout.device) for table in chunks(self.numels, config.chunk))
        self._tables = self._tables._replace(chunk_tensor=chunk_tensor, chunk_start=chunk_start)
        self.launch = prepare(self.rule, self.layout.storage, self.layout.aligned, self._tables, config)

    @property
    def table_bytes(self) -> int:
        """Of what the launch reads."""
        return sum(table.nbytes for table in self._tables)

    def counts_hold(self) -> bool:
        """Whether parameters that share a row of hyper still count the same steps, should its numbers depend on them."""
        if not self._counters or not self._corrected.size:
            return True
        counted = self._counters.after_step()
        return np.array_equal(counted[self._corrected], counted[self._counted_with])

    def point_at(self, addresses: np.ndarray, counter_addresses: np.ndarray, params: list[Tensor], grads: list[Tensor]) -> bool:
        """Take this step's addresses; False if they belong to another Layout.

        Args:
            addresses: int64 [2, n], of all parameters that have a gradient, and of these.
            counter_addresses: int64 [n].
            params, grads: what is here of them, where some are read through copies.
        """
        rows = self._host.addresses
        rows[0], rows[1] = addresses[1, self.index], addresses[0, self.index]
        self._counter_addresses[:] = counter_addresses[self.index]
        for row, columns in self._staged.items():
            for c in columns:
                param, source = params[self.index[c]], (params if row else grads)[self.index[c]]
                copy = self._copies[row, c] = dense_like(param, dtype=source.dtype).copy_(source)
                rows[row, c] = copy.data_ptr()
        return self.layout.aligned == (np.bitwise_or.reduce(rows[: self._n_rows], axis=None) % ALIGNMENT == 0)

    def set_hyper(self, recipes: list[Recipe]) -> None:
        """Take the numbers of every parameter group of the optimizer for the step to come."""
        noisy, corrects = self.layout.storage.random, self._corrected.size
        counted = self._counters.after_step() if self._counters and (noisy or corrects) else None
        if noisy and counted is not None:
            self._host.random_key[:, 2] = counted
        self._on_device: list[tuple[int, Tensor]] = []  # learning rates that are known there: row, value
        self._corrections: list[tuple[int, float]] = []  # likewise: row, decay
        for r, group in enumerate(self._groups):
            recipe = recipes[group]
            row = recipe.common + recipe.args
            lr = row[0]
            if isinstance(lr, Tensor):
                if self._uploads and devices.is_gpu(lr.device):
                    self._on_device.append((r, lr.reshape(())))
                    lr = float("-inf")  # no one's learning rate, so that a number that takes its place is sent
                else:
                    check_scheduled_lr(lr := float(lr), f"parameter group {group}: ")  # it may have changed in place
                row = (lr, *row[1:])
            if recipe.bias_decay:
                if counted is None:
                    self._corrections.append((r, recipe.bias_decay))
                else:
                    correction = 1 / (1 - recipe.bias_decay ** float(counted[self._first[r]]))
                    row = (*row[:CORRECTION], correction, *row[CORRECTION + 1 :])
            if row != self._rows[r]:
                with np.errstate(over="ignore"):  # what float32 cannot hold is infinite to it
                    self._host.hyper[r] = row
                self._rows[r] = row

    def send(self, capturing: bool) -> None:
        """Bring the tables on the device up to date; capturing: in a graph."""
        if self._uploads:
            devices.keep(self._tables, self._stream)
            self._uploads.send(capturing)
        for row, lr in self._on_device:
            self._tables.hyper[row, 0].copy_(lr)

    def step(self, scalars: Tensor | np.ndarray, params: list[Tensor]) -> None:
        """Launch, and count; scalars as for launch.prepare(), params as for point_at()."""
        if not self._counters:
            self._count(scalars)
            for row, decay in self._corrections:
                self._tables.hyper[row, CORRECTION].copy_(1 / (1 - decay ** self._counted[self._first[row]]))
        self.launch(scalars)
        if self._counters and (self._uploads or float(scalars[SKIP]) == 0):  # a GPU that may leave steps out counts them itself
            self._counters.count()
        for c in self._staged[1]:
            params[self.index[c]].copy_(self._copies[1, c])
        self._copies.clear()

    def verify(self, touched: list[Named], n_active: int) -> None:
        """RuntimeError unless each address is that of a tensor, and no number is NaN; touched as of Plan."""
        known = {tensor.data_ptr(): name for name, tensor, _ in touched if tensor.numel()}
        known |= {copy.data_ptr(): "a copy" for copy in self._copies.values()}
        rows = self._host.addresses[: self._n_rows, self.numels > 0]
        for address in (*rows.flatten().tolist(), *self._counter_addresses.tolist()):
            if address not in known:
                raise RuntimeError(f"a table holds the address {address:#x}, where no tensor of this step lies: please report it")
        for row, n in enumerate(self.index):
            ours = self._host.addresses[:2, row] if self.numels[row] and not self.uses_copies else []
            if len(ours) and list(ours) != [touched[n_active + n].tensor.data_ptr(), touched[n].tensor.data_ptr()]:
                raise RuntimeError(f"the table of {touched[n].name} holds other addresses than its own: please report it")
        if np.isnan(self._host.hyper).any():
            raise RuntimeError("a number that a step is made with is NaN: look at the options of the parameter groups")

    def norm_tables(self, first_sum: np.ndarray, scalars: Tensor | np.ndarray) -> NormTables:
        """Those of `squares`; first_sum, int64, is where the sums of each parameter of the optimizer begin; scalars as for step()."""
        own = (*chunks(self.numels, norm_chunk_size()), first_sum[self.index])
        chunk_tensor, chunk_start, first = (on_device(table, self.layout.device) for table in own)
        t = self._tables
        return NormTables(t.addresses, t.numels, t.groups, chunk_tensor, chunk_start, t.hyper, first, scalars)

    def squares(self, tables: NormTables) -> Callable[[Tensor | np.ndarray], None]:
        """The launch that writes the sum of squares of each chunk of gradients into what it is given."""
        return prepare_squares(self.layout.storage.dtypes[0][0], self.layout.aligned, tables)
