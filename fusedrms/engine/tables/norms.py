"""What scales all gradients of a step, on the devices of its launches: loss scale and L2 norms, and whether a step is left out."""

from itertools import count

import numpy as np
import torch
from torch import Tensor, distributed

from ...kernels.devices import current_stream, is_gpu, keep
from ...kernels.launch import norm_chunk_size, prepare_norms
from ...kernels.tables import FIRST_NORM, SKIP, UNSCALE
from ..options.groups import NamedParameter
from ..options.recipe import Recipe
from ..sharded import device_of, local, summed_over
from .buckets import Bucket
from .chunks import on_device
from .spikes import Spikes


def number_norms(named: list[NamedParameter], recipes: list[Recipe]) -> dict[Tensor, int]:
    """Which norm limits the gradient of each parameter, with one or without, so that processes agree in what they add up."""
    alone = count(1)
    return {each.param: next(alone) if recipes[each.group].norm_over == "parameter" else 0 for each in named}


def _assign(values: Tensor | np.ndarray, index: int, value: Tensor | float) -> None:
    """Without a wait: assigned by its index, a number would be copied to a GPU from memory that is not pinned."""
    if isinstance(value, Tensor):
        as_tensor(values)[index].copy_(value)
    elif isinstance(values, Tensor):
        values[index].fill_(value)
    else:
        values[index] = value


def as_tensor(values: Tensor | np.ndarray) -> Tensor:
    """Over the same memory; torch.as_tensor() would copy an array to the user's default device."""
    return values if isinstance(values, Tensor) else torch.from_numpy(values)


