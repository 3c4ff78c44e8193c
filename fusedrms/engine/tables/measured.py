"""What a launch that measures writes, and how it is added up."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels.devices import current_stream, is_gpu, keep
from ...kernels.launch import Config, CPUConfig, prepare, prepare_norms
from ...kernels.storage import Storage
from ...kernels.tables import SKIP, UNIT, Tables
from .chunks import chunks, on_device


class Measured:
    """The launch of a bucket that takes statistics too, and its own tables.

    Args:
        rule, storage, aligned, config: of the bucket's launch.
        tables: likewise, as that launch reads them.
        numels: of each tensor.
        device: of the bucket.
        states: their names, in the rule's order.

    Attributes:
        table_bytes: of its own tables.
    """

    def __init__(
        self,
        rule: str,
        storage: Storage,
        aligned: bool,
        tables: Tables,
        *,
        config: Config,
        numels: np.ndarray,
        device: torch.device,
        states: tuple[str, ...],
    ):
        self.states = states
        storage = storage._replace(measured=True)
        n_units, n_columns = -(-numels // UNIT), storage.n_columns
        ends = np.cumsum(n_units)
        if isinstance(config, CPUConfig):
            config, self._blocks = config._replace(chunk=max(config.chunk, UNIT)), 1
        else:
            self._blocks = UNIT // config.block(storage)
        chunk_tensor, chunk_start = (on_device(table, device) for table in chunks(numels, config.chunk))
        tables = tables._replace(
            chunk_tensor=chunk_tensor,
            chunk_start=chunk_start,
            first_unit=on_device(ends - n_units, device),
            unit_sums=on_device(np.zeros((n_units.sum() * self._blocks, n_columns), storage.compute), device),
        )
        self._sums = tables.unit_sums
        self._launch: Callable[[Any], None] = prepare(rule, storage, aligned, tables, config)
        self._tensor_of_unit = torch.from_numpy(np.repeat(np.arange(len(numels)), n_units)).to(device)
        columns = np.arange(n_columns - 1)[:, None] * n_units.sum()  # where the units of each begin, once they lie one after the other
        self._spans = on_device(np.stack([columns + ends - n_units, columns + ends], 2).reshape(-1, 2), device)
        self._n = len(numels), n_columns - 1
        self._skipped = on_device(np.zeros(1), device)  # not 0 if the step was left out
        self._made = [tensor for tensor in (*tables, self._tensor_of_unit, self._spans, self._skipped) if isinstance(tensor, Tensor)]
        own = tables.chunk_tensor, tables.chunk_start, tables.first_unit, tables.unit_sums, self._tensor_of_unit, self._spans
        self.table_bytes = sum(table.nbytes for table in own)
        self._stream = current_stream(device) if is_gpu(device) else None

    def launch(self, scalars: Any) -> None:
        """Update and measure; scalars as for launch.prepare()."""
        if self._stream:
            keep(self._made, self._stream)
        self._launch(scalars)
        self._skipped[:] = scalars[SKIP : SKIP + 1]

    def totals(self) -> tuple[Tensor, Tensor]:
        """Of each tensor the roots of its sums, float64 [n_tensors, n_sums], and the largest magnitude of its gradient, [n_tensors].

        NaN of a step that was left out.
        """
        sums = self._sums if isinstance(self._sums, Tensor) else torch.from_numpy(self._sums)
        sums = sums.reshape(len(self._tensor_of_unit), self._blocks, self._n[1] + 1)
        largest = sums[..., -1].amax(1).double() if len(sums) else sums.new_zeros(0, dtype=torch.float64)
        while sums.shape[1] > 1:  # neighbours, as within a block
            sums = sums[:, 0::2] + sums[:, 1::2]
        flat = sums[:, 0, :-1].double().t().contiguous().reshape(-1)
        norms = on_device(np.zeros(self._n[0] * self._n[1]), flat.device)
        if isinstance(norms, Tensor):
            prepare_norms(self._spans, norms)(flat)
        else:
            prepare_norms(self._spans, norms)(flat.numpy())
            norms = torch.from_numpy(norms)
        most = largest.new_zeros(self._n[0]).scatter_reduce_(0, self._tensor_of_unit, largest, "amax")
        skipped = torch.as_tensor(self._skipped, device=flat.device) != 0
        return norms.reshape(self._n[1], self._n[0]).t().masked_fill(skipped, torch.nan), most.masked_fill(skipped, torch.nan)
