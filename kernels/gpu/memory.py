"""Triton: typed pointers out of the address table, loads and stores at them.

A value lies in one row of addresses or in two, by its format (storage.py). `ptrs` are those of one value, at its first element.
"""

import triton

from .. import quant, storage
from ..lang import jit, tl
from ..quant import part_in_word, part_of_scale, quantize, squared_codes
from ..rounding import (
    master_or_param,
    merge_remainder,
    random_word,
    round_master,
    round_stochastically,
    round_to_nearest,
    share,
    split_master,
    split_master24,
    upcast,
)

GROUP, PER_WORD, LEAST_SCALE = map(tl.constexpr, (quant.GROUP, quant.PER_WORD, quant.LEAST_SCALE))
PLAIN, MASTER, SPLIT, QUANTIZED = map(tl.constexpr, (storage.PLAIN, storage.MASTER, storage.SPLIT, storage.QUANTIZED))
# The largest codes, by the dtype that is read and written; a constexpr, for Triton's cache keys hold no other globals.
LARGEST = tl.constexpr({storage.WORDS.get(codes, codes): float(top) for codes, top in storage.TOP.items()})


@jit
def row_pointer(addresses_ptr, row: tl.constexpr, tensor, n_tensors, dtype: tl.constexpr, ALIGN: tl.constexpr):
    ptr = tl.load(addresses_ptr + row * n_tensors + tensor).to(tl.pointer_type(dtype))
    return tl.multiple_of(ptr, ALIGN)  # on the pointer: the cast drops a hint on the integer


# Not jit functions: what these return is a tensor to Triton before 3.7, and chooses nothing while it compiles.
@triton.constexpr_function
def in_bytes(ptr):
    """Whether codes have 8 bits; where they have 4, they are in words of 16, signed ones if the codes are."""
    return ptr.dtype.element_ty.primitive_bitwidth == 8


@triton.constexpr_function
def is_signed(ptr):
    return ptr.dtype.element_ty.is_int_signed()


@triton.constexpr_function
def top_of(ptr):
    """The largest code."""
    return LARGEST.value[str(ptr.dtype.element_ty)]


