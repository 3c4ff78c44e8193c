"""Numba: typed loads and stores at addresses, the counterpart of memory.py.

A value lies in one row of addresses or in two, as there. Elements are handled one by one, but the codes of a group need the largest
of their magnitudes first. So where there are codes, what is not float32 is unpacked into scratch, updated there and packed again: see
groups.py.

Accesses have align=1, since tensors may lie anywhere. On x86-64 and ARM64 they are the same instructions all the same: none takes less
than an element, so one that lies at a multiple of its size is never torn, whoever shares it.
"""

import itertools
from functools import partial

from llvmlite import ir
from numba.core import cgutils
from numba.core import types as nt
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from .. import quant, rounding
from ..quant import GROUP, PER_WORD
from ..storage import ITEMSIZE, MASTER, PLAIN, QUANTIZED, SPLIT, TOP, WORDS, Storage
from .trace import TYPES, Value, traced

WORD, FLOAT = TYPES["int64"], TYPES["float32"]
BYTE, _INT = ir.IntType(8), ir.IntType(32)
LINE = 64  # bytes that memory comes in


class Variant(nt.Opaque):
    """What a loop is compiled for, as a type: Numba compiles once for each, and names its disk cache by it.

    Args:
        rule: its name in rules.py.
        storage: what the rows of addresses point at.
        compute: what arithmetic is done in.

    Attributes:
        rows: the first row of addresses of grad, param, state 0, ..., and their number.
        unpacked: which values wait in scratch.
        in_words: which have codes of 4 bits.
    """

    def __init__(self, rule: str, storage: Storage, compute: nt.Float):
        super().__init__(f"Variant({rule}, {storage}, {compute})")
        self.rule, self.storage, self.compute = rule, storage, compute
        self.rows = list(itertools.accumulate(map(len, storage.dtypes), initial=0))
        values = range(1, len(storage.dtypes)) if storage.quantized else ()  # the gradient is only read
        self.unpacked = [v for v in values if storage.dtypes[v] != ("float32",)]
        self.in_words = [v for v in storage.quantized if storage.dtypes[v][0] in WORDS]

    def top(self, v: int) -> float:
        """The largest code of a quantized value."""
        return float(TOP[self.storage.dtypes[v][0]])


register_model(Variant)(models.OpaqueModel)


@unbox(Variant)
def _(variant, value, c):
    return NativeValue(c.context.get_dummy_value())


def build_prefetch(builder: ir.IRBuilder, address) -> None:
    """Ask for the memory at a pointer to bytes, which need not be valid."""
    function = ir.FunctionType(ir.VoidType(), [address.type, _INT, _INT, _INT])
    builder.call(builder.module.declare_intrinsic("llvm.prefetch", (address.type,), function), [address, *map(_INT, (0, 3, 1))])


def apart(builder: ir.IRBuilder, access, row: str, rows: list[str]):
    """Tell LLVM that rows share no memory; to find out at every group would cost as much as its arithmetic."""

    def scopes(names):
        return module.add_metadata([module.add_metadata([name, module.add_metadata(["fusedrms"])]) for name in names])

    module = builder.module
    access.set_metadata("alias.scope", scopes([row]))
    access.set_metadata("noalias", scopes([other for other in rows if other != row]))
    return access


