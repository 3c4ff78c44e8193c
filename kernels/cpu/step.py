"""The Numba driver: the rules of rules.py over the tables of a bucket of CPU tensors."""

import functools

import numba
import numpy as np
from numba.core import types as nt
from numba.extending import overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from .. import quant, rules
from ..caches import cached_njit
from ..quant import GROUP, LEAST_SCALE
from ..rule import RULES
from ..rules import NEUTRAL, Common
from ..storage import Storage
from ..tables import SKIP, TYPES, UNSCALE, Tables, dtype_of
from .groups import larger, pack_group, scratch_of, unpack_group
from .language import compile_rule
from .last_group import whole_group, write_back
from .memory import Variant, chunk_keys, load_row, prefetch_rows, store_row
from .packed import Address, values_at
from .statistics import PART, end_of_part, end_of_unit, measure, nothing_of_part, room_of_sums, unit_of
from .threads import Loop, Threads, compile_loop

AHEAD = 3  # chunks that memory is asked for before they are updated
CHUNK = 1 << 14  # elements: small enough to share among threads, large enough that a chunk's set-up is free

N_COMMON = len(Common._fields)
N_FREE = 3  # lr and grad_scale, which every loop multiplies by, and ema_weight, which only averages are made with


def column(variant, addresses, tensor):
    """Replaced by its overload: the addresses of one tensor, as a tuple."""


@overload(column)
def _(variant, addresses, tensor):
    n_rows = variant.rows[-1]
    return lambda variant, addresses, tensor: to_fixed_tuple(addresses[:, tensor], n_rows)


def common_of(variant, hyper, group):
    """Replaced by its overload: the Common numbers of a group."""


@overload(common_of)
def _(variant, hyper, group):
    return lambda variant, hyper, group: Common(*to_fixed_tuple(hyper[group], N_COMMON))


def args_of(variant, hyper, group):
    """Replaced by its overload: the numbers that the rule takes alone."""


@overload(args_of)
def _(variant, hyper, group):
    n_args = len(RULES[variant.rule].numbers)
    return lambda variant, hyper, group: to_fixed_tuple(hyper[group, N_COMMON:], n_args)


def _changes_nothing(variant, common):
    """Replaced by its overload: whether all that has a neutral value has it."""


def _update(variant, values, grad_scale, norm, boost, common, args):
    """Replaced by its overload: values are (grad, param, *state), and the parameter's average; the result is the same but for grad."""


def _plain_update(variant, values, grad_scale, boost, common, args):
    """Replaced by its overload: _update with all neutral values, which the compiler drops; they would take half of its time."""


@overload(_changes_nothing)
def _(variant, common):
    neutral = _neutral(variant.compute)

    def changes_nothing(variant, common):
        same = True
        for c in range(len(neutral)):
            same &= common[N_FREE + c] == neutral[c]
        return same

    return changes_nothing


@overload(_update)
def _(variant, values, grad_scale, norm, boost, common, args):
    functions = rules.apply, RULES[variant.rule].function, quant.second_moment_of, rules.variance_of
    apply, rule, second_moment_of, variance_of = (compile_rule(function, variant.compute) for function in functions)
    cautious = variant.storage.cautious

    def update(variant, values, grad_scale, norm, boost, common, args):
        param, state = apply(values[0], values[1], values[2:], grad_scale, norm, boost, common, args, rule, cautious)
        return (param,) + state

    def update_variance(variant, values, grad_scale, norm, boost, common, args):
        state = (second_moment_of(values[2], values[3]),) + values[3:]
        param, state = apply(values[0], values[1], state, grad_scale, norm, boost, common, args, rule, cautious)
        return (param, variance_of(state[0], state[1])) + state[1:]

    own = update_variance if variant.storage.variance else update
    if not variant.storage.average:
        return own
    own, averaged = numba.njit(own, error_model="numpy"), compile_rule(rules.averaged, variant.compute)

    def update_average(variant, values, grad_scale, norm, boost, common, args):
        new = own(variant, values[:-1], grad_scale, norm, boost, common, args)
        return new + (averaged(values[-1], new[0], common),)

    return update_average


@overload(_plain_update)
def _(variant, values, grad_scale, boost, common, args):
    neutral = _neutral(variant.compute)
    no_norm = type(neutral[0])(0)

    def update(variant, values, grad_scale, boost, common, args):
        return _update(variant, values, grad_scale, no_norm, boost, Common(*(common[:N_FREE] + neutral)), args)

    return update


def _boost_of(variant, boosts, tensor):
    """Replaced by its overload: what a tensor's updates are multiplied by where they agree with their gradients."""


@overload(_boost_of)
def _(variant, boosts, tensor):
    number = np.dtype(variant.compute.name).type
    one = number(1)
    if variant.storage.cautious:
        return lambda variant, boosts, tensor: number(boosts[tensor])
    return lambda variant, boosts, tensor: one


def part_size(variant, begin, end):
    """Replaced by its overload: how many elements from `begin` on are handled together: those of a group, or all."""


