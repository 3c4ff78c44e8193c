"""Numba: typed loads and stores at addresses, the counterpart of memory.py.

A value lies in one row of addresses or in two, as there. Elements are handled one by one, but the codes of a group need the largest
of their magnitudes first. So where there are codes, what is not float32 is unpacked into `scratch`, float32 [unpacked values, GROUP],
updated there and packed again, in loops of their own: each is so short that a core has many elements in work at a time. Behind these
there is room for a group of each row: see last_group.py.

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
from ..quant import GROUP
from ..storage import ITEMSIZE, MASTER, PLAIN, QUANTIZED, SPLIT, Storage
from .trace import TYPES, Value, traced

WORD, FLOAT = TYPES["int64"], TYPES["float32"]
_BYTE, _INT = ir.IntType(8), ir.IntType(32)
LINE = 64  # bytes that memory comes in
GROUPS_AHEAD = 4  # that memory is asked for before they are unpacked
WIDTH, INTERLEAVED = 16, 2  # elements, twice as many as LLVM would choose: 8-bit codes of 16 are brought together in a third of the time


class Variant(nt.Opaque):
    """What a loop is compiled for, as a type: Numba compiles once for each, and names its disk cache by it.

    Args:
        rule: its name in rules.py.
        storage: what the rows of addresses point at.
        compute: what arithmetic is done in.

    Attributes:
        rows: the first row of addresses of grad, param, state 0, ..., and their number.
        unpacked: which values wait in scratch.
    """

    def __init__(self, rule: str, storage: Storage, compute: nt.Float):
        super().__init__(f"Variant({rule}, {storage}, {compute})")
        self.rule, self.storage, self.compute = rule, storage, compute
        self.rows = list(itertools.accumulate(map(len, storage.dtypes), initial=0))
        values = range(1, len(storage.dtypes)) if storage.quantized else ()  # the gradient is only read
        self.unpacked = [v for v in values if storage.dtypes[v] != ("float32",)]


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
        offset = self.builder.add(self.index, WORD(GROUP * self.variant.unpacked.index(value)))
        return self.builder.gep(self.builder.inttoptr(scratch, FLOAT.as_pointer()), [offset])

    def recall(self, scratch, value: int) -> Value:
        return Value(self.builder, _apart(self.builder, self.builder.load(self._slot(scratch, value)), "scratch", self.names), "float32")

    def keep(self, scratch, value: int, kept: Value) -> None:
        _apart(self.builder, self.builder.store(kept.value, self._slot(scratch, value)), "scratch", self.names)

    def prefetch(self) -> None:
        """As many elements as a group has, of every row but the scales."""
        for value, dtypes in enumerate(self.variant.storage.dtypes):
            for which, dtype in enumerate(dtypes[:1] if value in self.variant.storage.quantized else dtypes):
                address, _, _ = self._address(value, which)
                pointer = self.builder.bitcast(address, _BYTE.as_pointer())
                for offset in range(0, GROUP * ITEMSIZE[dtype], LINE):
                    build_prefetch(self.builder, self.builder.gep(pointer, [WORD(offset)]))

    def unpack(self, value: int, scales=()) -> Value:
        """Of the compute type."""
        format, found = self.variant.storage.formats[value], self.load(value)
        if format == QUANTIZED:
            scale = scales[self.variant.storage.quantized.index(value)]
            found = traced(quant.dequantize)(found, Value(self.builder, scale, "float32"))
        elif format == SPLIT:
            found = traced(rounding.merge_remainder)(found, self.load(value, 1))
        elif format == MASTER:
            found = traced(rounding.master_or_param)(found, self.load(value, 1))
        return traced(rounding.upcast)(found, str(self.variant.compute))

    def pack(self, number: int, value: Value, scales, random) -> None:
        """random: a function of a stream."""
        storage = self.variant.storage
        format, dtype = storage.formats[number], storage.dtypes[number][0]
        if format == QUANTIZED:
            scale = scales[storage.quantized.index(number)]
            self.store(number, 0, traced(quant.quantize)(value, Value(self.builder, scale, "float32"), random(number - 1), dtype))
        elif format == PLAIN:
            if dtype in ("bfloat16", "float16") and (number > 1 or storage.stochastic):
                self.store(number, 0, traced(rounding.round_stochastically)(value, random(number - 1), dtype))
            else:
                self.store(number, 0, traced(rounding.round_to_nearest)(value, dtype))
        elif format == SPLIT:
            param, remainder = traced(rounding.split_master)(value)
            self.store(number, 0, param)
            self.store(number, 1, remainder)
        else:
            self.store(number, 0, traced(rounding.round_master)(value, dtype))
            self.store(number, 1, value)


def _of_group(builder: ir.IRBuilder, variant: Variant, bases, first) -> _Rows:
    """Where the scales are of the group of elements from `first` on."""
    return _Rows(builder, variant, bases, builder.lshr(first, WORD(GROUP.bit_length() - 1)))


def _random(builder, index, keys, stream: int, first=None) -> Value:
    """Of element `index`, counted from `first`."""
    *words, offset = (Value(builder, builder.extract_value(keys, k), "uint32") for k in range(keys.type.count))
    if first is not None:  # outside of a loop over the group, where LLVM would add up each lane's 64 bits
        offset = offset + Value(builder, first, "int64").to("uint32")
    return traced(rounding.random_bits)(Value(builder, index, "int64").to("uint32") + offset, words, stream)


@intrinsic
def prefetch_rows(typing_context, variant, bases, index):
    """Ask for as many elements as a group has, from `index` on, of every row but the scales; there need not be any."""

    def build(context, builder, signature, args):
        _Rows(builder, variant, args[1], args[2]).prefetch()
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp), build


@intrinsic
def scratch_of(typing_context, variant):
    """The address of scratch, on the stack."""

    def build(context, builder, signature, args):
        n_rows = variant.rows[-1] if variant.storage.quantized else 0
        memory = cgutils.alloca_once(builder, FLOAT, size=max(1, GROUP * (len(variant.unpacked) + n_rows)))
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


def _vectorize(block: ir.Block) -> None:
    """Tell LLVM by how many elements to take the loop that this block ends."""
    module = block.module
    how = dict(vectorize_width=WIDTH, interleave_count=INTERLEAVED)
    how = [module.add_metadata([f"llvm.loop.{name.replace('_', '.')}", _INT(n)]) for name, n in how.items()]
    loop = ir.values.MDValue(module, how, name=str(len(module.metadata)))
    loop.operands = (loop, *how)  # which begins with itself, so that no other loop has the same
    block.terminator.set_metadata("llvm.loop", loop)


@intrinsic
def unpack_group(typing_context, variant, bases, first, scratch):
    """Into scratch, the elements from `first` on."""

    def build(context, builder, signature, args):
        _, bases, first, scratch = args
        if variant.unpacked:
            _Rows(builder, variant, bases, builder.add(first, WORD(GROUPS_AHEAD * GROUP))).prefetch()
            group = _of_group(builder, variant, bases, first)
            scales = [group.load(v, 1).value for v in variant.storage.quantized]
            with cgutils.for_range(builder, WORD(GROUP)) as loop:
                rows = _Rows(builder, variant, bases, builder.add(first, loop.index))
                for v in variant.unpacked:
                    rows.keep(scratch, v, rows.unpack(v, scales))
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp, nt.intp), build


@intrinsic
def load_row(typing_context, variant, bases, index, scratch):
    """Element `index` of every value, of the compute type."""

    def build(context, builder, signature, args):
        _, bases, index, scratch = args
        rows = _Rows(builder, variant, bases, index)
        values = [rows.recall(scratch, v) if v in variant.unpacked else rows.unpack(v) for v in range(len(variant.storage.dtypes))]
        return cgutils.pack_array(builder, [value.value for value in values])

    return nt.UniTuple(variant.compute, len(variant.storage.dtypes))(variant, bases, nt.intp, nt.intp), build


@intrinsic
def store_row(typing_context, variant, bases, index, values, keys, scratch):
    """Parameter and states; what is to be packed goes into scratch."""

    def build(context, builder, signature, args):
        _, bases, index, values, keys, scratch = args
        rows = _Rows(builder, variant, bases, index)
        for v in range(1, len(variant.storage.dtypes)):
            value = Value(builder, builder.extract_value(values, v - 1), str(variant.compute))
            if v in variant.unpacked:
                rows.keep(scratch, v, value)
            else:
                rows.pack(v, value, (), partial(_random, builder, index, keys))
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
def pack_group(typing_context, variant, bases, first, peaks, keys, scratch):
    """From scratch, the elements from `first` on, and their scales."""

    def build(context, builder, signature, args):
        _, bases, first, peaks, keys, scratch = args
        group = _of_group(builder, variant, bases, first)
        scales = [builder.bitcast(builder.extract_value(peaks, n), FLOAT) for n in range(len(variant.storage.quantized))]
        for v, scale in zip(variant.storage.quantized, scales, strict=True):
            group.store(v, 1, Value(builder, scale, "float32"))
        if variant.unpacked:
            with cgutils.for_range(builder, WORD(GROUP)) as loop:  # one for all values, as two share a hash
                rows = _Rows(builder, variant, bases, builder.add(first, loop.index))
                for v in variant.unpacked:
                    rows.pack(v, rows.recall(scratch, v), scales, partial(_random, builder, loop.index, keys, first=first))
                body = builder.basic_block
            _vectorize(body)
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp, peaks, keys, nt.intp), build
