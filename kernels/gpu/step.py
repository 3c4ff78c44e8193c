"""The Triton driver: one kernel updates every tensor of a bucket; the rule is passed in."""

from typing import Any, NamedTuple

import triton

from .. import tables
from ..lang import tl
from ..quant import second_moment_of
from ..rounding import chunk_keys
from ..rules import Common, apply, averaged, variance_of
from ..storage import FLAGS
from .memory import load, load_numbers, store, value_pointers
from .statistics import OTHERS, measure_block, row_of

SKIP, UNSCALE = tl.constexpr(tables.SKIP), tl.constexpr(tables.UNSCALE)
STOCHASTIC, VARIANCE, AVERAGE, CAUTIOUS, MEASURED = (tl.constexpr(FLAGS.index(name)) for name in FLAGS)


class Chunk(NamedTuple):
    """What a program updates: a part of one tensor."""

    ptrs: Any  # of grad, param, state 0, ..., those of each value's rows
    offset: Any  # of its first element in the parameter, int64
    keys: Any  # of its random bits
    sums: Any  # pointer to the row of unit_sums of its first block, where statistics are taken


class Numbers(NamedTuple):
    """What its elements are updated with."""

    grad_scale: Any
    norm: Any
    boost: Any
    common: Any
    args: Any


@triton.jit
def numbers_of(row, unscale, norm, boost, N_COMMON: tl.constexpr):
    """row: of hyper."""
    common = Common(*row[:N_COMMON])
    return Numbers(grad_scale=common.grad_scale * unscale, norm=norm, boost=boost, common=common, args=row[N_COMMON:])


@triton.jit
def chunk_pointers(
    addresses_ptr, tensor, n_tensors, start, ROWS: tl.constexpr, FORMATS: tl.constexpr, DTYPES: tl.constexpr, ALIGN: tl.constexpr
):
    """Of each value the pointers to its rows, at a tensor's element `start`."""
    ptrs = ()
    for v in tl.static_range(len(FORMATS)):
        ptrs = ptrs + (value_pointers(addresses_ptr, tensor, n_tensors, start, ROWS[v], FORMATS[v], DTYPES, ALIGN),)
    return ptrs


@triton.jit
def is_neutral(row, NEUTRAL: tl.constexpr):
    """Whether every number that has a neutral value has it."""
    same = tl.full((), True, tl.int1)
    for n in tl.static_range(len(NEUTRAL)):
        if NEUTRAL[n] is not None:
            same = same & (row[n] == NEUTRAL[n])
    return same


@triton.jit
def with_neutral(row, NEUTRAL: tl.constexpr):
    """The neutral values as constants, which the compiler drops."""
    numbers = ()
    for n in tl.static_range(len(NEUTRAL)):
        numbers = numbers + (row[n] if NEUTRAL[n] is None else tl.full((), NEUTRAL[n], row[n].dtype),)
    return numbers


