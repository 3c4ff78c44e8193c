"""Compute type -> stored dtype."""

from .lang import interpreted, jit, tl

INTERPRETED = tl.constexpr(interpreted())


@jit
def nearest(value, dtype: tl.constexpr):
    """To nearest, ties to even."""
    if INTERPRETED and dtype == tl.bfloat16:  # the interpreter's own cast truncates
        bits = value.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = tl.where(value != value, 0x7FC0, rounded)  # adding could carry a NaN over into a number
        return rounded.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return value.to(dtype)
