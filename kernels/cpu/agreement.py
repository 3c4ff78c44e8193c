"""Numba: what gpu/agreement.py does."""

import functools

import numpy as np
from numba.core import types as nt
from numba.extending import overload

from .. import quant, rules
from ..caches import cached_njit
from ..rule import RULES
from ..storage import Storage
from ..tables import UNSCALE, AgreementTables
from .groups import scratch_of, unpack_group
from .language import compile_rule
from .last_group import whole_group
from .memory import Variant, load_row
from .packed import values_at
from .step import args_of, array, column, common_of, packed, part_size
from .threads import Loop, Threads, compile_loop

NONE, ONE = np.int32(0), np.int32(1)


def _agrees(variant, values, grad_scale, norm, common, args):
    """Replaced by its overload: rules.agrees of (grad, param, *state), and the parameter's average."""


@overload(_agrees)
def _(variant, values, grad_scale, norm, common, args):
    functions = rules.agrees, RULES[variant.rule].function, quant.second_moment_of
    agrees, rule, second_moment_of = (compile_rule(function, variant.compute) for function in functions)
    end = len(values) - variant.storage.average

    if variant.storage.variance:

        def with_variance(variant, values, grad_scale, norm, common, args):
            state = (second_moment_of(values[2], values[3]),) + values[3:end]
            return agrees(values[0], values[1], state, grad_scale, norm, common, args, rule)

        return with_variance

    return lambda variant, values, grad_scale, norm, common, args: agrees(
        values[0], values[1], values[2:end], grad_scale, norm, common, args, rule
    )


@cached_njit(nogil=True, error_model="numpy")
def _count(variant, tables_at, chunk, first, last, agreed):
    """What a thread counts: chunks `first` up to `last`; arguments as in step.py, of AgreementTables."""
    tables = values_at(tables_at)
    addresses, numels, groups, hyper, norm_index = tables.addresses, tables.numels, tables.groups, tables.hyper, tables.norm_index
    chunk_tensor, chunk_start, scalars = tables.chunk_tensor, tables.chunk_start, tables.scalars
    scratch = scratch_of(variant)
    for k in range(first, last):
        tensor = chunk_tensor[k]
        start = chunk_start[k]
        end = min(start + chunk, numels[tensor])
        bases = column(variant, addresses, tensor)
        common, args = common_of(variant, hyper, groups[tensor]), args_of(variant, hyper, groups[tensor])
        grad_scale = common.grad_scale * hyper.dtype.type(scalars[UNSCALE])
        norm = hyper.dtype.type(scalars[norm_index[tensor]])
        count = 0.0
        begin = start
        while begin < end:
            size = part_size(variant, begin, end)
            part = whole_group(variant, bases, begin, end, scratch)
            slots = scratch - 4 * begin
            unpack_group(variant, part, begin, slots)
            found = NONE
            for i in range(begin, min(begin + size, end)):
                agree = _agrees(variant, load_row(variant, part, i, slots), grad_scale, norm, common, args)
                found = np.int32(found + (ONE if agree else NONE))  # Numba makes sums of 64 bits, half as many at a time
            count += found
            begin += size
        agreed[k] = count


@functools.cache
def _compiled(rule: str, storage: Storage) -> Loop:
    variant = Variant(rule, storage, getattr(nt, storage.compute))
    return compile_loop(_count, variant, packed(AgreementTables, variant.compute), array("agreed"))


def prepare(rule: str, storage: Storage, tables: AgreementTables, chunk: int, min_work: int) -> Threads:
    """What counts for a bucket of CPU tensors, whose tables are NumPy arrays."""
    return Threads(_compiled(rule, storage), tables, chunk, min_work)
