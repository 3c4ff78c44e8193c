"""The only place that launches: picks the driver by the bucket's device."""

from typing import Any, NamedTuple

import numpy as np
import torch

from . import cpu, lang, rules

THREADS = 256  # of a program, each of which handles 16 bytes of the compute type at a time
CHUNK = 16384  # elements a program updates


class Tables(NamedTuple):
    """What a launch reads, in the order of the kernels' arguments; NumPy arrays on the host, tensors on a GPU."""

    addresses: Any  # int64 [n_rows, n_tensors]: grad, param, state 0, ...
    numels: Any  # int64 [n_tensors], elements
    groups: Any  # int32 [n_tensors]: row of hyper
    chunk_tensor: Any  # int32 [n_chunks]
    chunk_start: Any  # int64 [n_chunks], elements
    hyper: Any  # compute type [n_groups, n_hyper]: rules.COMMON, then the rule's args


def uses_triton(device: torch.device) -> bool:
    return device.type == "cuda" or lang.interpreted()


def chunk_size(device: torch.device) -> int:
    return CHUNK if uses_triton(device) else cpu.CHUNK


def constants(rule: str, dtypes: tuple[str, ...], aligned: bool, n_hyper: int, warp_size: int) -> dict:
    """What the Triton kernel is compiled for; rule and dtypes as in launch().

    Args:
        n_hyper: numbers in a row of hyper.
        warp_size: threads, 32 on NVIDIA's GPUs and 64 on AMD's.
    """
    vector = 2 if dtypes[1] == "float64" else 4
    return dict(
        RULE=getattr(rules, rule),
        N_COMMON=len(rules.COMMON),
        N_ARGS=n_hyper - len(rules.COMMON),
        DTYPES=tuple(getattr(lang.tl, dtype) for dtype in dtypes),
        ALIGN=16 if aligned else 1,
        CHUNK=CHUNK,
        BLOCK=THREADS * vector,
        num_warps=THREADS // warp_size,
    )


def launch(rule: str, dtypes: tuple[str, ...], aligned: bool, n_elements: int, tables: Tables) -> None:
    """Update every tensor of a bucket: one launch, on the tables' device and its current stream.

    Args:
        rule: a function of rules.py.
        dtypes: stored dtype of each row of addresses, as torch names them.
        aligned: every address is a multiple of 16 bytes.
        n_elements: in all tensors together.
        tables: NumPy arrays for the Numba driver, tensors for the Triton one.
    """
    if not len(tables.chunk_tensor):
        return
    if isinstance(tables.addresses, np.ndarray):
        return cpu.step(rule, dtypes, n_elements, tables)
    from .step import step_kernel  # needs Triton, which exists on Linux only

    chosen = constants(rule, dtypes, aligned, tables.hyper.shape[1], 64 if torch.version.hip else 32)
    with torch.cuda.device_of(tables.addresses):
        step_kernel[(len(tables.chunk_tensor),)](*tables, tables.numels.numel(), **chosen)
