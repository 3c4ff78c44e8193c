"""The Numba driver: the rules of rules.py over the tables of a bucket of CPU tensors."""

import functools
import types

import numba
import numpy as np
from numba.core import types as nt
from numba.extending import overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from .. import fma, quant, rules  # noqa: F401 - tl.fma
from ..caches import cached_njit
from ..lang import clip, is_rule, normal, quotient, reciprocal, rounded_quotient, tl
from ..quant import GROUP, LEAST_SCALE
from ..storage import Storage
from .memory import Variant, chunk_keys, larger, load_row, load_scales, scratch_of, store_codes, store_row
from .threads import Loop, Threads, compile_loop

CHUNK = 1 << 14  # elements: small enough to share among threads, large enough that a chunk's set-up is free
MIN_WORK = 1 << 16  # elements a thread must have before waking it pays

INT32, INT64, FLOAT64 = (nt.Array(dtype, 1, "C") for dtype in (nt.int32, nt.int64, nt.float64))


@overload(tl.sqrt)
def _sqrt(x):
    return lambda x: np.sqrt(x)


@overload(tl.where)
def _where(condition, a, b):
    return lambda condition, a, b: a if condition else b


@numba.njit(error_model="numpy")
def _clip(x, limit):
    x = limit if x > limit else x  # each line is one instruction
    return -limit if x < -limit else x


@numba.njit(error_model="numpy")
def _quotient(x, y):
    return x / y


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
_BUILT_IN = {clip: _clip, quotient: _quotient, rounded_quotient: _quotient, reciprocal: _reciprocal, normal: _normal}


def compile_rule(function, compute: nt.Float):
    """A rule as a Numba function: the rules that it calls compiled too, its float literals of the compute type."""
    if function in _BUILT_IN:
        return _BUILT_IN[function]
    number = np.dtype(compute.name).type
    code = function.fn.__code__
    scope = {"__name__": function.fn.__module__}  # the disk cache imports it
    scope |= {
        name: compile_rule(value, compute) if is_rule(value) or (callable(value) and value in _BUILT_IN) else value
        for name, value in function.fn.__globals__.items()
        if name in code.co_names
    }
    # as float64, literals would widen float32 arithmetic, which runs 2-3 times slower
    consts = tuple(number(const) if isinstance(const, float) else const for const in code.co_consts)
    # error_model: Python's check for division by zero would stop vectorisation
    return numba.njit(types.FunctionType(code.replace(co_consts=consts), scope, code.co_name), error_model="numpy")


def fixed(variant, addresses, tensor, hyper, group):
    """Replaced by its overload: the addresses of one tensor and the hyperparameters of its group, as tuples."""


@overload(fixed)
def _(variant, addresses, tensor, hyper, group):
    n_rows, n_hyper = variant.rows[-1], variant.n_hyper

    def build(variant, addresses, tensor, hyper, group):
        return to_fixed_tuple(addresses[:, tensor], n_rows), to_fixed_tuple(hyper[group], n_hyper)

    return build


def _changes_nothing(variant, hyper):
    """Replaced by its overload: whether all that has a neutral value has it; hyper is a row of hyperparameters."""


def _update(variant, values, norm, hyper):
    """Replaced by its overload: (grad, param, *state), norm, hyperparameters -> (param, *state)."""


def _plain_update(variant, values, hyper):
    """Replaced by its overload: _update with all neutral values, which the compiler drops; they would take half of its time."""


@overload(_changes_nothing)
def _(variant, hyper):
    n_free, neutral = _neutral(variant.compute)

    def changes_nothing(variant, hyper):
        same = True
        for c in range(len(neutral)):
            same &= hyper[n_free + c] == neutral[c]
        return same

    return changes_nothing


@overload(_update)
def _(variant, values, norm, hyper):
    functions = rules.apply, getattr(rules, variant.rule), quant.moment_of, rules.variance_of
    apply, rule, moment_of, variance_of = (compile_rule(function, variant.compute) for function in functions)
    n_common = len(rules.COMMON)

    def update(variant, values, norm, hyper):
        param, state = apply(values[0], values[1], values[2:], norm, hyper[:n_common], hyper[n_common:], rule)
        return (param,) + state

    def update_variance(variant, values, norm, hyper):
        state = (moment_of(values[2], values[3]),) + values[3:]
        param, state = apply(values[0], values[1], state, norm, hyper[:n_common], hyper[n_common:], rule)
        return (param, variance_of(state[0], state[1])) + state[1:]

    if variant.storage.variance:
        return update_variance

    return update


