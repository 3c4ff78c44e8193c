"""Interval arithmetic with rounding errors.

An Interval holds every result that some order of rounding, fused or not, could give; `sure` says where that is known: not where a
number overflows or is no number.
"""

import numpy as np

WIDE = np.longdouble
NONE = WIDE(0)


class Unit:
    """How a compute type rounds, and how far approximations are off, in units of its rounding."""

    def __init__(self, compute: str, approximate: bool):
        self.compute = compute
        self.u, self.tiny, self.normal, self.largest = (
            (WIDE(2.0) ** -24, WIDE(2.0) ** -149, WIDE(2.0) ** -126, WIDE(2.0) ** 127)
            if compute == "float32"
            else (WIDE(2.0) ** -53, WIDE(2.0) ** -1074, NONE, WIDE(2.0) ** 1023)
        )
        exact = compute == "float64" or not approximate
        self.sqrt, self.divide = (1, 1) if exact else (2, 4)  # 2**-23; two units in the last place
        self.quotient = 1 if compute == "float64" else 4 if exact else 2 * 2.0**1.1 + 2  # twice an rsqrt of 2**-22.9, two products


class Interval:
    def __init__(self, unit: Unit, low, high=None, sure=True):
        self.unit, self.low = unit, np.asarray(low, WIDE)
        self.high, self.sure = self.low if high is None else np.asarray(high, WIDE), sure

    def _of(self, *ends, error=1.0, sure=True) -> "Interval":
        low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
        sure = sure & np.isfinite(low) & np.isfinite(high) & (np.maximum(np.abs(low), np.abs(high)) < self.unit.largest)
        step = [np.where(end == 0, NONE, np.abs(end) * self.unit.u * error + self.unit.tiny) for end in (low, high)]
        return Interval(self.unit, low - step[0], high + step[1], sure)

    def _other(self, other) -> "Interval":
        return other if isinstance(other, Interval) else Interval(self.unit, other)

    def __neg__(self):
        return Interval(self.unit, -self.high, -self.low, self.sure)

    def __add__(self, other):
        other = self._other(other)
        return self._of(self.low + other.low, self.high + other.high, sure=self.sure & other.sure)

    def __sub__(self, other):
        return self + -self._other(other)

    def __mul__(self, other):
        other = self._other(other)
        return self._of(*(a * b for a in (self.low, self.high) for b in (other.low, other.high)), sure=self.sure & other.sure)

    def divided(self, other, error: float) -> "Interval":
        """By what is positive; where it may be flushed to 0 nothing is known."""
        other = self._other(other)
        ends = (a / b for a in (self.low, self.high) for b in (other.low, other.high))
        return self._of(*ends, error=error, sure=self.sure & other.sure & (other.low > self.unit.normal))

    def root(self):
        """Of what rounding may have made negative, and a GPU flushes to 0."""
        low, high = np.where(self.low < self.unit.normal, NONE, self.low), np.maximum(self.high, 0)
        return self._of(np.sqrt(low), np.sqrt(high), error=self.unit.sqrt, sure=self.sure & (self.high >= 0))

    def at_least(self, least):
        return Interval(self.unit, np.maximum(self.low, least), np.maximum(self.high, least), self.sure)

    def at_most(self, other):
        other = self._other(other)
        return Interval(self.unit, np.minimum(self.low, other.low), np.minimum(self.high, other.high), self.sure & other.sure)

    def clipped(self, limit, infinite: bool = False):
        """infinite: what is too large for its type, but a number, is so again."""
        sure = self.sure | (infinite & ~np.isnan(self.low) & ~np.isnan(self.high) & (limit < self.unit.largest))
        return Interval(self.unit, np.clip(self.low, -limit, limit), np.clip(self.high, -limit, limit), sure)
