"""8-bit states: GROUP consecutive elements share a float32 scale, the largest of their magnitudes.

A code is the root of a value's share of the scale, with the value's sign, in steps of 1 / 127, or of 1 / 255 where states are
never negative: small values have finer steps. Elementwise, the same source for both drivers.
"""

from .lang import jit, tl

GROUP = 64  # elements
PER_WORD = 4  # codes of 4 bits
LEAST_SCALE = 0x0D800000  # bits of 2**-100, as float32: a group of zeros has one too; no code's value comes near the subnormal numbers


@jit
def dequantize(code, scale):
    if code.dtype == tl.uint8:
        part = code.to(tl.float32) * 0.00392156862745098  # 255 becomes 1
        return scale * (part * part)
    else:
        part = code.to(tl.float32) * 0.007874015748031496  # 127 becomes 1
        return scale * (part * tl.abs(part))


@jit
def quantize_magnitude(size, scale, random, top):
    """The code of a magnitude, as int32: rounded up or down with the probabilities that make the mean of its value exact.

    But to the step where it is within 2**-12 of one: the scale, and what was just dequantized, keep their codes. `square` is
    a little less than the square of the code, so that a code that is exact, whatever its rounding errors, is always rounded up.
    """
    square = size * (top * top * 0.9999980926513672 / scale)
    square = tl.where(square < top * top, square, top * top)
    whole = tl.sqrt(square).to(tl.int32)
    low = whole.to(tl.float32)
    # twice low + 0.5, in 2**16ths less 2**-11 of it: exact
    chance = tl.fma(low, 0.000030502676963806152, 0.000015251338481903076)
    missing = tl.fma(random.to(tl.float32), chance, tl.fma(low, low, square * -1.0))  # -x is 0 - x to Triton, an instruction more
    return whole + (missing.to(tl.uint32, bitcast=True) >> 31).to(tl.int32)  # its sign: one more where it is negative


@jit
def quantize(value, scale, random, dtype: tl.constexpr):
    """random: 16 random bits, as uint32."""
    if dtype == tl.uint8:
        least = tl.minimum(value.to(tl.uint32, bitcast=True), 1).to(tl.int32)  # what is not 0 stays so: gradients are divided by it
        return tl.maximum(quantize_magnitude(value, scale, random, 255.0), least).to(tl.uint8)
    else:
        code = quantize_magnitude(tl.abs(value), scale, random, 127.0)
        return tl.where(value < 0.0, -code, code).to(tl.int8)


@jit
def second_moment_of(variance, grad_avg):
    """The square average of what is kept as a variance: as codes, neither it nor grad_avg² could be subtracted from the other."""
    return tl.fma(grad_avg, grad_avg, variance)
