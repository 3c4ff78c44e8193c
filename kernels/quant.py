"""8-bit and 4-bit states: GROUP consecutive elements share a float32 scale, the largest of their magnitudes.

A code is the root of a value's share of the scale, with the value's sign, in steps of 1 / 127 and 1 / 7, or of 1 / 255 and 1 / 15 where
states are never negative: small values have finer steps. Four 4-bit codes are a word of 16 bits, the first one in its lowest bits.
Elementwise, the same source for both drivers, and the same codes: what is approximated, the root, decides none.
"""

from .lang import jit, tl

GROUP = 64  # elements
PER_WORD = 4  # codes of 4 bits
LEAST_SCALE = 0x0D800000  # bits of 2**-100, as float32: a group of zeros has one too; no code's value comes near the subnormal numbers


@jit
def part_of_scale(code, top):
    """Of the scale, what an 8-bit code stands for."""
    step = 1.0 / top  # times `top` that is 1
    part = code.to(tl.float32) * step
    return part * part if code.dtype == tl.uint8 else part * tl.abs(part)


@jit
def part_in_word(word, place, top, signed: tl.constexpr):
    """The same of the code at a place, 0 to 3, in a word; both uint32. Nothing but the products is rounded."""
    step = ((127 - 4 * place) << 23).to(tl.float32, bitcast=True) * (1.0 / top)  # 16**-place / top
    if signed:  # with 8 more it is never negative
        whole = (((word ^ 0x8888) & (15 << (4 * place))) | 0x4B000000).to(tl.float32, bitcast=True)  # 2**23 and more: the code as it lies
        part = (whole - ((8 << (4 * place)) | 0x4B000000).to(tl.float32, bitcast=True)) * step
        return part * tl.abs(part)
    else:
        whole = ((word & (15 << (4 * place))) | 0x4B000000).to(tl.float32, bitcast=True)
        part = tl.fma(whole, step, step * -8388608.0)
        return part * part


@jit
def inverse(x):
    """1 / x, to 2 units in the last place, of x from 2**-120 to 2**125, by sums and products alone; of infinity, minus infinity."""
    negative = x * -1.0  # -x is 0 - x to Triton, an instruction more
    r = (0x7EF311C3 - x.to(tl.uint32, bitcast=True)).to(tl.float32, bitcast=True)  # off by a twentieth of itself
    error = tl.fma(negative, r, 1.0)
    r = tl.fma(r, tl.fma(error, error, error), r)  # by the third power of that
    return tl.fma(tl.fma(negative, r, 1.0), r, r)


@jit
def squared_codes(scale, top):
    """What magnitudes are multiplied by to become squares of codes: a little less, so that a code that is exact, whatever its rounding
    errors, is always rounded up."""
    return inverse(scale * (1.0000019073486328 / (top * top)))


@jit
def quantize_magnitude(value, per_square, random, top, keep: tl.constexpr):
    """The code of a value's magnitude, as int32: rounded up or down with the probabilities that make the mean of its value exact.

    But to the step where it is within 2**-12 of one: the scale, and what was just dequantized, keep their codes; and, with `keep`, up to 1
    where it is less. per_square: of squared_codes(); random: 16 random bits, as uint32.
    """
    square = tl.abs(value * per_square)
    square = tl.where(square < top * top, square, top * top)  # of a NaN too: where the scale is infinite, all codes are the largest
    whole = tl.sqrt(square).to(tl.int32)  # one too many or too few next to a step is no matter: both lead to it
    low = whole.to(tl.float32)
    # twice low + 0.5, in 2**16ths less 2**-11 of it: exact
    first = tl.where(low < 0.000015251338481903076, low, 0.000015251338481903076) if keep else 0.000015251338481903076
    chance = tl.fma(low, 0.000030502676963806152, first)
    missing = tl.fma(random.to(tl.float32), chance, tl.fma(low, low, square * -1.0))
    return whole + (missing.to(tl.uint32, bitcast=True) >> 31).to(tl.int32)  # its sign: one more where it is negative


@jit
def quantize(value, per_square, random, top, signed: tl.constexpr):
    """The code, as int32; what is not 0 stays so where states are never negative, for gradients are divided by it: down to 2**-140 of the
    scale, below which its square underflows."""
    if signed:
        code = quantize_magnitude(value, per_square, random, top, False)
        return tl.where(value < 0.0, -code, code)
    else:
        return quantize_magnitude(value, per_square, random, top, True)


@jit
def second_moment_of(variance, grad_avg):
    """The square average of what is kept as a variance: as codes, neither it nor grad_avg² could be subtracted from the other."""
    return tl.fma(grad_avg, grad_avg, variance)
