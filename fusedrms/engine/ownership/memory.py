"""Whose memory is whose: every tensor that a step touches must have some, and what it writes must be its alone."""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


def extent(tensor: Tensor) -> int:
    """Elements from the first to the last in memory, gaps included."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0


def has_memory(tensor: Tensor) -> bool:
    """Whether the storage has room for all elements; it may have been made smaller."""
    if not tensor.numel():
        return True
    storage = tensor.untyped_storage()
    return storage.data_ptr() != 0 and (tensor.storage_offset() + extent(tensor)) * tensor.itemsize <= storage.nbytes()


class Named(NamedTuple):
    """A tensor that a step touches."""

    name: str
    tensor: Tensor
    written: bool = True


def check_memory(tensors: Iterable[Named]) -> None:
    """RuntimeError unless each has the memory of all of its elements."""
    for name, tensor, _ in tensors:
        if tensor.layout is torch.strided and not has_memory(tensor):
            raise RuntimeError(
                f"{name} has shape {tuple(tensor.shape)} but no memory for it: its storage has {tensor.untyped_storage().nbytes()} bytes, "
                "as after untyped_storage().resize_(0); bring the memory back before step()"
            )


def check_apart(tensors: Iterable[Named]) -> None:
    """RuntimeError if one that is written shares memory with another; in O(n log n).

    Threads would write both at once. Gradients may share memory with each other: they are only read.
    """
    reach, spans = 0, []  # device, first byte, byte after the last one, which
    named = [each for each in tensors if each.tensor.layout is torch.strided and each.tensor.numel()]
    for k, (_, tensor, _) in enumerate(named):
        begin = tensor.data_ptr()
        spans.append((str(tensor.device), begin, begin + extent(tensor) * tensor.itemsize, k))
    spans.sort()
    run: list[tuple] = []  # spans of which each begins before one of those before it has ended
    for span in spans:
        if run and (span[0] != run[0][0] or span[1] >= reach):
            _check_run(named, run)
            run = []
        reach = max(reach, span[2]) if run else span[2]
        run.append(span)
    _check_run(named, run)


def _is_dense(tensor: Tensor) -> bool:
    return extent(tensor) == tensor.numel()


def _refuse(one: Named, other: Named) -> None:
    raise RuntimeError(
        f"{one.name} and {other.name} share memory, which step() would write twice at once: give one of them its own with clone(), "
        "or list it only once (tied weights are one torch.nn.Parameter)"
    )


def _check_run(named: list[Named], spans: list[tuple]) -> None:
    """Spans that overlap; columns of one matrix, say, do so without sharing an element."""
    if len(spans) < 2 or not any(named[k].written for *_, k in spans):
        return
    for (_, _, end, k), (_, begin, _, other) in itertools.pairwise(spans):
        one, another = named[k], named[other]
        if begin < end and (one.written or another.written) and _is_dense(one.tensor) and _is_dense(another.tensor):
            _refuse(one, another)
    low, high = spans[0][1], max(end for _, _, end, _ in spans)
    unit = math.gcd(*(named[k].tensor.itemsize for *_, k in spans), *(begin - low for _, begin, _, _ in spans))
    owner = torch.zeros((high - low) // unit, dtype=torch.int32, device="cpu")
    for _, begin, _, k in sorted(spans, key=lambda span: not named[span[3]].written):
        tensor = named[k].tensor
        each = tensor.itemsize // unit
        strides = [stride * each for stride in tensor.stride()]
        part = owner.as_strided((*tensor.shape, each), (*strides, 1), (begin - low) // unit)
        if part.any():
            _refuse(named[int(part.max()) - 1], named[k])
        if named[k].written:
            part.fill_(k + 1)
