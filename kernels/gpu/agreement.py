"""Triton: of each chunk how many elements have an update with the sign of their gradient, before any of them is updated."""

import triton

from .. import tables
from ..lang import tl
from ..rules import agrees
from .memory import load_numbers
from .step import chunk_pointers, load_values, numbers_of

UNSCALE = tl.constexpr(tables.UNSCALE)


@triton.jit
def count_block(
    counts,
    ptrs,
    numbers,
    first,
    limit,
    FORMATS: tl.constexpr,
    RULE: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """counts: int32 [BLOCK], so far; first, limit: as of step.update_block()."""
    BLOCK: tl.constexpr = counts.shape[0]
    grad, param, state, _ = load_values(ptrs, first, limit, FORMATS, BLOCK, numbers.norm.dtype, FLAGS)
    agree = agrees(grad, param, state, numbers.grad_scale, numbers.norm, numbers.common, numbers.args, RULE)
    if limit is not None:
        agree = agree & (first + tl.arange(0, BLOCK) < limit)
    return counts + agree.to(tl.int32)


@triton.jit(do_not_specialize=["n_tensors", "chunk_size"])
def agreement_kernel(
    addresses_ptr,  # the tables: see tables.AgreementTables
    numels_ptr,
    groups_ptr,
    chunk_tensor_ptr,
    chunk_start_ptr,
    hyper_ptr,
    norm_index_ptr,
    scalars_ptr,
    n_tensors,
    chunk_size,  # elements, a multiple of BLOCK
    agreed_ptr,  # float64 [n_chunks]
    RULE: tl.constexpr,  # the others as of step.step_kernel
    COMMON: tl.constexpr,
    ARGS: tl.constexpr,
    FORMATS: tl.constexpr,
    ROWS: tl.constexpr,
    DTYPES: tl.constexpr,
    FLAGS: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    compute: tl.constexpr = hyper_ptr.dtype.element_ty
    index = tl.program_id(0)
    tensor = tl.load(chunk_tensor_ptr + index)
    start = tl.multiple_of(tl.load(chunk_start_ptr + index), BLOCK)
    N_HYPER: tl.constexpr = len(COMMON) + len(ARGS)
    row = load_numbers(hyper_ptr + tl.load(groups_ptr + tensor) * N_HYPER, N_HYPER)
    norm = tl.load(scalars_ptr + tl.load(norm_index_ptr + tensor)).to(compute)
    numbers = numbers_of(row, tl.load(scalars_ptr + UNSCALE).to(compute), norm, norm, len(COMMON))
    ptrs = chunk_pointers(addresses_ptr, tensor, n_tensors, start, ROWS, FORMATS, DTYPES, ALIGN)
    limit = tl.minimum(tl.load(numels_ptr + tensor) - start, chunk_size).to(tl.int32)

    counts = tl.zeros([BLOCK], tl.int32)
    unmasked = limit // BLOCK * BLOCK
    first = tl.full((), 0, tl.int32)
    while first < unmasked:
        counts = count_block(counts, ptrs, numbers, first, None, FORMATS, RULE, FLAGS)
        first += BLOCK
    if unmasked < limit:
        counts = count_block(counts, ptrs, numbers, unmasked, limit, FORMATS, RULE, FLAGS)
    tl.store(agreed_ptr + index, tl.sum(counts).to(tl.float64))
