"""Triton: L2 norms of gradients, without a host sync and bit for bit the same at every run.

The order of all additions is fixed: CHUNK elements of a tensor, as rows of 2**LEVELS lanes, are summed row by row, the lanes pair by
pair, and so are the sums of the chunks, which lie in the order of the parameters. Neither the number of warps, nor the size
of the blocks that `step.py` updates, nor how parameters share launches can change a bit.
"""

import triton

from .. import storage, tables
from ..lang import tl
from ..rules import Common, normed
from .memory import load, load_numbers, row_pointer

UNSCALE = tl.constexpr(tables.UNSCALE)
PLAIN = tl.constexpr(storage.PLAIN)


@triton.jit
def pairwise_sum(x, LEVELS: tl.constexpr):
    """Of 2**LEVELS numbers, in float64. Only sums of two, whose order does not matter, are left to the compiler."""
    x = x.to(tl.float64)
    for level in tl.static_range(LEVELS):
        x = tl.sum(tl.reshape(x, [2, 1 << (LEVELS - 1 - level)]), axis=0)
    return tl.sum(x, axis=0)


@triton.jit
def add_squares(squares, ptr, first, limit, grad_scale, common):
    LANES: tl.constexpr = squares.shape[0]
    grad = normed(load((ptr,), first, limit, PLAIN, LANES, squares.dtype), grad_scale, common)
    if limit is not None:
        grad = tl.where(first + tl.arange(0, LANES) < limit, grad, 0.0)
    return tl.fma(grad, grad, squares)


@triton.jit(do_not_specialize=["n_tensors"])
def squares_kernel(
    addresses_ptr,  # the tables: see tables.NormTables
    numels_ptr,
    groups_ptr,
    chunk_tensor_ptr,
    chunk_start_ptr,
    hyper_ptr,
    first_sum_ptr,
    scalars_ptr,
    n_tensors,
    sums_ptr,  # float64: a sum of squares for each chunk of every bucket
    COMMON: tl.constexpr,  # as of step.step_kernel
    N_HYPER: tl.constexpr,
    DTYPE: tl.constexpr,  # stored dtype of the gradients
    ALIGN: tl.constexpr,  # bytes that divide every address
    CHUNK: tl.constexpr,
    LEVELS: tl.constexpr,
):
    LANES: tl.constexpr = 1 << LEVELS
    index = tl.program_id(0)
    tensor = tl.load(chunk_tensor_ptr + index)
    start = tl.multiple_of(tl.load(chunk_start_ptr + index), CHUNK)
    common = Common(*load_numbers(hyper_ptr + tl.load(groups_ptr + tensor) * N_HYPER, len(COMMON)))
    grad_scale = common.grad_scale * tl.load(scalars_ptr + UNSCALE).to(hyper_ptr.dtype.element_ty)
    ptr = row_pointer(addresses_ptr, 0, tensor, n_tensors, DTYPE, ALIGN) + start
    limit = tl.minimum(tl.load(numels_ptr + tensor) - start, CHUNK).to(tl.int32)

    squares = tl.zeros([LANES], hyper_ptr.dtype.element_ty)
    unmasked = limit // LANES * LANES
    first = 0
    while first < unmasked:
        squares = add_squares(squares, ptr, first, None, grad_scale, common)
        first += LANES
    if unmasked < limit:
        squares = add_squares(squares, ptr, unmasked, limit, grad_scale, common)
    tl.store(sums_ptr + tl.load(first_sum_ptr + tensor) + start // CHUNK, pairwise_sum(squares, LEVELS))


@triton.jit
def norms_kernel(
    spans_ptr,  # int64 [n_norms, 2]: the sums of each norm, first and last + 1
    norms_ptr,  # float64 [n_norms]
    sums_ptr,  # float64: a sum of squares for each chunk
    LEVELS: tl.constexpr,
    AT_ONCE: tl.constexpr,  # rows whose loads are under way at a time: a single program has nothing else to do meanwhile
):
    LANES: tl.constexpr = 1 << LEVELS
    norm = tl.program_id(0)
    first = tl.load(spans_ptr + 2 * norm)
    last = tl.load(spans_ptr + 2 * norm + 1)
    total = tl.zeros([LANES], tl.float64)
    while first < last:
        for row in tl.static_range(AT_ONCE):
            offsets = first + row * LANES + tl.arange(0, LANES)
            total += tl.load(sums_ptr + offsets, mask=offsets < last, other=0.0)
        first += AT_ONCE * LANES
    tl.store(norms_ptr + norm, tl.sqrt(pairwise_sum(total, LEVELS)))