@jit
def value_pointers(
    addresses_ptr, tensor, n_tensors, start, row: tl.constexpr, FORMAT: tl.constexpr, DTYPES: tl.constexpr, ALIGN: tl.constexpr
):
    """Of a value whose rows begin at `row`, at its element `start`."""
    ptr = row_pointer(addresses_ptr, row, tensor, n_tensors, DTYPES[row], ALIGN)
    if FORMAT == PLAIN:
        return (ptr + start,)
    else:
        second = row_pointer(addresses_ptr, row + 1, tensor, n_tensors, DTYPES[row + 1], ALIGN)
        if FORMAT == QUANTIZED:
            return ptr + (start if in_bytes(ptr) else start // PER_WORD), second + start // GROUP
        return ptr + start, second + start


@jit
def load_numbers(ptr, N: tl.constexpr):
    numbers = ()
    for n in tl.static_range(N):
        numbers = numbers + (tl.load(ptr + n),)
    return numbers


@jit
def load_below(ptr, offsets, limit, PER: tl.constexpr = 1):
    """Without a mask where limit is None: one that could split a vector makes every access scalar. PER: elements of one offset."""
    if limit is None:
        return tl.load(ptr + offsets)
    else:
        return tl.load(ptr + offsets, mask=offsets * PER < limit)


@jit
def store_below(ptr, offsets, value, limit, PER: tl.constexpr = 1):
    if limit is None:
        tl.store(ptr + offsets, value)
    else:
        tl.store(ptr + offsets, value, mask=offsets * PER < limit)


@jit
def places():
    """Of four elements."""
    return tl.arange(0, 4).to(tl.uint32)[None, :]


@jit
def in_groups(x):
    return tl.reshape(x, [x.shape[0] // GROUP, GROUP])


@jit
def from_groups(x):
    return tl.reshape(x, [x.shape[0] * GROUP])


@jit
def load_parts(ptr, first, limit, BLOCK: tl.constexpr):
    """Of their scales, what codes stand for."""
    if in_bytes(ptr):
        return part_of_scale(load_below(ptr, first + tl.arange(0, BLOCK), limit), top_of(ptr))
    else:
        words = (first // PER_WORD + tl.arange(0, BLOCK // PER_WORD))[:, None]
        word = load_below(ptr, words, limit, PER_WORD).to(tl.uint16, bitcast=True).to(tl.uint32)
        return tl.reshape(part_in_word(word, places(), top_of(ptr), is_signed(ptr)), [BLOCK])


@jit
def load(ptrs, first, limit, FORMAT: tl.constexpr, BLOCK: tl.constexpr, compute: tl.constexpr):
    """The elements from `first` on, those below `limit` if it is not None, as the compute type."""
    first = tl.multiple_of(first, BLOCK)
    if FORMAT == QUANTIZED:
        groups = (first // GROUP + tl.arange(0, BLOCK // GROUP))[:, None]
        return from_groups(load_below(ptrs[1], groups, limit, GROUP) * in_groups(load_parts(ptrs[0], first, limit, BLOCK)))
    offsets = first + tl.arange(0, BLOCK)
    stored = load_below(ptrs[0], offsets, limit)
    if FORMAT == PLAIN:
        value = upcast(stored, compute)
    elif FORMAT == SPLIT:
        value = merge_remainder(stored, load_below(ptrs[1], offsets, limit))
    else:
        value = master_or_param(stored, load_below(ptrs[1], offsets, limit))
    return value


@jit
def random_bits(offset, first, keys, BLOCK: tl.constexpr, STREAM: tl.constexpr):
    """16 for each element from `first` on, as uint32; offset: int64, in the parameter, of element 0."""
    index = offset.to(tl.uint32) + tl.multiple_of(first, BLOCK).to(tl.uint32)
    if len(keys) == 2:
        word = random_word(index + 4 * tl.arange(0, BLOCK // 4).to(tl.uint32), keys)
        return tl.reshape(share(word[:, None], places(), STREAM), [BLOCK])
    else:
        index += tl.arange(0, BLOCK).to(tl.uint32)
        return share(random_word(index & 0xFFFFFFFC, keys), index & 3, STREAM)


@jit
def store_scales(ptr, first, limit, scale, PER_THREAD: tl.constexpr):
    """One for each group, by the first of the threads that hold its elements, PER_THREAD each.

    Pointers are as many as these threads, and not seen to rise from group to group: pointers that Triton sees to rise, it hands to
    threads in their order, and scales after them, through shared memory and barriers.
    """
    N: tl.constexpr = GROUP // PER_THREAD
    groups = (first // GROUP + tl.arange(0, scale.shape[0]))[:, None]
    thread = tl.arange(0, N)[None, :]
    mask = thread == 0 if limit is None else (thread == 0) & (groups * GROUP < limit)
    index = (groups * N + thread) // N  # the group
    tl.store(ptr + index, tl.broadcast_to(scale, [scale.shape[0], N]), mask=mask)


@jit
def store_quantized(ptrs, first, limit, value, random, PER_THREAD: tl.constexpr):
    """Codes and scales; random: 16 bits for each element, as uint32."""
    offsets = tl.multiple_of(first, value.shape[0]) + tl.arange(0, value.shape[0])
    dtype: tl.constexpr = ptrs[0].dtype.element_ty
    bits = value.to(tl.uint32, bitcast=True)
    size = in_groups(bits & 0x7FFFFFFF if is_signed(ptrs[0]) else bits)  # what is never negative, or a NaN of either sign
    if limit is not None:
        size = tl.where(in_groups(offsets) < limit, size, 0)
    peak = tl.max(size, axis=1, keep_dims=True)  # as integers, where a NaN is the largest
    scale = tl.where(peak > LEAST_SCALE, peak, LEAST_SCALE).to(tl.float32, bitcast=True)
    top = top_of(ptrs[0])
    codes = from_groups(quantize(in_groups(value), squared_codes(scale, top), in_groups(random), top, is_signed(ptrs[0])))
    if in_bytes(ptrs[0]):
        store_below(ptrs[0], offsets, codes.to(dtype), limit)
    else:
        if limit is not None:
            codes = tl.where(offsets < limit, codes, 0)
        word = tl.sum(tl.reshape(codes, [codes.shape[0] // PER_WORD, PER_WORD]).to(tl.uint32) << (4 * places()), axis=1)
        word = (word + 0x8888) ^ 0x8888 if is_signed(ptrs[0]) else word  # from a sum of signed codes to codes side by side
        words = tl.multiple_of(first, value.shape[0]) // PER_WORD + tl.arange(0, value.shape[0] // PER_WORD)
        store_below(ptrs[0], words, word.to(tl.uint16).to(dtype, bitcast=True), limit, PER_WORD)
    store_scales(ptrs[1], first, limit, scale, PER_THREAD)


@jit
def store(
    ptrs, first, limit, value, offset, keys, FORMAT: tl.constexpr, PER_THREAD: tl.constexpr, STREAM: tl.constexpr, STOCHASTIC: tl.constexpr
):
    """What load() is to read; the elements' offsets in their parameter, from `offset` on, and keys choose their random bits of a stream."""
    offsets = tl.multiple_of(first, value.shape[0]) + tl.arange(0, value.shape[0])
    dtype: tl.constexpr = ptrs[0].dtype.element_ty
    if FORMAT == PLAIN:
        if STOCHASTIC and (dtype == tl.bfloat16 or dtype == tl.float16):
            stored = round_stochastically(value, random_bits(offset, first, keys, value.shape[0], STREAM), dtype)
        else:
            stored = round_to_nearest(value, dtype)
        store_below(ptrs[0], offsets, stored, limit)
    elif FORMAT == QUANTIZED:
        store_quantized(ptrs, first, limit, value, random_bits(offset, first, keys, value.shape[0], STREAM), PER_THREAD)
    elif FORMAT == SPLIT:
        if ptrs[1].dtype.element_ty == tl.int16:
            param, remainder = split_master(value)
        else:
            param, remainder = split_master24(value, random_bits(offset, first, keys, value.shape[0], STREAM))
        store_below(ptrs[0], offsets, param, limit)
        store_below(ptrs[1], offsets, remainder, limit)
    else:
        store_below(ptrs[0], offsets, round_master(value, dtype), limit)
        store_below(ptrs[1], offsets, value, limit)
