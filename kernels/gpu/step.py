"""The Triton driver: one kernel updates every tensor of a bucket; the rule is passed in."""

import triton

from ..lang import tl
from ..quant import moment_of
from ..rounding import chunk_keys
from ..rules import apply, unscaled, variance_of
from .memory import load, load_numbers, store, value_pointers


@triton.jit
def update_block(
    ptrs,
    first,
    limit,
    place,
    norm,
    common,
    args,
    keys,
    BLOCK: tl.constexpr,
    EACH: tl.constexpr,
    RULE: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    VARIANCE: tl.constexpr,
):
    """One block of one tensor; ptrs = grad, param, state 0, ..., each of one row or two."""
    compute: tl.constexpr = common[0].dtype
    grad = load(ptrs[0], first, limit, BLOCK, compute)
    param = load(ptrs[1], first, limit, BLOCK, compute)
    state = ()
    for s in tl.static_range(2, len(ptrs)):
        state = state + (load(ptrs[s], first, limit, BLOCK, compute),)
    if VARIANCE:
        state = (moment_of(state[0], state[1]),) + state[1:]
    param, state = apply(grad, param, state, norm, common, args, RULE)
    if VARIANCE:
        state = (variance_of(state[0], state[1]),) + state[1:]
    store(ptrs[1], first, limit, param, place, keys, EACH, 0, STOCHASTIC)
    for s in tl.static_range(2, len(ptrs)):
        store(ptrs[s], first, limit, state[s - 2], place, keys, EACH, s - 1, True)


@triton.jit(do_not_specialize=["n_tensors", "n_chunks", "chunk_size"])
def step_kernel(
    addresses_ptr,  # int64 [n_rows, n_tensors]: addresses of grad, param, state 0, ..., each in one row or two
    numels_ptr,  # int64 [n_tensors], elements
    groups_ptr,  # int32 [n_tensors]: row of hyper_ptr
    chunk_tensor_ptr,  # int32 [n_chunks]
    chunk_start_ptr,  # int64 [n_chunks], elements, multiples of chunk_size
    hyper_ptr,  # compute type [n_groups, N_COMMON + N_ARGS]
    norm_index_ptr,  # int32 [n_tensors]: where in scalars_ptr the norm is that limits the gradient
    noise_ptr,  # int32 [n_tensors, 3]: two words that no other parameter or seed has, the steps with this one
    origin_ptr,  # int64 [n_tensors], elements: where in a parameter the tensor begins, that is a part of it
    n_tensors,
    n_chunks,
    chunk_size,  # elements, a multiple of BLOCK
    scalars_ptr,  # float64: as for launch.prepare()
    RULE: tl.constexpr,
    N_COMMON: tl.constexpr,
    N_ARGS: tl.constexpr,
    DTYPES: tl.constexpr,  # stored dtype of each row
    ROWS: tl.constexpr,  # where the rows of grad, param, state 0, ... begin, and their number
    STOCHASTIC: tl.constexpr,  # parameters are rounded stochastically
    VARIANCE: tl.constexpr,  # state 0 is kept as the variance about state 1
    WRAPS: tl.constexpr,  # as in Storage
    ALIGN: tl.constexpr,  # bytes that divide every address
    BLOCK: tl.constexpr,
    EACH: tl.constexpr,  # elements of a block that a thread handles
    PERSISTENT: tl.constexpr,  # programs are fewer than chunks, of which each takes several
):
    chunk = tl.program_id(0)
    end = n_chunks if PERSISTENT else chunk + 1  # as constants, so that a single round leaves no loop behind
    while chunk < end:
        tensor = tl.load(chunk_tensor_ptr + chunk)
        start = tl.multiple_of(tl.load(chunk_start_ptr + chunk), BLOCK)
        left = tl.where(tl.load(scalars_ptr) == 0.0, tl.load(numels_ptr + tensor) - start, 0)
        row_ptr = hyper_ptr + tl.load(groups_ptr + tensor) * (N_COMMON + N_ARGS)
        unscale = tl.load(scalars_ptr + 1).to(hyper_ptr.dtype.element_ty)
        common = unscaled(load_numbers(row_ptr, N_COMMON), unscale)
        args = load_numbers(row_ptr + N_COMMON, N_ARGS)
        norm = tl.load(scalars_ptr + tl.load(norm_index_ptr + tensor)).to(hyper_ptr.dtype.element_ty)
        place = start + tl.load(origin_ptr + tensor)
        keys = chunk_keys(load_numbers(noise_ptr + 3 * tensor, 3), place, WRAPS)
        ptrs = ()
        for v in tl.static_range(len(ROWS) - 1):
            ptrs = ptrs + (value_pointers(addresses_ptr, tensor, n_tensors, start, ROWS[v], ROWS[v + 1], DTYPES, ALIGN),)

        limit = tl.minimum(left, chunk_size).to(tl.int32)
        whole = limit // BLOCK * BLOCK
        first = 0
        while first < whole:  # not range(0, whole): Triton 3.6's interpreter fails on it with NumPy 2.4
            update_block(ptrs, first, None, place, norm, common, args, keys, BLOCK, EACH, RULE, STOCHASTIC, VARIANCE)
            first += BLOCK
        if whole < limit:
            update_block(ptrs, whole, limit, place, norm, common, args, keys, BLOCK, EACH, RULE, STOCHASTIC, VARIANCE)
        chunk += tl.num_programs(0) if PERSISTENT else 1
