"""Numba: typed loads and stores at addresses, the counterpart of memory.py.

A value lies in one row of addresses or in two, as there. Elements are handled one by one, but the codes of a group need the
largest of their magnitudes first: until the group is done their values wait in `scratch`, float32 [quantized values, GROUP]. Behind
these there is room for a group of each row: see last_group.py.
"""

import itertools

from llvmlite import ir
from numba.core import cgutils
from numba.core import types as nt
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from .. import quant, rounding
from ..quant import GROUP
from ..storage import MASTER, PLAIN, QUANTIZED, SPLIT, Storage
from .trace import TYPES, Value, traced

WORD, FLOAT = TYPES["int64"], TYPES["float32"]
_BYTE, _INT = ir.IntType(8), ir.IntType(32)
PREFETCHED = 256  # bytes of each row that are asked for before a chunk is updated


class Variant(nt.Opaque):
    """What a loop is compiled for, as a type: Numba compiles once for each, and names its disk cache by it.

    Args:
        rule: its name in rules.py.
        storage: what the rows of addresses point at.
        compute: what arithmetic is done in.

    Attributes:
        rows: the first row of addresses of grad, param, state 0, ..., and their number.
    """

    def __init__(self, rule: str, storage: Storage, compute: nt.Float):
        super().__init__(f"Variant({rule}, {storage}, {compute})")
        self.rule, self.storage, self.compute = rule, storage, compute
        self.rows = list(itertools.accumulate(map(len, storage.dtypes), initial=0))


register_model(Variant)(models.OpaqueModel)


@unbox(Variant)
def _(variant, value, c):
    return NativeValue(c.context.get_dummy_value())


def build_prefetch(builder: ir.IRBuilder, address) -> None:
    """Ask for the memory at a pointer to bytes, which need not be valid."""
    function = ir.FunctionType(ir.VoidType(), [address.type, _INT, _INT, _INT])
    builder.call(builder.module.declare_intrinsic("llvm.prefetch", (address.type,), function), [address, *map(_INT, (0, 3, 1))])


def _apart(builder: ir.IRBuilder, access, row: str, rows: list[str]):
    """Tell LLVM that rows share no memory; to find out at every group would cost as much as its arithmetic."""

    def scopes(names):
        return module.add_metadata([module.add_metadata([name, module.add_metadata(["fusedrms"])]) for name in names])

    module = builder.module
    access.set_metadata("alias.scope", scopes([row]))
    access.set_metadata("noalias", scopes([other for other in rows if other != row]))
    return access


class _Rows:
    """The rows of one element or group, while code is built."""

    def __init__(self, builder: ir.IRBuilder, variant: Variant, bases, index):
        self.builder, self.variant, self.bases, self.index = builder, variant, bases, index
        self.names = [*map(str, range(variant.rows[-1])), "scratch"]

    def _address(self, value: int, which: int):
        row = self.variant.rows[value] + which
        dtype = self.variant.storage.dtypes[value][which]
        pointer = self.builder.inttoptr(self.builder.extract_value(self.bases, row), TYPES[dtype].as_pointer())
        return self.builder.gep(pointer, [self.index]), str(row), dtype

    def load(self, value: int, which: int = 0) -> Value:
        address, row, dtype = self._address(value, which)
        return Value(self.builder, _apart(self.builder, self.builder.load(address, align=1), row, self.names), dtype)

    def store(self, value: int, which: int, stored: Value) -> None:
        address, row, _ = self._address(value, which)
        _apart(self.builder, self.builder.store(stored.value, address, align=1), row, self.names)

    def _slot(self, scratch, value: int):
        offset = self.builder.add(self.index, WORD(GROUP * self.variant.storage.quantized.index(value)))
        return self.builder.gep(self.builder.inttoptr(scratch, FLOAT.as_pointer()), [offset])

    def recall(self, scratch, value: int) -> Value:
        return Value(self.builder, _apart(self.builder, self.builder.load(self._slot(scratch, value)), "scratch", self.names), "float32")

    def keep(self, scratch, value: int, kept: Value) -> None:
        _apart(self.builder, self.builder.store(kept.value, self._slot(scratch, value)), "scratch", self.names)


def _random(builder, index, keys, stream: int, first=None) -> Value:
    """Of element `index`, counted from `first`."""
    *words, offset = (Value(builder, builder.extract_value(keys, k), "uint32") for k in range(keys.type.count))
    if first is not None:  # outside of a loop over the group, where LLVM would add up each lane's 64 bits
        offset = offset + Value(builder, first, "int64").to("uint32")
    return traced(rounding.random_bits)(Value(builder, index, "int64").to("uint32") + offset, words, stream)


@intrinsic
def prefetch_rows(typing_context, variant, bases, index):
    """Ask for the elements from `index` on of every row, PREFETCHED bytes of each: of a small tensor all, of which no hardware knows."""

    def build(context, builder, signature, args):
        rows = _Rows(builder, variant, args[1], args[2])
        for value, dtypes in enumerate(variant.storage.dtypes):
            for which in range(len(dtypes)):
                address, _, _ = rows._address(value, which)
                pointer = builder.bitcast(address, _BYTE.as_pointer())
                for offset in range(0, PREFETCHED, 64):
                    build_prefetch(builder, builder.gep(pointer, [WORD(offset)]))
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp), build