@triton.jit
def load_values(
    ptrs,
    first,
    limit,
    FORMATS: tl.constexpr,
    BLOCK: tl.constexpr,
    compute: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """Gradient, parameter, state as a rule takes it, and a tuple of the average, if there is one; first, limit: as of update_block()."""
    grad = load(ptrs[0], first, limit, FORMATS[0], BLOCK, compute)
    param = load(ptrs[1], first, limit, FORMATS[1], BLOCK, compute)
    values = ()
    for v in tl.static_range(2, len(FORMATS)):
        values = values + (load(ptrs[v], first, limit, FORMATS[v], BLOCK, compute),)
    N_STATES: tl.constexpr = len(FORMATS) - 2 - FLAGS[AVERAGE]
    state = values[:N_STATES]
    if FLAGS[VARIANCE]:
        state = (second_moment_of(state[0], state[1]),) + state[1:]
    return grad, param, state, values[N_STATES:]


@triton.jit
def update_block(
    chunk,
    numbers,
    first,
    limit,
    FORMATS: tl.constexpr,
    BLOCK: tl.constexpr,
    PER_THREAD: tl.constexpr,
    LEVELS: tl.constexpr,
    RULE: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """Elements of a chunk from `first` on: a block, or those below `limit` if it is not None."""
    grad, before, state, average = load_values(chunk.ptrs, first, limit, FORMATS, BLOCK, numbers.norm.dtype, FLAGS)
    scale, norm, common = numbers.grad_scale, numbers.norm, numbers.common
    param, state = apply(grad, before, state, scale, norm, numbers.boost, common, numbers.args, RULE, FLAGS[CAUTIOUS])
    if FLAGS[MEASURED]:
        row = chunk.sums + first // BLOCK * (len(state) + OTHERS)
        measure_block(row, grad * scale, before, param, state, first, limit, LEVELS)
    if FLAGS[VARIANCE]:
        state = (variance_of(state[0], state[1]),) + state[1:]
    if FLAGS[AVERAGE]:
        state = state + (averaged(average[0], param, common),)
    store(chunk.ptrs[1], first, limit, param, chunk.offset, chunk.keys, FORMATS[1], PER_THREAD, 0, FLAGS[STOCHASTIC])
    for v in tl.static_range(2, len(FORMATS)):
        store(chunk.ptrs[v], first, limit, state[v - 2], chunk.offset, chunk.keys, FORMATS[v], PER_THREAD, v - 1, True)


@triton.jit
def update_blocks(
    chunk,
    numbers,
    first,
    end,
    FORMATS: tl.constexpr,
    BLOCK: tl.constexpr,
    PER_THREAD: tl.constexpr,
    LEVELS: tl.constexpr,
    RULE: tl.constexpr,
    FLAGS: tl.constexpr,
    INDEXED: tl.constexpr,
):
    """Whole blocks, from element `first` on; returns the first element that is in none.

    INDEXED: every address is computed from `first`, which takes fewer instructions and registers of many rows.
    """
    while first < end:  # not range(first, end): Triton 3.6's interpreter fails on it with NumPy 2.4
        update_block(chunk, numbers, first, None, FORMATS, BLOCK, PER_THREAD, LEVELS, RULE, FLAGS)
        first = tl.minimum(first + BLOCK, end) if INDEXED else first + BLOCK  # of a plain sum LLVM makes an address for each row
    return first


@triton.jit
def update_chunk(
    chunk,
    numbers,
    row,
    unscale,
    limit,
    FORMATS: tl.constexpr,
    BLOCK: tl.constexpr,
    PER_THREAD: tl.constexpr,
    LEVELS: tl.constexpr,
    RULE: tl.constexpr,
    FLAGS: tl.constexpr,
    NEUTRAL: tl.constexpr,
):
    """Elements below `limit`; row, unscale: what numbers were made of."""
    unmasked = limit // BLOCK * BLOCK
    first = tl.full((), 0, tl.uint32)
    INDEXED: tl.constexpr = NEUTRAL is not None  # both are where there are codes
    if NEUTRAL is not None:
        plain = tl.where(is_neutral(row, NEUTRAL) & (unscale == 1.0), unmasked, 0)
        one = tl.full((), 1.0, numbers.norm.dtype)
        fewer = numbers_of(with_neutral(row, NEUTRAL), one, numbers.norm, numbers.boost, len(NEUTRAL) - len(numbers.args))
        first = update_blocks(chunk, fewer, first, plain, FORMATS, BLOCK, PER_THREAD, LEVELS, RULE, FLAGS, INDEXED)
    update_blocks(chunk, numbers, first, unmasked, FORMATS, BLOCK, PER_THREAD, LEVELS, RULE, FLAGS, INDEXED)
    if unmasked < limit:
        update_block(chunk, numbers, unmasked, limit, FORMATS, BLOCK, PER_THREAD, LEVELS, RULE, FLAGS)


@triton.jit(do_not_specialize=["n_tensors", "n_chunks", "chunk_size"])
def step_kernel(
    addresses_ptr,  # the tables: see tables.Tables
    numels_ptr,
    groups_ptr,
    chunk_tensor_ptr,
    chunk_start_ptr,
    hyper_ptr,
    norm_index_ptr,
    random_key_ptr,
    shard_offset_ptr,
    boosts_ptr,
    first_unit_ptr,
    unit_sums_ptr,
    n_tensors,
    n_chunks,
    chunk_size,  # elements, a multiple of BLOCK
    scalars_ptr,  # float64: see tables.py
    RULE: tl.constexpr,
    COMMON: tl.constexpr,  # names of the numbers in a row of hyper, in their order, which Triton's cache does not see in a NamedTuple
    ARGS: tl.constexpr,  # and of the rule's own, which follow
    NEUTRAL: tl.constexpr,  # of each number in a row of hyper the value that changes nothing, or None; or None, and they have no loop
    FORMATS: tl.constexpr,  # of grad, param, state 0, ..., as in storage.py
    ROWS: tl.constexpr,  # where the rows of each begin
    DTYPES: tl.constexpr,  # stored dtype of each row
    FLAGS: tl.constexpr,  # likewise
    STRADDLES: tl.constexpr,  # as in Storage
    ALIGN: tl.constexpr,  # bytes that divide every address
    BLOCK: tl.constexpr,
    PER_THREAD: tl.constexpr,  # elements of a block that a thread handles
    LEVELS: tl.constexpr,  # BLOCK is 2**LEVELS
    PERSISTENT: tl.constexpr,  # programs are fewer than chunks, of which each takes several
):
    compute: tl.constexpr = hyper_ptr.dtype.element_ty
    N_HYPER: tl.constexpr = len(COMMON) + len(ARGS)
    index = tl.program_id(0)
    end = n_chunks if PERSISTENT else index + 1  # as constants, so that a single round leaves no loop behind
    while index < end:
        tensor = tl.load(chunk_tensor_ptr + index)
        start = tl.multiple_of(tl.load(chunk_start_ptr + index), BLOCK)
        remaining = tl.where(tl.load(scalars_ptr + SKIP) == 0.0, tl.load(numels_ptr + tensor) - start, 0)

        row = load_numbers(hyper_ptr + tl.load(groups_ptr + tensor) * N_HYPER, N_HYPER)
        unscale = tl.load(scalars_ptr + UNSCALE).to(compute)
        norm = tl.load(scalars_ptr + tl.load(norm_index_ptr + tensor)).to(compute)
        boost = tl.load(boosts_ptr + tensor).to(compute) if FLAGS[CAUTIOUS] else norm
        numbers = numbers_of(row, unscale, norm, boost, len(COMMON))
        ptrs = chunk_pointers(addresses_ptr, tensor, n_tensors, start, ROWS, FORMATS, DTYPES, ALIGN)
        offset = start + tl.load(shard_offset_ptr + tensor)
        keys = chunk_keys(load_numbers(random_key_ptr + 3 * tensor, 3), offset, STRADDLES)
        columns: tl.constexpr = len(FORMATS) - 2 - FLAGS[AVERAGE] + OTHERS
        sums = row_of(unit_sums_ptr, first_unit_ptr, tensor, start, BLOCK, columns) if FLAGS[MEASURED] else unit_sums_ptr
        chunk = Chunk(ptrs=ptrs, offset=offset, keys=keys, sums=sums)

        limit = tl.minimum(remaining, chunk_size).to(tl.uint32)
        update_chunk(chunk, numbers, row, unscale, limit, FORMATS, BLOCK, PER_THREAD, LEVELS, RULE, FLAGS, NEUTRAL)
        index += tl.num_programs(0) if PERSISTENT else 1
