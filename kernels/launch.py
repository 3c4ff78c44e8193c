"""The only place that launches: picks the driver by the bucket's device."""

from typing import NamedTuple

import numpy as np
import torch

from . import cpu, lang, rules

BLOCK = 1024  # elements a program handles at a time: 16-byte accesses with 4 float32 a thread
NUM_WARPS = 8
CHUNK = 16384  # elements a program updates


class Tables(NamedTuple):
    """What a launch reads, in the order of the kernels' arguments; NumPy arrays on the host, tensors on a GPU."""

    addresses: np.ndarray | torch.Tensor  # int64 [n_rows, n_tensors]: grad, param, state 0, ...
    numels: np.ndarray | torch.Tensor  # int64 [n_tensors], elements
    groups: np.ndarray | torch.Tensor  # int32 [n_tensors]: row of hyper
    chunk_tensor: np.ndarray | torch.Tensor  # int32 [n_chunks]
    chunk_start: np.ndarray | torch.Tensor  # int64 [n_chunks], elements
    hyper: np.ndarray | torch.Tensor  # compute type [n_groups, n_hyper]: rules.COMMON, then the rule's args


def uses_triton(device: torch.device) -> bool:
    return device.type == "cuda" or lang.interpreted()


def chunk_size(device: torch.device) -> int:
    return CHUNK if uses_triton(device) else cpu.CHUNK


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

    tl = lang.tl
    alignment = 16 if aligned else 1
    with torch.cuda.device_of(tables.addresses):
        step_kernel[(len(tables.chunk_tensor),)](
            *tables,
            tables.numels.numel(),
            RULE=getattr(rules, rule),
            N_COMMON=len(rules.COMMON),
            N_ARGS=tables.hyper.shape[1] - len(rules.COMMON),
            DTYPES=tuple(getattr(tl, dtype) for dtype in dtypes),
            ALIGN=alignment,
            CHUNK=CHUNK,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
        )
