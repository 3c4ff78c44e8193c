"""L2 norms of gradients, on the devices where steps are limited by them."""

import numpy as np
import torch
from torch import Tensor

from .buckets import Bucket, keep, on_device
from .kernels.launch import norm_chunk_size, prepare_norms


class Norms:
    """Norm 0 is that of all gradients together; the others are those of parameters that ask for their own.

    Args:
        buckets: of a plan.
        wanted: whether any launch limits a gradient by its norm; else all norms stay 0, which limits none.

    Attributes:
        on: device -> float64 [n_norms], as the driver of that device reads it.
    """

    def __init__(self, buckets: list[Bucket], wanted: bool):
        devices = sorted({bucket.layout.device for bucket in buckets}, key=lambda device: (device.type == "cpu", device.index or 0))
        n_norms = 1 + sum(int(np.count_nonzero(bucket.norm_index)) for bucket in buckets)
        self.on = {device: on_device(np.zeros(n_norms), device) for device in devices}
        self._parts = []
        if wanted and buckets:
            self._prepare(buckets, devices, n_norms)
        made = [*self.on.values()]
        if self._parts:
            made += [self._spans, *self._sums.values(), *(table for tables in self._tables for table in tables)]
        self.table_bytes = sum(table.nbytes for table in made)
        self._on_streams = [
            (torch.cuda.current_stream(device), [table for table in made if isinstance(table, Tensor) and table.device == device])
            for device in devices
            if device.type == "cuda"
        ]

    def _prepare(self, buckets: list[Bucket], devices: list[torch.device], n_norms: int) -> None:
        # in the order of the parameters, so that nothing depends on who shares a launch
        n_sums = np.zeros(sum(len(bucket.params) for bucket in buckets), np.int64)
        for bucket in buckets:
            n_sums[bucket.index] = -(-bucket.numels // norm_chunk_size())
        first = np.cumsum(n_sums) - n_sums
        spans = np.zeros((n_norms, 2), np.int64)
        spans[0] = 0, n_sums.sum()
        for bucket in buckets:
            alone = bucket.norm_index > 0
            spans[bucket.norm_index[alone]] = np.stack([first, first + n_sums], 1)[bucket.index[alone]]
        self._home = devices[0]
        self._spans = on_device(spans, self._home)
        self._sums = {device: on_device(np.zeros(spans[0, 1]), device) for device in devices}
        self._tables = [bucket.norm_tables(first) for bucket in buckets]
        self._parts = [
            (bucket.squares(tables), self._sums[bucket.layout.device]) for bucket, tables in zip(buckets, self._tables, strict=True)
        ]
        self._finish = prepare_norms(self._spans, self.on[self._home])

    def compute(self) -> None:
        """One launch for each bucket, and one that sums up; the host waits for none, unless some parameters are on a CPU, some not."""
        for stream, tensors in self._on_streams:
            keep(tensors, stream)
        if not self._parts:
            return
        for write_squares, sums in self._parts:
            write_squares(sums)
        total, norms = self._sums[self._home], self.on[self._home]
        others = [device for device in self.on if device != self._home]
        for device in others:  # 0 where the home has written
            total = total + torch.as_tensor(self._sums[device]).to(self._home)
        self._finish(total)
        for device in others:
            torch.as_tensor(self.on[device]).copy_(torch.as_tensor(norms))

    def total(self) -> Tensor | None:
        """Norm 0, to keep; None if none is wanted."""
        return torch.as_tensor(self.on[self._home])[0].clone() if self._parts else None
