"""Arithmetic that knows what rounding may have done to it: a reference whose tolerance follows from its own equations."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

import reference
from cases import EPS32, ROUNDINGS

ENTERING = 6  # roundings of a gradient before a rule sees it: scale, limits, coupled decay
HALF_UNITS = 2  # of what errors are in, that a result may be off by: for terms of second order


class Sized:
    """A value in float64, and the error, in half units of the last place of 1, that a computation in fewer bits may have made.

    Each operation rounds once, and hands on what its operands are wrong by, to first order. What is made of the host's numbers alone is
    exact, and rounded where it meets an element. Torch's functions that rules call take it.
    """

    unit = EPS32  # by which a sign may be told

    def __init__(self, value: Any, error: Any = None, of_host: bool = False):
        self.value = np.asarray(value)
        self.of_host, self.error = of_host, np.zeros_like(self.value, np.float64) if error is None else error

    def _rounded(self) -> Sized:
        return Sized(self.value, np.abs(self.value)) if self.of_host else self

    def _binary(self, other: Any, operation: Any, errors: Any) -> Sized:
        other = sized(other)
        if self.of_host and other.of_host:
            return Sized(operation(self.value, other.value), of_host=True)
        a, b = self._rounded(), other._rounded()
        value = operation(a.value, b.value)
        return Sized(value, errors(a, b, value) + np.abs(value))

    def __add__(self, other: Any) -> Sized:
        return self._binary(other, np.add, lambda a, b, value: a.error + b.error)

    def __mul__(self, other: Any) -> Sized:
        return self._binary(other, np.multiply, lambda a, b, value: np.abs(a.value) * b.error + np.abs(b.value) * a.error)

    def __truediv__(self, other: Any) -> Sized:
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._binary(other, np.divide, lambda a, b, value: (a.error + np.abs(value) * b.error) / np.abs(b.value))

    def __pow__(self, other: Any) -> Sized:
        other = sized(other)
        return Sized(self.value**other.value, of_host=True) if self.of_host else self * self  # the square of an element

    def __neg__(self) -> Sized:
        return Sized(-self.value, self.error, self.of_host)

    def __sub__(self, other: Any) -> Sized:
        return self + -sized(other)

    def __rsub__(self, other: Any) -> Sized:
        return sized(other) - self

    def __rtruediv__(self, other: Any) -> Sized:
        return sized(other) / self

    def __gt__(self, other: Any) -> Sized:
        return Sized(self.value > sized(other).value, of_host=True)

    __radd__, __rmul__ = __add__, __mul__

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Sized:
        return WORDS[function.__name__](*map(sized, args))


def sized(value: Any) -> Sized:
    """A number as the host has it, or a value that is one."""
    return value if isinstance(value, Sized) else Sized(np.float64(value), of_host=True)


def exactly(value: np.ndarray) -> Sized:
    return Sized(value)


def sqrt(x: Sized) -> Sized:
    root = np.sqrt(x.value)
    if x.of_host:
        return Sized(root, of_host=True)
    return Sized(root, np.divide(x.error, 2 * root, out=np.zeros_like(root), where=root > 0) + root)


def sign(x: Sized, unit: float | None = None) -> Sized:
    """Where rounding decides the error is the whole of it."""
    unit = unit or Sized.unit
    unsure = (x.error > 0) & (np.abs(x.value) <= 2 * HALF_UNITS * unit * x.error)
    return Sized(np.sign(x.value), np.where(unsure, 2 / unit, 0.0))


def where(condition: Sized, a: Sized, b: Sized) -> Sized:
    a, b = a._rounded(), b._rounded()
    return Sized(np.where(condition.value, a.value, b.value), np.where(condition.value, a.error, b.error))


def maximum(a: Sized, b: Sized) -> Sized:
    return where(a > b, a, b)


WORDS = dict(sqrt=sqrt, sign=sign, where=where, maximum=maximum)


def _given(option: Any) -> Any:
    if isinstance(option, tuple):
        return tuple(map(_given, option))
    return option if isinstance(option, bool) else sized(option)


def evaluate(function: Any, grad: Sized, param: Sized, state: Mapping[str, Sized], lr: float, numbers: Mapping[str, Any]):
    """The update of a rule, and its new states; numbers: its options, flags as they are, and the step."""
    n = SimpleNamespace(**{name: _given(one) for name, one in numbers.items()})
    kept = SimpleNamespace(**state, replace=lambda **new: {name: sized(one)._rounded() for name, one in new.items()})
    update, new = function(grad, param, kept, Sized(np.float64(lr), np.abs(lr)), n)
    return update, new if isinstance(new, dict) else {}


def written(declared, param, grad, state, norm=0.0, step=1, **options):
    """One step of a declared rule, as reference.rmsprop() of its own; declared: what its class has."""
    grad, size = reference.gradient(param, grad, norm, **options)
    on_update = options["clip_grad_norm"] if options["clip_norm_on"] == "update" else None
    rate = options["lr"] * reference.factor(norm, on_update)
    numbers = {name: options[name] for name in (*declared.numbers, *declared.flags)} | dict(step=float(step))
    kept = {name: exactly(state[name]) for name in declared.states}
    found, states = evaluate(declared.function, Sized(grad, ENTERING * size), exactly(param), kept, rate, numbers)
    new, sizes = ({name: getattr(one, part) for name, one in states.items()} for part in ("value", "error"))
    update, update_size = found.value, found.error * HALF_UNITS / ROUNDINGS
    sizes = {name: one * HALF_UNITS / ROUNDINGS for name, one in sizes.items()}
    if options["caution"]:
        update, update_size = reference.cautious(update, update_size, grad, size)
    new["param"], sizes["param"] = reference.applied(param, update, update_size, **options)
    reference.average(new, sizes, state, step, **options)
    return new, sizes
