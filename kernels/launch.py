"""The only place that launches: picks the driver by the bucket's device."""

import itertools
from typing import Any, NamedTuple

import numpy as np
import torch

from . import cpu, cpu_norm, lang, rules
from .storage import Storage

THREADS = 256  # of a program, each of which handles 16 bytes of the compute type at a time
CHUNK = 16384  # elements a program updates
# of a thread where states are kept as codes, with every address aligned and not: left to itself the compiler takes up to 160
REGISTERS = {True: 80, False: 128}


class Tables(NamedTuple):
    """What a launch reads, in the order of the kernels' arguments; NumPy arrays on the host, tensors on a GPU."""

    addresses: Any  # int64 [n_rows, n_tensors]: grad, param, state 0, ..., each in one row or two
    numels: Any  # int64 [n_tensors], elements
    groups: Any  # int32 [n_tensors]: row of hyper
    chunk_tensor: Any  # int32 [n_chunks]
    chunk_start: Any  # int64 [n_chunks], elements
    hyper: Any  # compute type [n_groups, n_hyper]: rules.COMMON, then the rule's args
    norm_index: Any  # int32 [n_tensors]: which of the norms scales this gradient
    noise: Any  # int32 [n_tensors, 3]: two words that no other parameter or seed has, the steps with this one


class NormTables(NamedTuple):
    """What the launch of a norm reads; chunks have cpu_norm.CHUNK elements."""

    addresses: Any  # the first six as in Tables
    numels: Any
    groups: Any
    chunk_tensor: Any
    chunk_start: Any
    hyper: Any
    first_sum: Any  # int64 [n_tensors]: where the sums of each tensor begin


def uses_triton(device: torch.device) -> bool:
    return device.type == "cuda" or lang.interpreted()


def chunk_size(device: torch.device) -> int:
    return CHUNK if uses_triton(device) else cpu.CHUNK


def norm_chunk_size() -> int:
    """Elements whose squares make one sum, on every device."""
    return cpu_norm.CHUNK


def constants(rule: str, storage: Storage, aligned: bool, n_hyper: int, warp_size: int) -> dict:
    """What the Triton kernel is compiled for; rule and storage as in launch().

    Args:
        n_hyper: numbers in a row of hyper.
        warp_size: threads, 32 on NVIDIA's GPUs and 64 on AMD's, whose compiler takes no limit of registers.
    """
    vector = 2 if storage.compute == "float64" else 4
    limit = dict(maxnreg=REGISTERS[aligned]) if storage.coded and warp_size == 32 else {}
    return dict(
        RULE=getattr(rules, rule),
        N_COMMON=len(rules.COMMON),
        N_ARGS=n_hyper - len(rules.COMMON),
        DTYPES=tuple(getattr(lang.tl, dtype) for rows in storage.dtypes for dtype in rows),
        ROWS=tuple(itertools.accumulate(map(len, storage.dtypes), initial=0)),
        STOCHASTIC=storage.stochastic,
        VARIANCE=storage.variance,
        ALIGN=16 if aligned else 1,
        CHUNK=CHUNK,
        BLOCK=THREADS * vector,
        num_warps=THREADS // warp_size,
        **limit,
    )


def squares_constants(dtype: str, aligned: bool, n_hyper: int) -> dict:
    """What norm.squares_kernel is compiled for; dtype is that of the gradients."""
    return dict(
        N_COMMON=len(rules.COMMON),
        N_HYPER=n_hyper,
        DTYPE=getattr(lang.tl, dtype),
        ALIGN=16 if aligned else 1,
        CHUNK=cpu_norm.CHUNK,
        LEVELS=cpu_norm.LEVELS,
        num_warps=4,
    )


def norms_constants() -> dict:
    """What norm.norms_kernel is compiled for."""
    return dict(LEVELS=cpu_norm.LEVELS, num_warps=4)


def launch(rule: str, storage: Storage, aligned: bool, n_elements: int, tables: Tables, norms) -> None:
    """Update every tensor of a bucket: one launch, on the tables' device and its current stream.

    Args:
        rule: a function of rules.py.
        storage: what the rows of addresses point at.
        aligned: every address is a multiple of 16 bytes.
        n_elements: in all tensors together.
        tables: NumPy arrays for the Numba driver, tensors for the Triton one.
        norms: float64, likewise: of gradients, 0 where none is limited.
    """
    if not len(tables.chunk_tensor):
        return
    if isinstance(tables.addresses, np.ndarray):
        return cpu.step(rule, storage, n_elements, tables, norms)
    from .step import step_kernel  # needs Triton, which exists on Linux only

    chosen = constants(rule, storage, aligned, tables.hyper.shape[1], 64 if torch.version.hip else 32)
    with torch.cuda.device_of(tables.addresses):
        step_kernel[(len(tables.chunk_tensor),)](*tables, norms, tables.numels.numel(), **chosen)


def launch_squares(dtype: str, aligned: bool, n_elements: int, tables: NormTables, sums) -> None:
    """The sum of squares of each chunk of a bucket's gradients: one launch.

    Args:
        dtype: stored dtype of the gradients.
        aligned: every address is a multiple of 16 bytes.
        n_elements: in all tensors together.
        tables: NumPy arrays for the Numba driver, tensors for the Triton one.
        sums: float64, likewise; written where the tables' first_sum says.
    """
    if not len(tables.chunk_tensor):
        return
    if isinstance(tables.addresses, np.ndarray):
        return cpu_norm.squares(dtype, n_elements, tables, sums)
    from .norm import squares_kernel

    with torch.cuda.device_of(tables.addresses):
        chosen = squares_constants(dtype, aligned, tables.hyper.shape[1])
        squares_kernel[(len(tables.chunk_tensor),)](*tables, sums, tables.numels.numel(), **chosen)


def launch_norms(sums, spans, norms) -> None:
    """norms[k] = square root of the sum of sums[spans[k, 0] : spans[k, 1]]: one launch; float64, int64, float64, as tables."""
    if isinstance(sums, np.ndarray):
        return cpu_norm.norms(sums, spans, norms)
    from .norm import norms_kernel

    with torch.cuda.device_of(sums):
        norms_kernel[(norms.numel(),)](sums, spans, norms, **norms_constants())
