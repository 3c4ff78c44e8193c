"""Compute type -> stored dtype, elementwise and by integers alone: the same source, and so the same bits, for both drivers.

`value` is float32 wherever a 16-bit integer or bfloat16 comes out.
"""

from .lang import interpreted, jit, tl

BY_BITS = tl.constexpr(interpreted())  # bfloat16 by integers: the interpreter truncates, and loses subnormal numbers; LLVM casts none


@jit
def upper_half(value, addend):
    """The bfloat16 that value's bits begin with, once `addend` has rounded them."""
    bits = value.to(tl.uint32, bitcast=True) + addend
    bits = tl.where(value != value, 0x7FC00000, bits)  # adding could carry a NaN over into a number
    return (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@jit
def widened(stored, compute: tl.constexpr):
    if BY_BITS and stored.dtype == tl.bfloat16:
        return (stored.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True).to(compute)
    else:
        return stored.to(compute)


@jit
def nearest(value, dtype: tl.constexpr):
    """To nearest, ties to even."""
    if BY_BITS and dtype == tl.bfloat16:
        return upper_half(value, ((value.to(tl.uint32, bitcast=True) >> 16) & 1) + 0x7FFF)
    else:
        return value.to(dtype)


@jit
def stochastic_float16(value, noise):
    bits = value.to(tl.uint32, bitcast=True)
    size = bits & 0x7FFFFFFF
    # float16 keeps 10 bits of 23, but below 2**-14 (bits 0x38800000) it has steps of 2**-24, whatever the exponent
    large = ((size + (noise >> 3)) & 0xFFFFE000).to(tl.float32, bitcast=True)
    small = tl.where(size < 0x38800000, size, 0).to(tl.float32, bitcast=True)
    steps = (small * 16777216.0 + (noise >> 3).to(tl.float32) * 0.0001220703125).to(tl.int32).to(tl.float32)
    rounded = tl.where(size < 0x38800000, steps * 0.000000059604644775390625, large)
    rounded = (rounded.to(tl.uint32, bitcast=True) | (bits & 0x80000000)).to(tl.float32, bitcast=True)
    return tl.where(value != value, value, rounded).to(tl.float16)


@jit
def stochastic(value, noise, dtype: tl.constexpr):
    """Up or down (beyond the largest finite value: to infinity), so that the mean is exact; noise: 16 random bits as uint32."""
    if dtype == tl.bfloat16:
        return upper_half(value, noise)
    else:
        return stochastic_float16(value, noise)


@jit
def split(value):
    """A float32 as a bfloat16 and an int16: to nearest, ties away from 0, for the other 16 bits have no room for one more tie."""
    bits = tl.where(value != value, 0x7FC00000, value.to(tl.uint32, bitcast=True))
    return ((bits + 0x8000) >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True), bits.to(tl.uint16).to(tl.int16, bitcast=True)


@jit
def joined(param, remainder):
    """What split() was given; a parameter that something else has set to 0 or to infinity, beyond which bits mean others, is that."""
    upper = param.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
    bits = upper + remainder.to(tl.int32).to(tl.uint32)
    value = bits.to(tl.float32, bitcast=True)
    return tl.where((value != value) | ((bits ^ upper) > 0x7FFFFFFF), upper.to(tl.float32, bitcast=True), value)


@jit
def shown(master, dtype: tl.constexpr):
    """The 16-bit parameter of a float32 master; in bfloat16 as split() has it, so that both kinds of master give the same run."""
    if dtype == tl.bfloat16:
        return split(master)[0]
    else:
        return master.to(dtype)


@jit
def master_of(param, master):
    """The master, or the parameter where it is no nearest one to the master: there something else has changed it."""
    if param.dtype == tl.bfloat16:  # a tie may have gone either way: split() rounds it away from 0, copies to the even one
        upper = param.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        wide = upper.to(tl.float32, bitcast=True)  # not by `widened`: GPUs give a NaN other bits
        near = master.to(tl.uint32, bitcast=True) + 0x8000 - upper < 0x10001
    else:
        wide = widened(param, tl.float32)
        near = widened(shown(master, param.dtype), tl.float32) == wide
    return tl.where(near, master, wide)


@jit
def mixed(x, key):
    """32 random bits for every x and key, both uint32: each bit of either flips each bit of the result half of the time."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15) ^ key
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@jit
def random_bits(index, keys, stream: tl.constexpr):
    """16 random bits, as uint32, for an element in one of several independent streams, two of which share a hash.

    index: the lower 32 bits of the element's place in its parameter, as uint32; keys: chunk_keys() of its chunk.
    """
    if len(keys) == 2:
        first, second = keys
    else:
        beyond = index < keys[4]
        first, second = tl.where(beyond, keys[2], keys[0]), tl.where(beyond, keys[3], keys[1])
    word = mixed(index ^ first, second + 0x9E3779B9 * (stream // 2))
    return (word >> 16) if stream % 2 else (word & 0xFFFF)


@jit
def keys_of(noise, upper):
    """For places with these upper 32 bits; noise: two words that no other parameter or seed has, and its steps."""
    step = noise[2].to(tl.uint32)
    return mixed(noise[0].to(tl.uint32) ^ step, upper), mixed(noise[1].to(tl.uint32) ^ step, upper)


@jit
def chunk_keys(noise, place, WRAPS: tl.constexpr):
    """What random_bits() takes for a chunk; place: int64, of its first element in its parameter.

    With WRAPS also the keys beyond the next multiple of 2**32, which are those of elements whose lower bits are less than the first's.
    """
    upper = (place >> 32).to(tl.uint32)
    if WRAPS:
        return keys_of(noise, upper) + keys_of(noise, upper + 1) + (place.to(tl.uint32),)
    else:
        return keys_of(noise, upper)
