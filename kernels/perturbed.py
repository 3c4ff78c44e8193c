"""A rule on NumPy's float64, each operand off by the rounding of a type at random: how far apart results may be that only round otherwise.

Stochastic arithmetic (Parker 1997, "Monte Carlo Arithmetic"): a bound that is derived from what the rule computes, whichever it is.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from .lang import twin
from .rule import Rule

UNITS = 8  # in the last place: of what GPUs approximate quotient() is off by 6
WHOLE = 2.0**24  # up to here whole numbers count as exact: 0, a sign, a step


class Rounding:
    """What operands are off by.

    Args:
        dtype: of the arithmetic.
        shape: of samples and elements; the first sample is exact.
        seed: of what is random.
    """

    def __init__(self, dtype: str, shape: tuple[int, int], seed: int):
        info = np.finfo(dtype)
        self.dtype, self.shape = info.dtype, shape
        self.unit, self.tiny, self.most = (float(each) for each in (UNITS * info.eps / 2, info.tiny, info.max))
        self._random = np.random.default_rng(seed)

    def values(self, array: Any) -> "Values":
        """Elements, or a number: the same in each sample."""
        array = np.asarray(array, np.float64)
        return Values(np.broadcast_to(array, self.shape if array.ndim else (self.shape[0], 1)), self)

    def held(self, x: Any) -> Any:
        """Samples of another rounding, as numbers of this one."""
        return Values(x.value, self) if isinstance(x, Values) else x

    def off(self, x: Any) -> Any:
        """An operand, perturbed."""
        value = x.value if isinstance(x, Values) else x
        if isinstance(x, Values) and value.dtype.kind == "f":
            by = self._random.uniform(-1, 1, value.shape)
        elif isinstance(x, float) and self.dtype.type(x) != x and x == x:
            by = self._random.uniform(-1, 1, (self.shape[0], 1))
        else:
            return value
        by[0] = 0
        whole = (np.rint(value) == value) & (np.abs(value) <= WHOLE)
        moved = np.where(whole, value, value + by * (self.unit * np.abs(value) + self.tiny))
        moved = np.where((np.abs(moved) < self.tiny) & (by < 0), 0.0, moved)  # GPUs take subnormal numbers for 0
        return np.where(np.abs(moved) > self.most, np.copysign(np.inf, moved), moved)


class Values(NDArrayOperatorsMixin):
    """Samples of values [samples, elements], or of a number [samples, 1]."""

    def __init__(self, value: np.ndarray, rounding: Rounding):
        self.value, self.rounding = value, rounding

    def __array_ufunc__(self, ufunc, method, *operands, **options):
        return Values(ufunc(*map(self.rounding.off, operands), **options), self.rounding)


def where(condition: Any, a: Any, b: Any) -> Any:
    if not isinstance(condition, Values):
        return a if condition else b
    plain = (x.value if isinstance(x, Values) else x for x in (condition, a, b))
    return Values(np.where(*plain), condition.rounding)


def _like(x: Values, value: Any) -> Values:
    return Values(np.zeros(x.value.shape) + x.rounding.off(value), x.rounding)


_TL = SimpleNamespace(
    sqrt=np.sqrt,
    rsqrt=lambda x: 1.0 / np.sqrt(x),
    abs=np.abs,
    exp=np.exp,
    log=np.log,
    where=where,
    fma=lambda x, y, z: x * y + z,
)
_FOUND: dict[str, Any] = dict(
    tl=_TL,
    at_least=np.maximum,
    larger=np.maximum,
    smaller=np.minimum,
    clip=lambda x, limit: np.minimum(np.maximum(x, -limit), limit),
    quotient=np.divide,
    rounded_quotient=np.divide,
    reciprocal=lambda y: 1.0 / y,
    normal=lambda x: np.maximum(x, x.rounding.tiny if isinstance(x, Values) else 0.0),
    like=_like,
)


HOST: dict[str, Any] = dict(
    power=np.power,
    sqrt=np.sqrt,
    exp=np.exp,
    log=np.log,
    as_float=lambda x: x * 1.0,
    where=where,
    larger=np.maximum,
    smaller=np.minimum,
    inf=np.inf,
    nan=np.nan,
)  # what numbers are computed with on the host


def perturbed(rule: Rule, rounding: Rounding, values: np.ndarray, lr: float, numbers: list[Any]) -> np.ndarray:
    """Samples [samples, 1 + n_states, elements] of the update and the new states.

    Args:
        values: grad, param, states: [2 + n_states, elements].
        numbers: the rule's, floats or Values.
    """
    grad, param, *state = map(rounding.values, values)
    args = tuple(number if isinstance(number, Values) else rounding.values(number) for number in numbers)
    with np.errstate(all="ignore"):
        update, new = twin(rule.function, _FOUND)(grad, param, tuple(state), rounding.values(lr), args)
        return np.stack([np.broadcast_to(rounding.off(each), rounding.shape) for each in (update, *new)], axis=1)
