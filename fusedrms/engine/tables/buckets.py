"""Parameters that share a launch, and the tables it reads."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...kernels import devices
from ...kernels.cpu.count import Counters
from ...kernels.launch import Config, norm_chunk_size, prepare, prepare_agreement, prepare_count, prepare_squares
from ...kernels.rules import Common, columns
from ...kernels.tables import FIRST_NORM, SKIP, AgreementTables, NormTables, Tables
from ..options.checks import check_scheduled_lr
from ..options.recipe import Recipe
from ..ownership.memory import Named
from ..state.strides import dense_like
from .chunks import chunks, on_device
from .configs import choose
from .layout import ALIGNMENT, Layout, Member
from .measured import Measured
from .uploads import Uploads

GRAD, PARAM = 0, 1  # rows of addresses; those of states follow, and where steps are counted on the device that of counters
LR = Common._fields.index("lr")  # column of hyper
ON_DEVICE = float("-inf")  # for a number that only the device knows: no number equals it, so that the next one is sent
CHANGING = "addresses", "hyper", "random_key"  # tables that a step may change


class Agreement(NamedTuple):
    """What counts how many updates agree with their gradients, and where that is needed."""

    launch: Callable[[Any], None]  # writes the next
    agreed: Any  # float64 [n_chunks]
    chunk_tensor: Any  # int32 [n_chunks]
    boosts: Any  # float64 [n_tensors], as of Tables


class Bucket:
    """The parameters of one rule and Layout, and the tables of their launch; counted on their device if that alone knows of a step.

    Holds no tensor of the user's, only what tells where they lie.
    """

    def __init__(self, rule: str, layout: Layout, members: list[Member], count_on_device: bool):
        self.rule, self.layout, self._is_random = rule, layout, layout.storage.random
        self._columns = columns(rule)
        self.active_index = np.array([member.active_index for member in members])
        first, n = self.active_index[0], len(members)
        in_a_row = np.array_equal(self.active_index, np.arange(first, first + n))
        self._members = slice(first, first + n) if in_a_row else self.active_index  # which is copied in a tenth of the time
        self.numels = np.array([member.numel for member in members], np.int64)
        dtypes = [str(member.counter.dtype).removeprefix("torch.") for member in members]
        self._states = members[0].state_names
        self.asks = any(member.stats for member in members)  # for statistics
        self._counters = None if count_on_device and devices.is_gpu(layout.device) else Counters(dtypes)
        self._n_rows = 2 + len(members[0].states)
        self._host = self._make_tables(members)
        self._counter_addresses = self._counters.addresses if self._counters else self._host.addresses[self._n_rows]
        self.norm_index = self._host.norm_index
        # where the kernels read them: in place on a CPU, else on the device
        self._tables = Tables(**{name: on_device(table, layout.device) for name, table in self._host._asdict().items()})
        self._uploads, self.is_on_gpu = None, devices.is_gpu(layout.device)
        self.use(choose(rule, layout.device, layout.storage, layout.aligned, self.numels))
        if self.is_on_gpu:
            self._stream = devices.current_stream(layout.device)
            host, there = ({name: getattr(tables, name) for name in CHANGING} for tables in (self._host, self._tables))
            self._uploads = Uploads(host=host, on_device=there, captured=count_on_device)
        if not self._counters:
            self._counted = torch.zeros(len(members), dtype=torch.float64, device=layout.device)
            self._double = on_device(np.array([dtype == "float64" for dtype in dtypes], np.int32), layout.device)
            self._count = prepare_count(self._tables.addresses[self._n_rows], self._double, self._counted, self._tables.random_key)
        self._copied = {  # columns of addresses, by the row
            GRAD: [c for c, member in enumerate(members) if member.copies_grad],
            PARAM: [c for c, member in enumerate(members) if member.copies_param],
        }
        self._copies: dict[tuple[int, int], Tensor] = {}
        self.uses_copies = any(self._copied.values())  # addresses alone do not tell what to read

    def _make_tables(self, members: list[Member]) -> Tables:
        """On the host, without chunks: those that a launch reads depend on how it is configured."""
        rows: dict[tuple, int] = {}  # of hyper: parameters of one group, and of one count of steps where the numbers depend on it
        row = [rows.setdefault((member.group, member.counts_from), len(rows)) for member in members]
        self._groups = [group for group, _ in rows]
        self._first = np.array([row.index(r) for r in range(len(rows))])  # parameter of each row
        self._counting = np.flatnonzero([member.counts_from is not None for member in members])
        self._counted_with = self._first[np.array(row)[self._counting]]
        self._sent: list[tuple | None] = [None] * len(rows)  # the numbers of each row
        n_counters = 0 if self._counters else 1
        addresses = np.zeros((self._n_rows + n_counters, len(members)), np.int64)
        addresses[2 : self._n_rows] = np.array([[tensor.data_ptr() for tensor in member.states] for member in members], np.int64).T
        chunk_tensor, chunk_start = chunks(self.numels[:0], 1)
        return Tables(
            addresses=addresses,
            numels=self.numels,
            groups=np.array(row, np.int32),
            chunk_tensor=chunk_tensor,
            chunk_start=chunk_start,
            hyper=np.zeros((len(rows), len(self._columns)), self.layout.storage.compute),
            norm_index=np.array([FIRST_NORM + member.norm for member in members], np.int32),
            random_key=np.array([(*member.random_key, 0) for member in members], np.uint32).view(np.int32),
            shard_offset=np.array([member.shard_offset for member in members], np.int64),
            boosts=np.ones(len(members) if self.layout.storage.cautious else 0),
            first_unit=np.zeros(0, np.int64),
            unit_sums=np.zeros((0, 0), self.layout.storage.compute),
        )

    def use(self, config: Config) -> None:
        """Launch with this configuration from now on."""
        chunk_tensor, chunk_start = (on_device(table, self.layout.device) for table in chunks(self.numels, config.chunk))
        self._tables = self._tables._replace(chunk_tensor=chunk_tensor, chunk_start=chunk_start)
        self._config = config
        self.launch = prepare(self.rule, self.layout.storage, self.layout.aligned, self._tables, config)
        self.measured: Measured | None = None

    @property
    def table_bytes(self) -> int:
        """Of what the launch reads."""
        return sum(table.nbytes for table in self._tables) + (self.measured.table_bytes if self.measured else 0)

    @property
    def depends_on_counts(self) -> bool:
        """Whether parameters may share a row of hyper only as long as they count the same steps, which the host knows."""
        return bool(self._counters and self._counting.size)

    def counts_hold(self) -> bool:
        """Whether they still do; to be asked where it depends on that."""
        assert self._counters
        counted = self._counters.after_step()
        return np.array_equal(counted[self._counting], counted[self._counted_with])

    def point_at(self, addresses: np.ndarray, counter_addresses: np.ndarray, params: list[Tensor], grads: list[Tensor]) -> bool:
        """Take this step's addresses; False if they belong to another Layout.

        Args:
            addresses: int64 [2, n], of all parameters that have a gradient, and of these.
            counter_addresses: int64 [n].
            params, grads: their local tensors, where some are read through copies.
        """
        rows = self._host.addresses
        rows[GRAD], rows[PARAM] = addresses[1, self._members], addresses[0, self._members]
        self._counter_addresses[:] = counter_addresses[self._members]
        for row, copied in self._copied.items():
            for c in copied:
                n = self.active_index[c]
                source = (params if row == PARAM else grads)[n]
                copy = self._copies[row, c] = dense_like(params[n], dtype=source.dtype).copy_(source)
                rows[row, c] = copy.data_ptr()
        return self.layout.aligned == (np.bitwise_or.reduce(rows[: self._n_rows], axis=None) % ALIGNMENT == 0)

    def set_hyper(self, recipes: list[Recipe]) -> None:
        """Take the numbers of every parameter group of the optimizer for the step to come."""
        counted = self._counters.after_step() if self._counters and (self._is_random or self._counting.size) else None
        if self._is_random and counted is not None:
            self._host.random_key[:, 2] = counted
        self.is_constant = not self._is_random and not self._counting.size
        self._device_numbers: list[tuple[int, int, Tensor]] = []  # those that are known there: row, column, value
        self._device_counts: list[tuple[int, Recipe]] = []  # rows with numbers that depend on steps, which are counted there
        for r, group in enumerate(self._groups):
            recipe = recipes[group]
            row = (*recipe.common, *recipe.args)
            if recipe.counts_steps and counted is not None:
                numbers = dict(zip(self._columns, row, strict=True)) | recipe.after_steps(float(counted[self._first[r]]))
                row = tuple(numbers.values())
            elif recipe.counts_steps:
                self._device_counts.append((r, recipe))
            if recipe.live:
                self.is_constant = False
                row = tuple(self._known(r, column, number, group) for column, number in enumerate(row))
            if row != self._sent[r]:
                with np.errstate(over="ignore"):  # what float32 cannot hold is infinite to it
                    self._host.hyper[r] = row
                self._sent[r] = row

    def _known(self, r: int, column: int, number: float | Tensor, group: int) -> float:
        """What row r, of a parameter group, holds for a number that may be a tensor."""
        if not isinstance(number, Tensor):
            return number
        if self._uploads and devices.is_gpu(number.device):
            self._device_numbers.append((r, column, number.reshape(())))
            return ON_DEVICE
        value = float(number)
        if column == LR:
            check_scheduled_lr(value, f"parameter group {group}: ")  # it may have changed in place
        return value

    def send(self, capturing: bool) -> None:
        """Bring the tables on the device up to date; capturing: in a graph."""
        assert self._uploads
        devices.keep(self._tables, self._stream)
        self._uploads.send(capturing)
        for row, column, number in self._device_numbers:
            self._tables.hyper[row, column].copy_(number)
        self._device_numbers = []  # between steps no tensor of the user's is kept

    @property
    def counts_on_device(self) -> bool:
        """Whether its device alone knows of a step."""
        return self._counters is None

    def count_on_device(self, scalars: Tensor | np.ndarray) -> None:
        """Count a step there before it is launched, and set the numbers that depend on it; scalars as for launch.prepare()."""
        self._count(scalars)
        for row, recipe in self._device_counts:
            for name, number in recipe.after_steps(self._counted[self._first[row]]).items():
                self._tables.hyper[row, self._columns[name]].copy_(number)

    def _prepared(self) -> Measured:
        """The launch that measures."""
        if self.measured is None:
            layout = self.layout
            self.measured = Measured(
                self.rule,
                layout.storage,
                layout.aligned,
                self._tables,
                config=self._config,
                numels=self.numels,
                device=layout.device,
                states=self._states,
            )
        return self.measured

    def step(self, scalars: Tensor | np.ndarray, params: list[Tensor], measures: bool) -> None:
        """Launch, and count; scalars as for launch.prepare(), params as for point_at(); measures: if any parameter here asks for it."""
        if measures and self.asks:
            self._prepared().launch(scalars)
        else:
            self.launch(scalars)
        if self._counters and (self._uploads or float(scalars[SKIP]) == 0):  # a GPU that may leave steps out counts them itself
            self._counters.count()
        if self.uses_copies:
            for c in self._copied[PARAM]:
                params[self.active_index[c]].copy_(self._copies[PARAM, c])
            self._copies.clear()

    def verify(self, touched: list[Named], n_active: int) -> None:
        """RuntimeError unless each address is that of a tensor, and no number is NaN; touched as of Plan."""
        known = {tensor.data_ptr(): name for name, tensor, _ in touched if tensor.numel()}
        known |= {copy.data_ptr(): "a copy" for copy in self._copies.values()}
        rows = self._host.addresses[: self._n_rows, self.numels > 0]
        for address in (*rows.flatten().tolist(), *self._counter_addresses.tolist()):
            if address not in known:
                raise RuntimeError(f"a table holds the address {address:#x}, where this step has no tensor: please report it")
        for row, n in enumerate(self.active_index):
            ours = self._host.addresses[:2, row] if self.numels[row] and not self.uses_copies else []
            if len(ours) and list(ours) != [touched[n_active + n].tensor.data_ptr(), touched[n].tensor.data_ptr()]:
                raise RuntimeError(f"the table of {touched[n].name} holds wrong addresses: please report it")
        if np.isnan(self._host.hyper).any():
            raise RuntimeError("an option, or a number that is made from options, is NaN: check the parameter groups")

    def agreement(self, scalars: Tensor | np.ndarray) -> Agreement:
        """What tells how many updates of each chunk agree with their gradients; scalars as for step()."""
        tables = AgreementTables(**{name: getattr(self._tables, name, scalars) for name in AgreementTables._fields})
        launch = prepare_agreement(self.rule, self.layout.storage, self.layout.aligned, tables, self._config)
        chunk_tensor = self._tables.chunk_tensor
        agreed = on_device(np.zeros(len(chunk_tensor)), self.layout.device)
        return Agreement(launch, agreed, chunk_tensor, self._tables.boosts)

    def norm_tables(self, first_sum: np.ndarray, scalars: Tensor | np.ndarray) -> NormTables:
        """Those of `squares`; first_sum, int64, is where the sums of each parameter of the optimizer begin; scalars as for step()."""
        chunk_tensor, chunk_start = chunks(self.numels, norm_chunk_size())
        tables = self._tables
        return NormTables(
            addresses=tables.addresses,
            numels=tables.numels,
            groups=tables.groups,
            chunk_tensor=on_device(chunk_tensor, self.layout.device),
            chunk_start=on_device(chunk_start, self.layout.device),
            hyper=tables.hyper,
            first_sum=on_device(first_sum[self.active_index], self.layout.device),
            scalars=scalars,
        )

    def squares(self, tables: NormTables) -> Callable[[Tensor | np.ndarray], None]:
        """The launch that writes the sum of squares of each chunk of gradients into what it is given."""
        return prepare_squares(self.layout.storage.dtypes[0][0], self.layout.aligned, tables)