class Scalars:
    """The first norm is that of all gradients together; the others are those of parameters that ask for their own.

    Args:
        buckets: of a plan.
        active: the parameters that have a gradient.
        norms: of each parameter of the optimizer, in its order, which norm limits it.
        limits: whether any launch limits a gradient by its norm; else all norms stay 0, which limits none.
        skips: whether a step is left out if a gradient holds a NaN or an infinity, or one whose square is infinite.
        model_parallel: of each parameter the process groups whose other ranks hold other parameters.
        spikes: by what a step is left out if the first norm is one; None: none is.
        all_model_parallel: those of each parameter group that has any, in order: every rank adds up over these, whatever parameters it has.

    Attributes:
        on: device -> float64 [FIRST_NORM + n_norms], as the driver of that device reads it; then, where parameters are DTensors, the
            norm of each set of them whose sums are added up over the same ranks; likewise where other ranks hold other parameters.
    """

    def __init__(
        self,
        buckets: list[Bucket],
        active: list[Tensor],
        norms: dict[Tensor, int],
        limits: bool,
        skips: bool,
        spikes: Spikes | None,
        model_parallel: dict[Tensor, tuple],
        all_model_parallel: list[tuple],
    ):
        devices = sorted({bucket.layout.device for bucket in buckets}, key=lambda device: (device.type == "cpu", device.index or 0))
        n_norms = 1 + max(norms.values(), default=0)
        wanted = limits or skips or spikes is not None
        # process groups: of the parameter's own shards, none of a tensor that is no DTensor; of those with other parameters
        summed = {param: (summed_over(param), model_parallel[param]) for param in norms} if wanted else {}
        kinds = [*summed.values(), *(((), groups) for groups in all_model_parallel if wanted)]
        self._groups = list(dict.fromkeys(kinds)) if any(map(any, kinds)) else []
        if self._groups and not devices:  # others may have gradients
            devices = [local(param).device for param in norms][:1] or [device_of(all_model_parallel[0][0])]
        neutral = np.array([0.0, 1.0, *[0.0] * (n_norms + len(self._groups))])
        self.on = {device: on_device(neutral.copy(), device) for device in devices}
        self._skips, self._spikes, self._scaled = skips, spikes, False
        self._tells, self._leaves_out = limits or spikes is not None, skips or spikes is not None
        self._launches = []
        if wanted and devices:
            self._home, self._of_groups = devices[0], slice(n_norms, None)
            self._prepare(buckets, active, norms, summed)
            self._over = {  # of each, which sums are added up over it
                groups: torch.tensor([k for k, kind in enumerate(self._groups) if kind[1] == groups], device=devices[0])
                for groups in dict.fromkeys(all_model_parallel)
            }
        made = [*self.on.values()]
        if self._launches or self._groups:
            made += [self._spans, *self._sums.values(), *(table for tables in self._tables for table in tables)]
        self.table_bytes = sum(table.nbytes for table in made)
        self._on_streams = [
            (current_stream(device), [table for table in made if isinstance(table, Tensor) and table.device == device])
            for device in devices
            if is_gpu(device)
        ]

    def _prepare(self, buckets: list[Bucket], active: list[Tensor], norms: dict[Tensor, int], summed: dict[Tensor, tuple]) -> None:
        """The launches that write sums of squares, and the one that adds them up; summed: of each parameter, over which process groups."""
        # in the order of the parameters, so that nothing depends on who shares a launch
        n_sums = np.zeros(len(active), np.int64)
        for bucket in buckets:
            n_sums[bucket.active_index] = -(-bucket.numels // norm_chunk_size())
        kind = np.array([self._groups.index(summed[param]) for param in active], np.int64) if self._groups else np.zeros_like(n_sums)
        order = np.argsort(kind, kind="stable")
        first = np.zeros_like(n_sums)
        first[order] = np.cumsum(n_sums[order]) - n_sums[order]
        n_norms = self._of_groups.start
        spans = np.zeros((n_norms + len(self._groups), 2), np.int64)
        spans[0] = 0, n_sums.sum()
        for k in np.unique(kind) if self._groups else ():
            spans[n_norms + k] = first[kind == k].min(), (first + n_sums)[kind == k].max()
        self._reduced = [
            torch.tensor([*(n for param, n in norms.items() if n and summed[param] == groups), n_norms + k], device=self._home)
            for k, groups in enumerate(self._groups)
        ]
        for bucket in buckets:
            alone = bucket.norm_index > FIRST_NORM
            spans[bucket.norm_index[alone] - FIRST_NORM] = np.stack([first, first + n_sums], 1)[bucket.active_index[alone]]
        self._spans = on_device(spans, self._home)
        self._sums = {device: on_device(np.zeros(spans[0, 1]), device) for device in self.on}
        self._tables = [bucket.norm_tables(first, self.on[bucket.layout.device]) for bucket in buckets]
        self._launches = [
            (bucket.squares(tables), self._sums[bucket.layout.device]) for bucket, tables in zip(buckets, self._tables, strict=True)
        ]
        self._finish = prepare_norms(self._spans, self.on[self._home][FIRST_NORM:])

    def compute(self, grad_scale: Tensor | None, found_inf: Tensor | None, least_norm: Tensor | float | None = None) -> None:
        """One launch for each bucket, and one that sums up; the host waits for none, unless some parameters are on a CPU, some not.

        Args:
            grad_scale: what the gradients have been multiplied by; None: nothing.
            found_inf: not 0 if nothing may change; None: as 0.
            least_norm: to which the norms of parameters that ask for their own are raised; NaN stays.
        """
        for stream, tensors in self._on_streams:
            keep(tensors, stream)
        scaled = grad_scale is not None or found_inf is not None
        if scaled or self._scaled or self._leaves_out:
            for values in self.on.values():
                # without gradients here a scaler passes the number 0
                _assign(values, SKIP, found_inf.reshape(()) if isinstance(found_inf, Tensor) else 0.0)
                _assign(values, UNSCALE, 1.0 if grad_scale is None else grad_scale.reshape(()).double().reciprocal())
        self._scaled = scaled
        if not self._launches and not self._groups:
            return
        for write_squares, sums in self._launches:
            write_squares(sums)
        total, norms = self._sums[self._home], self.on[self._home]
        others = [device for device in self.on if device != self._home]
        for device in others:  # 0 where the home has written
            total = total + as_tensor(self._sums[device]).to(self._home)
        self._finish(total)
        norms = as_tensor(norms)
        if self._groups:
            self._all_reduce(norms[FIRST_NORM:])
        if self._skips:
            norms[SKIP].logical_or_(~norms[FIRST_NORM].isfinite())
        if self._spikes:
            self._spikes.look(self.on[self._home], self._home)
        if least_norm is not None:
            norms[FIRST_NORM + 1 :].clamp_(min=least_norm.to(self._home) if isinstance(least_norm, Tensor) else least_norm)
        for device in others:
            as_tensor(self.on[device]).copy_(norms)

    def _all_reduce(self, norms: Tensor) -> None:
        """Make norms of local shards norms of whole DTensors, without a wait for the device."""
        for (groups, _), index in zip(self._groups, self._reduced, strict=True):
            squares = norms[index].square_()
            for group in groups:
                distributed.all_reduce(squares, group=group)
            norms[index] = squares.sqrt_()
        squares = norms[self._of_groups].square()
        for groups, index in self._over.items():
            total = squares[index].sum()
            for group in groups:
                distributed.all_reduce(total, group=group)
            squares[index] = 0
            squares[index[:1]] = total
        norms[0] = squares.sum().sqrt()

    def skipped(self) -> Tensor | None:
        """Whether the step is left out, float64, as tables.SKIP; None if none ever is."""
        if not (self._scaled or self._leaves_out) or not self.on:
            return None
        return as_tensor(next(iter(self.on.values())))[SKIP]

    def total(self) -> Tensor | None:
        """The first norm, to keep; None if none is looked at for its size."""
        return as_tensor(self.on[self._home])[FIRST_NORM].clone() if self._tells and (self._launches or self._groups) else None