@overload(part_size)
def _(variant, begin, end):
    if variant.storage.quantized:
        return lambda variant, begin, end: GROUP  # a constant, so that loops have no remainder: 0.8 to 0.9 of the time
    if variant.storage.measured:
        return lambda variant, begin, end: min(PART, end - begin)
    return lambda variant, begin, end: end - begin


def _no_peaks(variant):
    """Replaced by its overload: what the scale of a group is at least, for each quantized value."""


@overload(_no_peaks)
def _(variant):
    least = (np.int32(LEAST_SCALE),) * len(variant.storage.quantized)
    return lambda variant: least


def _neutral(compute: nt.Float):
    """The neutral values of Common's others, of the compute type; with those of a rule's own numbers a CPU computes as fast as without."""
    return tuple(np.dtype(compute.name).type(NEUTRAL[name]) for name in Common._fields[N_FREE:])


@cached_njit(nogil=True, error_model="numpy")
def _step(variant, tables_at, chunk, first, last, scalars):
    """What a thread updates: chunks `first` up to `last`, each of `chunk` elements.

    variant: carries no value, its type says what to compile; tables_at: where Tables are packed; scalars: as tables.py has them.
    """
    if scalars[SKIP] != 0:
        return
    tables = values_at(tables_at)
    # once: to take an array out of a tuple costs an atomic count
    addresses, numels, groups, hyper, norm_index = tables.addresses, tables.numels, tables.groups, tables.hyper, tables.norm_index
    chunk_tensor, chunk_start, random_key, shard_offset = tables.chunk_tensor, tables.chunk_start, tables.random_key, tables.shard_offset
    boosts = tables.boosts
    first_unit, unit_sums = tables.first_unit, tables.unit_sums
    scratch, sums = scratch_of(variant), room_of_sums(variant)
    for k in range(first, last):
        ahead = min(k + AHEAD, last - 1)
        prefetch_rows(variant, column(variant, addresses, chunk_tensor[ahead]), chunk_start[ahead])
        tensor = chunk_tensor[k]
        start = chunk_start[k]
        end = min(start + chunk, numels[tensor])
        bases = column(variant, addresses, tensor)
        common, args = common_of(variant, hyper, groups[tensor]), args_of(variant, hyper, groups[tensor])
        grad_scale = common.grad_scale * hyper.dtype.type(scalars[UNSCALE])
        norm = hyper.dtype.type(scalars[norm_index[tensor]])
        boost = _boost_of(variant, boosts, tensor)
        words = random_key[tensor, 0], random_key[tensor, 1], random_key[tensor, 2]
        keys = chunk_keys(variant, words, start, shard_offset[tensor])
        plain = _changes_nothing(variant, common)
        begin = start
        while begin < end:
            size = part_size(variant, begin, end)
            part = whole_group(variant, bases, begin, end, scratch)
            slots = scratch - 4 * begin  # where the values of element 0 would wait
            unpack_group(variant, part, begin, slots)
            peaks, part_sums = _no_peaks(variant), nothing_of_part(variant)
            if plain:
                for i in range(begin, begin + size):
                    before = load_row(variant, part, i, slots)
                    values = _plain_update(variant, before, grad_scale, boost, common, args)
                    part_sums = measure(variant, part_sums, i < end, before, values)
                    peaks = larger(variant, peaks, values)
                    store_row(variant, part, i, values, keys, slots)
            else:
                for i in range(begin, begin + size):
                    before = load_row(variant, part, i, slots)
                    values = _update(variant, before, grad_scale, norm, boost, common, args)
                    part_sums = measure(variant, part_sums, i < end, before, values)
                    peaks = larger(variant, peaks, values)
                    store_row(variant, part, i, values, keys, slots)
            pack_group(variant, part, begin, peaks, keys, slots)
            write_back(variant, bases, begin, end, scratch)
            end_of_part(variant, sums, part_sums, part, begin, min(begin + size, end), slots)
            begin += size
            end_of_unit(variant, sums, grad_scale, unit_sums, unit_of(variant, first_unit, tensor), begin, end)


def array(name: str, compute: nt.Float = nt.float64) -> nt.Array:
    """The type of a table."""
    return nt.Array(getattr(nt, dtype_of(name, compute.name)), TYPES[name][1], "C")


def packed(kind: type, compute: nt.Float) -> Address:
    """The type of where Tables or NormTables are packed."""
    return Address(nt.NamedTuple([array(name, compute) for name in kind._fields], kind))


@functools.cache
def compiled(rule: str, storage: Storage) -> Loop:
    """Machine code for one rule and Storage."""
    variant = Variant(rule, storage, getattr(nt, storage.compute))
    return compile_loop(_step, variant, packed(Tables, variant.compute), array("scalars"))


def prepare(rule: str, storage: Storage, tables: Tables, chunk: int, min_work: int) -> Threads:
    """What does a step of a bucket of CPU tensors, whose tables are NumPy arrays."""
    return Threads(compiled(rule, storage), tables, chunk, min_work)