class Rows:
    """The rows of one element or group, while code is built."""

    def __init__(self, builder: ir.IRBuilder, variant: Variant, bases, index):
        self.builder, self.variant, self.bases, self.index = builder, variant, bases, index
        self.names = [*map(str, range(variant.rows[-1])), "scratch"]

    def address(self, value: int, which: int):
        """For codes in words the word's."""
        row = self.variant.rows[value] + which
        dtype = self.variant.storage.dtypes[value][which]
        index = self.builder.udiv(self.index, WORD(PER_WORD)) if dtype in WORDS else self.index
        dtype = WORDS.get(dtype, dtype)
        pointer = self.builder.inttoptr(self.builder.extract_value(self.bases, row), TYPES[dtype].as_pointer())
        return self.builder.gep(pointer, [index]), str(row), dtype

    def load(self, value: int, which: int = 0) -> Value:
        address, row, dtype = self.address(value, which)
        return Value(self.builder, apart(self.builder, self.builder.load(address, align=1), row, self.names), dtype)

    def store(self, value: int, which: int, stored: Value) -> None:
        address, row, _ = self.address(value, which)
        apart(self.builder, self.builder.store(stored.value, address, align=1), row, self.names)

    def slot(self, scratch, value: int):
        offset = self.builder.add(self.index, WORD(GROUP * self.variant.unpacked.index(value)))
        return self.builder.gep(self.builder.inttoptr(scratch, FLOAT.as_pointer()), [offset])

    def recall(self, scratch, value: int) -> Value:
        return Value(self.builder, apart(self.builder, self.builder.load(self.slot(scratch, value)), "scratch", self.names), "float32")

    def keep(self, scratch, value: int, kept: Value) -> None:
        apart(self.builder, self.builder.store(kept.value, self.slot(scratch, value)), "scratch", self.names)

    def prefetch(self) -> None:
        """As many elements as a group has, of every row but the scales."""
        for value, dtypes in enumerate(self.variant.storage.dtypes):
            for which, dtype in enumerate(dtypes[:1] if value in self.variant.storage.quantized else dtypes):
                address, _, _ = self.address(value, which)
                pointer = self.builder.bitcast(address, BYTE.as_pointer())
                for offset in range(0, int(GROUP * ITEMSIZE[dtype]), LINE):
                    build_prefetch(self.builder, self.builder.gep(pointer, [WORD(offset)]))

    def unpack(self, value: int) -> Value:
        """Of the compute type; of codes of 8 bits their part of the scale."""
        format, found = self.variant.storage.formats[value], self.load(value)
        if format == QUANTIZED:
            found = traced(quant.part_of_scale)(found, self.variant.top(value))
        elif format == SPLIT:
            found = traced(rounding.merge_remainder)(found, self.load(value, 1))
        elif format == MASTER:
            found = traced(rounding.master_or_param)(found, self.load(value, 1))
        return traced(rounding.upcast)(found, str(self.variant.compute))

    def pack(self, number: int, value: Value, random) -> None:
        """random: a function of a stream; not of codes."""
        format, dtype = self.variant.storage.formats[number], self.variant.storage.dtypes[number][0]
        drawn = [random(number - 1)] if number in self.variant.storage.drawn else []
        if format == PLAIN:
            self.store(number, 0, traced(rounding.round_stochastically if drawn else rounding.round_to_nearest)(value, *drawn, dtype))
        elif format == SPLIT:
            param, remainder = traced(rounding.split_master24 if drawn else rounding.split_master)(value, *drawn)
            self.store(number, 0, param)
            self.store(number, 1, remainder)
        else:
            self.store(number, 0, traced(rounding.round_master)(value, dtype))
            self.store(number, 1, value)


def _random_bits(builder, index, keys, stream: int) -> Value:
    """Of one element."""
    *words, offset = (Value(builder, builder.extract_value(keys, k), "uint32") for k in range(keys.type.count))
    index = Value(builder, index, "int64").to("uint32") + offset
    return traced(rounding.share)(traced(rounding.random_word)(index & 0xFFFFFFFC, words), index & 3, stream)


@intrinsic
def prefetch_rows(typing_context, variant, bases, index):
    """Ask for as many elements as a group has, from `index` on, of every row but the scales; there need not be any."""

    def build(context, builder, signature, args):
        Rows(builder, variant, args[1], args[2]).prefetch()
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp), build


@intrinsic
def chunk_keys(typing_context, variant, words, start, shard_offset):
    """rounding.chunk_keys, of a row of Tables.random_key, and the shard's offset."""
    straddles = variant.storage.straddles

    def build(context, builder, signature, args):
        words = [Value(builder, builder.extract_value(args[1], k), "int32") for k in range(3)]
        start, shard_offset = (Value(builder, arg, "int64") for arg in args[2:])
        keys = traced(rounding.chunk_keys)(words, start + shard_offset, straddles)
        return cgutils.pack_array(builder, [key.value for key in (*keys, shard_offset.to("uint32"))])

    return nt.UniTuple(nt.uint32, 6 if straddles else 3)(variant, nt.UniTuple(nt.int32, 3), nt.int64, nt.int64), build


@intrinsic
def load_row(typing_context, variant, bases, index, scratch):
    """Element `index` of every value, of the compute type."""

    def build(context, builder, signature, args):
        _, bases, index, scratch = args
        rows = Rows(builder, variant, bases, index)
        values = [rows.recall(scratch, v) if v in variant.unpacked else rows.unpack(v) for v in range(len(variant.storage.dtypes))]
        return cgutils.pack_array(builder, [value.value for value in values])

    return nt.UniTuple(variant.compute, len(variant.storage.dtypes))(variant, bases, nt.intp, nt.intp), build


@intrinsic
def store_row(typing_context, variant, bases, index, values, keys, scratch):
    """Parameter and states; what is to be packed goes into scratch."""

    def build(context, builder, signature, args):
        _, bases, index, values, keys, scratch = args
        rows = Rows(builder, variant, bases, index)
        for v in range(1, len(variant.storage.dtypes)):
            value = Value(builder, builder.extract_value(values, v - 1), str(variant.compute))
            if v in variant.unpacked:
                rows.keep(scratch, v, value)
            else:
                rows.pack(v, value, partial(_random_bits, builder, index, keys))
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp, values, keys, nt.intp), build
