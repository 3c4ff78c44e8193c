"""Compute type -> stored dtype, elementwise and by integers alone: the same source, and so the same bits, for both drivers.

`value` is float32 wherever a 16-bit integer or bfloat16 comes out.
"""

from .lang import interpreted, jit, tl

BY_BITS = tl.constexpr(interpreted())  # to bfloat16 by integers: the interpreter truncates, and loses subnormal numbers; LLVM casts none
NAN = tl.constexpr(0x7FC00000)  # bits of a float32
# Powers of one number: what a random word is multiplied by for each of its elements and streams. The points that two of the products make
# lie on lines that are 1 / 49,583 apart at most (the spectral test in two dimensions; the best is 1 / 70,423): as good as independent.
# Each further 4 streams, of rules with more states, begin with another number: of all 64 products, 1 / 24,836 at most.
STARTS = (1, 0xD33C72AD, 0xE623E34F, 0x66AE6ECF)
POWERS = tl.constexpr(tuple(start * pow(0x55BE25C5, n, 2**32) % 2**32 for start in STARTS for n in range(1, 17)))
STREAMS = 4 * len(STARTS)  # of the parameter and of each state that is rounded stochastically


@jit
def truncate(value, addend):
    """The bfloat16 that value's bits begin with, once `addend` has rounded them."""
    bits = value.to(tl.uint32, bitcast=True) + addend
    bits = tl.where(value != value, NAN, bits)  # adding could carry a NaN over into a number
    return (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@jit
def upcast(stored, compute: tl.constexpr):
    if stored.dtype == tl.bfloat16:  # by its bits: GPUs' own way takes an instruction more for every second element
        return (stored.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True).to(compute)
    else:
        return stored.to(compute)


@jit
def round_to_nearest(value, dtype: tl.constexpr):
    """Ties to even."""
    if BY_BITS and dtype == tl.bfloat16:
        return truncate(value, ((value.to(tl.uint32, bitcast=True) >> 16) & 1) + 0x7FFF)
    else:
        return value.to(dtype)


@jit
def round_stochastically_to_float16(value, random):
    bits = value.to(tl.uint32, bitcast=True)
    size = bits & 0x7FFFFFFF
    # float16 keeps 10 bits of 23, but below 2**-14 (bits 0x38800000) it has steps of 2**-24, whatever the exponent
    large = ((size + (random >> 3)) & 0xFFFFE000).to(tl.float32, bitcast=True)
    small = tl.where(size < 0x38800000, size, 0).to(tl.float32, bitcast=True)
    steps = (small * 16777216.0 + (random >> 3).to(tl.float32) * 0.0001220703125).to(tl.int32).to(tl.float32)
    rounded = tl.where(size < 0x38800000, steps * 0.000000059604644775390625, large)
    rounded = (rounded.to(tl.uint32, bitcast=True) | (bits & 0x80000000)).to(tl.float32, bitcast=True)
    return tl.where(value != value, value, rounded).to(tl.float16)


@jit
def round_stochastically(value, random, dtype: tl.constexpr):
    """Up or down (beyond the largest finite value: to infinity), so that the mean is exact; random: 16 random bits as uint32."""
    if dtype == tl.bfloat16:
        return truncate(value, random)
    else:
        return round_stochastically_to_float16(value, random)


@jit
def nearest_upper(bits):
    """The bfloat16 nearest to a float32, ties away from 0: a remainder, 16 bits or the upper 8 of these, has no room for one more tie."""
    return ((bits + 0x8000) >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@jit
def split_master(master):
    """A float32 as a bfloat16 and its remainder."""
    bits = tl.where(master != master, NAN, master.to(tl.uint32, bitcast=True))
    return nearest_upper(bits), bits.to(tl.uint16).to(tl.int16, bitcast=True)


@jit
def split_master24(master, random):
    """A float32 without its lowest 8 bits as a bfloat16 and its remainder: up or down, so that the mean is exact; random: as of
    round_stochastically()."""
    bits = tl.where(master != master, NAN, master.to(tl.uint32, bitcast=True)) + (random >> 8)
    return nearest_upper(bits), (bits >> 8).to(tl.uint8).to(tl.int8, bitcast=True)


@jit
def merge_remainder(param, remainder):
    """What was split; where something else has set the parameter to 0 or infinity, beyond which bits mean others, that."""
    upper = param.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
    lower = remainder.to(tl.int32).to(tl.uint32)
    bits = upper + (lower if remainder.dtype == tl.int16 else lower << 8)
    value = bits.to(tl.float32, bitcast=True)
    return tl.where(value != value, upper.to(tl.float32, bitcast=True), value)  # beyond 0 and beyond infinity there are NaNs


@jit
def round_master(master, dtype: tl.constexpr):
    """The 16-bit parameter of a float32 master; in bfloat16 as split_master() has it, so that both kinds of master give the same run."""
    if dtype == tl.bfloat16:
        return split_master(master)[0]
    else:
        return master.to(dtype)


@jit
def master_or_param(param, master):
    """The master, or the parameter where it is no nearest one to the master: there something else has changed it."""
    if param.dtype == tl.bfloat16:  # a tie may have gone either way: split_master() rounds it away from 0, copies to the even one
        upper = param.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        wide = upper.to(tl.float32, bitcast=True)
        near = master.to(tl.uint32, bitcast=True) + 0x8000 - upper < 0x10001
    else:
        wide = upcast(param, tl.float32)
        near = upcast(round_master(master, param.dtype), tl.float32) == wide
    return tl.where(near, master, wide)


@jit
def hash_bits(x, key):
    """32 random bits for every x and key, both uint32: each bit of either flips each bit of the result half of the time."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15) ^ key
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@jit
def random_word(index, keys):
    """What the random bits of four elements are made of, as uint32.

    index: the lower 32 bits of the offset in its parameter of the first, a multiple of 4, as uint32; keys: chunk_keys() of its chunk.
    """
    if len(keys) == 2:
        first, second = keys
    else:
        wrapped = index < keys[4]
        first, second = tl.where(wrapped, keys[2], keys[0]), tl.where(wrapped, keys[3], keys[1])
    return hash_bits(index ^ first, second)  # without its second product neighbours are correlated, for some keys by a tenth


@jit
def share(word, place, stream: tl.constexpr):
    """16 random bits, as uint32, for the element at a place, 0 to 3, of those of a random_word(), in one of STREAMS independent ones."""
    low = tl.where(place < 1, POWERS[4 * stream], POWERS[4 * stream + 1])
    high = tl.where(place < 3, POWERS[4 * stream + 2], POWERS[4 * stream + 3])
    return (word * tl.where(place < 2, low, high)) >> 16


@jit
def keys_of(random_key, upper):
    """For offsets with these upper 32 bits; random_key: a row of Tables.random_key."""
    step = random_key[2].to(tl.uint32)
    return hash_bits(random_key[0].to(tl.uint32) ^ step, upper), hash_bits(random_key[1].to(tl.uint32) ^ step, upper)


@jit
def chunk_keys(random_key, offset, STRADDLES: tl.constexpr):
    """What random_word() takes for a chunk; offset: int64, of its first element in its parameter.

    With STRADDLES also the keys beyond the next multiple of 2**32, which are those of elements whose lower bits are less than the first's.
    """
    upper = (offset >> 32).to(tl.uint32)
    if STRADDLES:
        return keys_of(random_key, upper) + keys_of(random_key, upper + 1) + (offset.to(tl.uint32) & 0xFFFFFFFC,)
    else:
        return keys_of(random_key, upper)