@overload(_plain_update)
def _(variant, values, hyper):
    n_free, neutral = _neutral(variant.compute)
    n_common = len(rules.COMMON)
    no_norm = type(neutral[0])(0)

    def update(variant, values, hyper):
        return _update(variant, values, no_norm, hyper[:n_free] + neutral + hyper[n_common:])

    return update


def unscaled(variant, row, factor):
    """Replaced by its overload: rules.unscaled."""


@overload(unscaled)
def _(variant, row, factor):
    function = compile_rule(rules.unscaled, variant.compute)
    return lambda variant, row, factor: function(row, factor)


def _part_end(variant, begin, end):
    """Replaced by its overload: where the elements from `begin` on end that are handled together: those of a group, or all."""


@overload(_part_end)
def _(variant, begin, end):
    if variant.coded:
        return lambda variant, begin, end: min(begin + GROUP, end)
    return lambda variant, begin, end: end


def _no_peaks(variant):
    """Replaced by its overload: what the scale of a group is at least, for each coded value."""


@overload(_no_peaks)
def _(variant):
    least = (np.int32(LEAST_SCALE),) * len(variant.coded)
    return lambda variant: least


def _neutral(compute: nt.Float):
    """How many of rules.COMMON have no neutral value, which they begin with, and those of the others."""
    number = np.dtype(compute.name).type
    neutral = tuple(number(value) for value in rules.COMMON.values() if value is not None)
    return len(rules.COMMON) - len(neutral), neutral


@cached_njit(nogil=True, error_model="numpy")
def _step(
    variant,  # carries no value: its type says what to compile
    addresses,  # int64 [n_rows, n_tensors]: grad, param, state 0, ..., each in one row or two
    numels,  # int64 [n_tensors], elements
    groups,  # int32 [n_tensors]: row of hyper
    chunk_tensor,  # int32 [n_chunks]
    chunk_start,  # int64 [n_chunks], elements
    hyper,  # compute type [n_groups, n_hyper]
    norm_index,  # int32 [n_tensors]: where in scalars the norm is that limits the gradient
    noise,  # int32 [n_tensors, 3]: two words that no other parameter or seed has, the steps with this one
    origin,  # int64 [n_tensors], elements: where in a parameter the tensor begins, that is a part of it
    scalars,  # float64: as for launch.prepare()
    chunk,  # elements
    first,  # the chunks of this thread: first up to last
    last,
):
    if scalars[0] != 0:
        return
    scratch = scratch_of(variant)
    for k in range(first, last):
        tensor = chunk_tensor[k]
        start = chunk_start[k]
        bases, row = fixed(variant, addresses, tensor, hyper, groups[tensor])
        row = unscaled(variant, row, hyper.dtype.type(scalars[1]))
        norm = hyper.dtype.type(scalars[norm_index[tensor]])
        keys = chunk_keys(variant, (noise[tensor, 0], noise[tensor, 1], noise[tensor, 2]), start, origin[tensor])
        end = min(start + chunk, numels[tensor])
        plain = _changes_nothing(variant, row)
        begin = start
        while begin < end:
            stop = _part_end(variant, begin, end)
            scales = load_scales(variant, bases, begin // GROUP)
            peaks = _no_peaks(variant)
            place = scratch - 4 * begin
            if plain:
                for i in range(begin, stop):
                    values = _plain_update(variant, load_row(variant, bases, i, scales), row)
                    peaks = larger(variant, peaks, values)
                    store_row(variant, bases, i, values, keys, place)
            else:
                for i in range(begin, stop):
                    values = _update(variant, load_row(variant, bases, i, scales), norm, row)
                    peaks = larger(variant, peaks, values)
                    store_row(variant, bases, i, values, keys, place)
            store_codes(variant, bases, begin, stop, peaks, keys, place)
            begin = stop


@functools.cache
def compiled(rule: str, storage: Storage, n_hyper: int) -> Loop:
    """Machine code for one rule and Storage."""
    variant = Variant(rule, storage, getattr(nt, storage.compute), n_hyper)
    hyper, noise = nt.Array(variant.compute, 2, "C"), nt.Array(nt.int32, 2, "C")
    return compile_loop(_step, variant, nt.Array(nt.int64, 2, "C"), INT64, INT32, INT32, INT64, hyper, INT32, noise, INT64, FLOAT64)


def prepare(rule: str, storage: Storage, tables, chunk: int, min_work: int) -> Threads:
    """What does a step of a bucket of CPU tensors; tables: launch.Tables of NumPy arrays."""
    return Threads(compiled(rule, storage, tables.hyper.shape[1]), tables, chunk, min_work)