@intrinsic
def scratch_of(typing_context, variant):
    """The address of scratch, on the stack."""

    def build(context, builder, signature, args):
        n_rows = variant.rows[-1] if variant.storage.quantized else 0
        memory = cgutils.alloca_once(builder, FLOAT, size=max(1, GROUP * (len(variant.storage.quantized) + n_rows)))
        return builder.ptrtoint(memory, WORD)

    return nt.intp(variant), build


@intrinsic
def chunk_keys(typing_context, variant, words, start, shard_offset):
    """rounding.chunk_keys, of a row of Tables.random_key, and the shard's offset."""
    wraps = variant.storage.wraps

    def build(context, builder, signature, args):
        words = [Value(builder, builder.extract_value(args[1], k), "int32") for k in range(3)]
        start, shard_offset = (Value(builder, arg, "int64") for arg in args[2:])
        keys = traced(rounding.chunk_keys)(words, start + shard_offset, wraps)
        return cgutils.pack_array(builder, [key.value for key in (*keys, shard_offset.to("uint32"))])

    return nt.UniTuple(nt.uint32, 6 if wraps else 3)(variant, nt.UniTuple(nt.int32, 3), nt.int64, nt.int64), build


@intrinsic
def load_scales(typing_context, variant, bases, group):
    """The scale of each quantized value."""

    def build(context, builder, signature, args):
        rows = _Rows(builder, variant, args[1], args[2])
        return context.make_tuple(builder, signature.return_type, [rows.load(v, 1).value for v in variant.storage.quantized])

    return nt.UniTuple(nt.float32, len(variant.storage.quantized))(variant, bases, nt.intp), build


@intrinsic
def load_row(typing_context, variant, bases, index, scales):
    """Element `index` of every value, of the compute type."""

    def build(context, builder, signature, args):
        rows, compute, values = _Rows(builder, variant, args[1], args[2]), str(variant.compute), []
        for v, format in enumerate(variant.storage.formats):
            value = rows.load(v)
            if format == QUANTIZED:
                scale = builder.extract_value(args[3], variant.storage.quantized.index(v))
                value = traced(quant.dequantize)(value, Value(builder, scale, "float32"))
            elif format == SPLIT:
                value = traced(rounding.merge_remainder)(value, rows.load(v, 1))
            elif format == MASTER:
                value = traced(rounding.master_or_param)(value, rows.load(v, 1))
            values.append(traced(rounding.upcast)(value, compute).value)
        return cgutils.pack_array(builder, values)

    return nt.UniTuple(variant.compute, len(variant.storage.dtypes))(variant, bases, nt.intp, scales), build


@intrinsic
def store_row(typing_context, variant, bases, index, values, keys, scratch):
    """Parameter and states; the gradient is only read, quantized values only put into scratch."""
    storage = variant.storage

    def build(context, builder, signature, args):
        _, bases, index, values, keys, scratch = args
        rows = _Rows(builder, variant, bases, index)
        for v, (format, dtypes) in enumerate(zip(storage.formats, storage.dtypes, strict=True)):
            if v == 0:
                continue
            value = Value(builder, builder.extract_value(values, v - 1), str(variant.compute))
            if format == QUANTIZED:
                rows.keep(scratch, v, value)
            elif format == PLAIN:
                if dtypes[0] in ("bfloat16", "float16") and (v > 1 or storage.stochastic):
                    rows.store(v, 0, traced(rounding.round_stochastically)(value, _random(builder, index, keys, v - 1), dtypes[0]))
                else:
                    rows.store(v, 0, traced(rounding.round_to_nearest)(value, dtypes[0]))
            elif format == SPLIT:
                param, remainder = traced(rounding.split_master)(value)
                rows.store(v, 0, param)
                rows.store(v, 1, remainder)
            else:
                rows.store(v, 0, traced(rounding.round_master)(value, dtypes[0]))
                rows.store(v, 1, value)
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp, values, keys, nt.intp), build


@intrinsic
def larger(typing_context, variant, peaks, values):
    """Of each quantized value the largest magnitude so far, as the bits of a float32: as integers, where a NaN is the largest."""

    def build(context, builder, signature, args):
        _, peaks, values = args
        new = []
        for number, v in enumerate(variant.storage.quantized):
            bits = Value(builder, builder.extract_value(values, v - 1), "float32").to("uint32", bitcast=True)
            size, peak = (bits & 0x7FFFFFFF).to("int32"), Value(builder, builder.extract_value(peaks, number), "int32")
            new.append(builder.select((size > peak).value, size.value, peak.value))
        return context.make_tuple(builder, signature.return_type, new)

    return peaks(variant, peaks, values), build


@intrinsic
def store_quantized(typing_context, variant, bases, first, peaks, keys, scratch):
    """Scale and codes of the group of elements from `first` on."""

    def build(context, builder, signature, args):
        _, bases, first, peaks, keys, scratch = args
        group, scales = builder.lshr(first, WORD(GROUP.bit_length() - 1)), []
        for number, v in enumerate(variant.storage.quantized):
            scale = Value(builder, builder.extract_value(peaks, number), "int32").to("float32", bitcast=True)
            _Rows(builder, variant, bases, group).store(v, 1, scale)
            scales.append(scale)
        with cgutils.for_range(builder, WORD(GROUP)) as loop:  # one, as two values share a hash
            rows = _Rows(builder, variant, bases, builder.add(first, loop.index))
            for v, scale in zip(variant.storage.quantized, scales, strict=True):
                random = _random(builder, loop.index, keys, v - 1, first)
                code = traced(quant.quantize)(rows.recall(scratch, v), scale, random, variant.storage.dtypes[v][0])
                rows.store(v, 0, code)
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp, peaks, keys, nt.intp), build
