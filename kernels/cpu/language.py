"""The language of the rules for Numba: what they call of tl, and how one is compiled."""

import functools
import types

import numba
import numpy as np
from numba.core import types as nt
from numba.extending import overload

from .. import fma  # noqa: F401 - tl.fma
from ..lang import at_least, clip, constant, is_rule, larger, like, normal, quotient, reciprocal, rounded_quotient, smaller, tl


@overload(tl.sqrt)
def _sqrt(x):
    return lambda x: np.sqrt(x)


@overload(tl.rsqrt)
def _rsqrt(x):
    one = np.dtype(x.name).type(1)  # a literal 1 would make float64 of a float32
    return lambda x: one / np.sqrt(x)


@overload(tl.abs)
def _abs(x):
    return lambda x: np.abs(x)


@overload(tl.exp)
def _exp(x):
    return lambda x: np.exp(x)


@overload(tl.log)
def _log(x):
    return lambda x: np.log(x)


@overload(tl.where)
def _where(condition, a, b):
    return lambda condition, a, b: a if condition else b


@numba.njit(error_model="numpy")
def _at_least(x, least):
    return least if x < least else x


@numba.njit(error_model="numpy")
def _clip(x, limit):
    x = limit if x > limit else x  # each line is one instruction
    return -limit if x < -limit else x


@numba.njit(error_model="numpy")
def _quotient(x, y):
    return x / y


@numba.njit(error_model="numpy")
def _larger(x, y):
    x = y if x < y else x
    return x if y == y else y


@numba.njit(error_model="numpy")
def _smaller(x, y):
    x = y if x > y else x
    return x if y == y else y


@numba.njit(error_model="numpy")
def _like(x, value):
    return value


def _reciprocal(y):
    """Replaced by its overload: lang.reciprocal."""


@overload(_reciprocal)
def _(y):
    if y == nt.float64:
        return lambda y: 1 / y
    one, most, mask = np.float32(1), np.float32(2.0**126), np.uint32(0xFFFFFFFE)

    def reciprocal(y):
        y = most if y > most else y
        return one / np.uint32(np.float32(y).view(np.uint32) & mask).view(np.float32)

    return reciprocal


def _normal(x):
    """Replaced by its overload: lang.normal."""


@overload(_normal)
def _(x):
    least = np.finfo(x.name).tiny
    return lambda x: x if x > least else least


# written otherwise for GPUs
_BUILT_IN = {at_least: _at_least, clip: _clip, quotient: _quotient, rounded_quotient: _quotient, reciprocal: _reciprocal, normal: _normal}
_BUILT_IN |= {larger: _larger, smaller: _smaller, like: _like}


def _compiled(value, compute: nt.Float):
    """What a rule finds under a global name."""
    if is_rule(value) or (callable(value) and value in _BUILT_IN):
        return compile_rule(value, compute)
    value = constant(value)
    return np.dtype(compute.name).type(value) if isinstance(value, float) else value


@functools.cache  # all storage formats share it: to compile it takes half of a loop's time
def compile_rule(function, compute: nt.Float):
    """A rule as a Numba function: the rules that it calls compiled too, its float literals of the compute type."""
    if function in _BUILT_IN:
        return _BUILT_IN[function]
    number = np.dtype(compute.name).type
    code = function.fn.__code__
    scope = {"__name__": function.fn.__module__}  # the disk cache imports it
    scope |= {name: _compiled(value, compute) for name, value in function.fn.__globals__.items() if name in code.co_names}
    # as float64, literals would widen float32 arithmetic, which runs 2-3 times slower
    consts = tuple(number(const) if isinstance(const, float) else const for const in code.co_consts)
    # error_model: Python's check for division by zero would stop vectorisation
    return numba.njit(types.FunctionType(code.replace(co_consts=consts), scope, code.co_name), error_model="numpy")
