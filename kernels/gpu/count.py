"""Triton: counters of steps on a GPU that alone knows whether a step is made."""

import triton

from .. import tables
from ..lang import tl

SKIP = tl.constexpr(tables.SKIP)


@triton.jit(do_not_specialize=["n_tensors"])
def count_kernel(
    counters_ptr,  # int64 [n_tensors]: addresses of the counters, float32 or float64
    double_ptr,  # int32 [n_tensors]: not 0 where they are float64
    counted_ptr,  # float64 [n_tensors]: gets what they come to with this step
    random_key_ptr,  # int32 [n_tensors, 3]: as in tables.Tables, gets the same in its last column
    n_tensors,
    scalars_ptr,  # float64: see tables.py
    BLOCK: tl.constexpr,
):
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = k < n_tensors
    address = tl.load(counters_ptr + k, mask=mask, other=0)
    wide = mask & (tl.load(double_ptr + k, mask=mask, other=0) != 0)
    narrow = mask & (tl.load(double_ptr + k, mask=mask, other=1) == 0)
    double_at, single_at = address.to(tl.pointer_type(tl.float64)), address.to(tl.pointer_type(tl.float32))
    double = tl.load(double_at, mask=wide, other=0.0) + 1.0
    single = tl.load(single_at, mask=narrow, other=0.0) + 1.0
    counted = tl.where(wide, double, single.to(tl.float64))
    tl.store(counted_ptr + k, counted, mask=mask)
    tl.store(random_key_ptr + 3 * k + 2, counted.to(tl.int32), mask=mask)
    made = k < tl.where(tl.load(scalars_ptr + SKIP) == 0.0, n_tensors, 0)
    tl.store(double_at, double, mask=wide & made)
    tl.store(single_at, single, mask=narrow & made)
