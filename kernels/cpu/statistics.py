"""Numba: what a step's values come to, added up in an order that no chunk or thread can change.

The elements of a PART, which is as much of a unit as LLVM sees in one loop, are added up in registers, in whatever order it takes on this
processor; the sums of parts one after the other, in float64. What is not finite is counted only where the largest magnitude is not.
"""

import numpy as np
from llvmlite import ir
from numba.core import types as nt
from numba.extending import intrinsic, overload

from ..tables import UNIT, UNIT_COUNTS, UNIT_SUMS
from .memory import Variant, load_row
from .trace import TYPES, Value

PART = 4096  # elements


def _n_sums(variant: Variant) -> int:
    return len(UNIT_SUMS) + variant.storage.n_states if variant.storage.measured else 0


def bits_of(variant: Variant) -> nt.Integer:
    """As wide as a number: magnitudes compare as their bits do, and a NaN is larger than infinity."""
    return nt.int64 if variant.compute == nt.float64 else nt.int32


def _of_part(variant: Variant) -> nt.BaseTuple:
    """Sums, the number of zeros, the largest magnitude of a gradient."""
    return nt.Tuple([variant.compute] * _n_sums(variant) + [bits_of(variant)] * (2 if variant.storage.measured else 0))


@intrinsic
def nothing_of_part(typing_context, variant):
    """Before the first element."""

    def build(context, builder, signature, args):
        return context.make_tuple(builder, signature.return_type, [ir.Constant(context.get_value_type(each), 0) for each in kind])

    kind = _of_part(variant)
    return kind(variant), build


def _magnitude(variant: Variant, builder: ir.IRBuilder, number):
    """Its bits."""
    type_ = TYPES[str(bits_of(variant))]
    return builder.and_(builder.bitcast(number, type_), ir.Constant(type_, (1 << variant.compute.bitwidth - 1) - 1))


@intrinsic
def magnitude(typing_context, variant, number):
    return bits_of(variant)(variant, variant.compute), lambda context, builder, signature, args: _magnitude(variant, builder, args[1])


@intrinsic
def measure(typing_context, variant, part, is_one, before, after):
    """The part with one more element, unless it is none; before, after: as load_row() gives them, and what store_row() takes."""

    def build(context, builder, signature, args):
        if not variant.storage.measured:
            return args[1]
        _, part, is_one, before, after = args
        type_ = context.get_value_type(variant.compute)
        fmuladd = builder.module.declare_intrinsic("llvm.fmuladd", [type_], ir.FunctionType(type_, [type_] * 3))
        grad, own = (builder.extract_value(before, v) for v in range(2))
        new = [builder.extract_value(after, v) for v in range(1 + variant.storage.n_states)]
        if variant.storage.variance:  # the square average, as quant.second_moment_of() has it
            new[1] = builder.call(fmuladd, [new[2], new[2], new[1]])
        found = []
        for n, value in enumerate((grad, builder.fsub(new[0], own), *new)):
            value = builder.select(is_one, value, ir.Constant(type_, 0)) if variant.storage.quantized else value
            found.append(builder.call(fmuladd, [value, value, builder.extract_value(part, n)], fastmath=("reassoc",)))
        zeros, largest = (builder.extract_value(part, len(found) + n) for n in range(2))
        size = _magnitude(variant, builder, grad)
        is_zero = builder.icmp_signed("==", size, ir.Constant(size.type, 0))
        is_zero = builder.and_(is_zero, is_one) if variant.storage.quantized else is_zero
        larger = builder.icmp_signed(">", size, largest)  # what is no element is a copy of another
        found += [builder.add(zeros, builder.zext(is_zero, size.type)), builder.select(larger, size, largest)]
        return context.make_tuple(builder, signature.return_type, found)

    return part(variant, part, nt.boolean, before, after), build


@intrinsic
def sums_of(typing_context, variant, part):
    """Sums and the number of zeros, in float64."""

    def build(context, builder, signature, args):
        dtypes = [str(variant.compute)] * _n_sums(variant) + [str(bits_of(variant))]
        values = [Value(builder, builder.extract_value(args[1], n), dtype).to("float64") for n, dtype in enumerate(dtypes)]
        return context.make_tuple(builder, signature.return_type, [value.value for value in values])

    return nt.UniTuple(nt.float64, _n_sums(variant) + 1)(variant, part), build


@intrinsic
def largest_of(typing_context, variant, part):
    """The bits of the largest magnitude."""
    last = len(part) - 1
    return bits_of(variant)(variant, part), lambda context, builder, signature, args: builder.extract_value(args[1], last)


@intrinsic
def number_of(typing_context, variant, bits):
    """What has these bits, in float64."""

    def build(context, builder, signature, args):
        number = Value(builder, args[1], str(bits_of(variant))).to(str(variant.compute), bitcast=True)
        return number.to("float64").value

    return nt.float64(variant, bits_of(variant)), build


def end_of_part(variant, sums, part, bases, begin, end, slots):
    """Replaced by its overload: add a part to what the row of unit_sums holds so far.

    Its elements are those from `begin` up to `end`, at these addresses, or where the values of element 0 wait at `slots`.
    """


@overload(end_of_part)
def _(variant, sums, part, bases, begin, end, slots):
    if not variant.storage.measured:
        return lambda variant, sums, part, bases, begin, end, slots: None
    infinity = np.array(np.inf, variant.compute.name).view(bits_of(variant).name).item()
    n_sums = len(part) - 1  # and the number of zeros

    def end_of_part(variant, sums, part, bases, begin, end, slots):
        found, largest = sums_of(variant, part), largest_of(variant, part)
        for n in range(n_sums):
            sums[n] += found[n]
        if largest >= infinity:
            largest = type_of_bits(0)
            for i in range(begin, end):
                size = magnitude(variant, load_row(variant, bases, i, slots)[0])
                sums[n_sums] += size >= infinity
                if largest < size <= infinity:
                    largest = size
        sums[n_sums + 1] = max(sums[n_sums + 1], number_of(variant, largest))

    type_of_bits = np.dtype(bits_of(variant).name).type
    return end_of_part


def end_of_unit(variant, sums, grad_scale, unit_sums, first_unit, begin, end):
    """Replaced by its overload: at the end of a unit, or of a tensor, write its row, and begin the next.

    first_unit: the tensor's; begin: of the next part in the tensor; end: of the chunk.
    """


@overload(end_of_unit)
def _(variant, sums, grad_scale, unit_sums, first_unit, begin, end):
    if not variant.storage.measured:
        return lambda variant, sums, grad_scale, unit_sums, first_unit, begin, end: None

    def end_of_unit(variant, sums, grad_scale, unit_sums, first_unit, begin, end):
        if begin >= end or begin % UNIT == 0:
            sums[0] *= grad_scale * grad_scale
            sums[sums.size - 1] *= abs(grad_scale)
            unit_sums[first_unit + (begin - 1) // UNIT, :] = sums
            sums[:] = 0

    return end_of_unit


def room_of_sums(variant):
    """Replaced by its overload: room for a row of unit_sums, float64."""


@overload(room_of_sums)
def _(variant):
    if not variant.storage.measured:
        return lambda variant: None
    n = _n_sums(variant) + len(UNIT_COUNTS)
    return lambda variant: np.zeros(n)


def unit_of(variant, first_unit, tensor):
    """Replaced by its overload: where the units of a tensor begin."""


@overload(unit_of)
def _(variant, first_unit, tensor):
    if not variant.storage.measured:
        return lambda variant, first_unit, tensor: 0
    return lambda variant, first_unit, tensor: first_unit[tensor]
