"""The Triton driver: one kernel updates every tensor of a bucket; the rule is passed in."""

import triton

from .lang import tl
from .memory import load, load_numbers, row_pointer, store
from .rules import apply


@triton.jit
def update_block(ptrs, offsets, mask, norm, common, args, RULE: tl.constexpr):
    """One block of one tensor; ptrs = grad, param, state 0, ..."""
    compute: tl.constexpr = common[0].dtype
    grad = load(ptrs[0], offsets, mask, compute)
    param = load(ptrs[1], offsets, mask, compute)
    state = ()
    for s in tl.static_range(2, len(ptrs)):
        state = state + (load(ptrs[s], offsets, mask, compute),)
    param, state = apply(grad, param, state, norm, common, args, RULE)
    store(ptrs[1], offsets, param, mask)
    for s in tl.static_range(2, len(ptrs)):
        store(ptrs[s], offsets, state[s - 2], mask)


@triton.jit(do_not_specialize=["n_tensors"])
def step_kernel(
    addresses_ptr,  # int64 [n_rows, n_tensors]: addresses of grad, param, state 0, ...
    numels_ptr,  # int64 [n_tensors], elements
    groups_ptr,  # int32 [n_tensors]: row of hyper_ptr
    chunk_tensor_ptr,  # int32 [n_chunks]
    chunk_start_ptr,  # int64 [n_chunks], elements, multiples of CHUNK
    hyper_ptr,  # compute type [n_groups, N_COMMON + N_ARGS]
    norm_index_ptr,  # int32 [n_tensors]: which of norms_ptr
    norms_ptr,  # float64 [n_norms], L2 norms of gradients
    n_tensors,
    RULE: tl.constexpr,
    N_COMMON: tl.constexpr,
    N_ARGS: tl.constexpr,
    DTYPES: tl.constexpr,  # stored dtype of each row
    ALIGN: tl.constexpr,  # bytes that divide every address
    CHUNK: tl.constexpr,  # elements a program updates, a multiple of BLOCK
    BLOCK: tl.constexpr,
):
    chunk = tl.program_id(0)
    tensor = tl.load(chunk_tensor_ptr + chunk)
    start = tl.multiple_of(tl.load(chunk_start_ptr + chunk), BLOCK)
    left = tl.load(numels_ptr + tensor) - start
    row_ptr = hyper_ptr + tl.load(groups_ptr + tensor) * (N_COMMON + N_ARGS)
    common = load_numbers(row_ptr, N_COMMON)
    args = load_numbers(row_ptr + N_COMMON, N_ARGS)
    norm = tl.load(norms_ptr + tl.load(norm_index_ptr + tensor)).to(hyper_ptr.dtype.element_ty)
    ptrs = ()
    for r in tl.static_range(len(DTYPES)):
        ptrs = ptrs + (row_pointer(addresses_ptr, r, tensor, n_tensors, DTYPES[r], ALIGN) + start,)

    # a mask that could split a vector makes every access scalar: whole blocks have none, so any numel vectorises
    limit = tl.minimum(left, CHUNK).to(tl.int32)
    whole = limit // BLOCK * BLOCK
    first = 0
    while first < whole:  # not range(0, whole): Triton 3.6's interpreter fails on it with NumPy 2.4
        offsets = tl.multiple_of(first, BLOCK) + tl.arange(0, BLOCK)
        update_block(ptrs, offsets, None, norm, common, args, RULE)
        first += BLOCK
    if whole < limit:
        offsets = whole + tl.arange(0, BLOCK)
        update_block(ptrs, offsets, offsets < limit, norm, common, args, RULE)
