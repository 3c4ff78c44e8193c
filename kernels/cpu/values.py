"""A rule on values alone, as the step calls it: what is compared with the other driver."""

import functools

import numpy as np
from numba.core import types as nt
from numba.extending import overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from ..caches import cached_njit
from ..rule import RULES
from ..storage import Storage
from .language import compile_rule
from .memory import Variant


def _put(results, values):
    """Replaced by its overload: write a tuple's values, of whatever types, to an array."""


@overload(_put)
def _(results, values):
    if not len(values):
        return lambda results, values: None

    def put(results, values):
        results[0] = values[0]
        _put(results[1:], values[1:])

    return put


def _call(variant, values, numbers, results):
    """Replaced by its overload: write the update and the new states of one element."""


@overload(_call)
def _(variant, values, numbers, results):
    rule = compile_rule(RULES[variant.rule].function, variant.compute)
    n_states, n_args = variant.storage.n_states, len(RULES[variant.rule].numbers)

    def call(variant, values, numbers, results):
        state, args = to_fixed_tuple(values[2:], n_states), to_fixed_tuple(numbers[1:], n_args)
        update, new = rule(values[0], values[1], state, numbers[0], args)
        _put(results, (update,) + new)

    return call


@cached_njit(error_model="numpy")
def _values(variant, values, numbers, results):
    """As values_kernel of gpu/values.py."""
    for i in range(values.shape[1]):
        _call(variant, values[:, i], numbers, results[:, i])


@functools.cache
def _compiled(rule: str, n_values: int, dtype: str):
    compute = getattr(nt, dtype)
    variant, table = Variant(rule, Storage(((dtype,),) * n_values), compute), nt.Array(compute, 2, "C")
    return functools.partial(_values.compile((variant, table, nt.Array(compute, 1, "C"), table)), variant)


def values_of(rule: str, values: np.ndarray, numbers: np.ndarray, results: np.ndarray) -> None:
    """Write a rule's update and new states, [1 + n_states, n], of grad, param and states, [2 + n_states, n], and lr and its numbers."""
    _compiled(rule, len(values), values.dtype.name)(values, numbers, results)
