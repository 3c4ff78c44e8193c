"""Numba: groups of elements that are unpacked into scratch, updated there and packed again, since codes need the largest of them first.

Each loop is so short that a core has many elements in work at a time. Scratch is on the stack. Its parts, one after the other:

* float32 [unpacked values, GROUP]: the values, or, next to memory, their codes of 4 bits, as int32;
* room for a group of each row, 4 bytes an element: see last_group.py;
* uint16 [values that are rounded stochastically, DRAWN]: random bits, from the first of the four that the group's first element is one of.
"""

from collections.abc import Iterator
from functools import partial

from llvmlite import ir
from numba.core import cgutils
from numba.core import types as nt
from numba.extending import intrinsic

from .. import quant, rounding
from ..quant import GROUP
from ..storage import QUANTIZED
from .memory import FLOAT, LINE, WORD, Rows, Variant, apart
from .trace import TYPES, Value, traced

_INT = TYPES["int32"]
GROUPS_AHEAD = 4  # that memory is asked for before they are unpacked
WIDTH, INTERLEAVED = 16, 2  # elements, twice as many as LLVM would choose: 8-bit codes of 16 are brought together in a third of the time
DRAWN = GROUP + 4


def room_of(variant: Variant) -> int:
    """Where in scratch, in bytes, there is room for the rows."""
    return 4 * GROUP * len(variant.unpacked)


def _random_of(variant: Variant, number: int) -> int:
    """Where the random bits are of a value, by its number among those that are drawn."""
    return room_of(variant) + 4 * GROUP * variant.rows[-1] + 2 * DRAWN * number


@intrinsic
def scratch_of(typing_context, variant):
    """The address of scratch, where a line of memory begins: of what lies in two, parts cannot be read before it is in the cache."""

    def build(context, builder, signature, args):
        size = _random_of(variant, len(variant.storage.drawn)) // 4 if variant.storage.quantized else 1
        memory = cgutils.alloca_once(builder, FLOAT, size=size + LINE // 4)
        return builder.and_(builder.add(builder.ptrtoint(memory, WORD), WORD(LINE - 1)), WORD(-LINE))

    return nt.intp(variant), build


def _vectorize(block: ir.Block, width: int, interleaved: int) -> None:
    """Tell LLVM by how many elements to take the loop that this block ends."""
    module = block.module
    how = dict(vectorize_width=width, interleave_count=interleaved)
    how = [module.add_metadata([f"llvm.loop.{name.replace('_', '.')}", _INT(n)]) for name, n in how.items()]
    loop = ir.values.MDValue(module, how, name=str(len(module.metadata)))
    loop.operands = (loop, *how)  # which begins with itself, so that no other loop has the same
    block.terminator.set_metadata("llvm.loop", loop)


class _Group:
    """The elements from `first` on, while code is built; slots: where in scratch the values of element 0 would be."""

    def __init__(self, builder: ir.IRBuilder, variant: Variant, bases, first, slots):
        self.builder, self.variant, self.bases, self.first, self.slots = builder, variant, bases, first, slots
        self.scratch = builder.add(slots, builder.mul(first, WORD(4)))
        self.scales = Rows(builder, variant, bases, builder.lshr(first, WORD(GROUP.bit_length() - 1)))

    def rows(self, index) -> Rows:
        """Of an element, counted from the first."""
        return Rows(self.builder, self.variant, self.bases, self.builder.add(self.first, index))

    def _random(self, v: int, index, dtype: str, stored: Value | None = None) -> Value:
        """Random bits of a value: element `index` of them, if they are of a dtype."""
        drawn = self.variant.storage.drawn
        address = self.builder.add(self.scratch, WORD(_random_of(self.variant, drawn.index(v))))
        pointer = self.builder.gep(self.builder.inttoptr(address, TYPES[dtype].as_pointer()), [index])
        access = self.builder.load(pointer, align=1) if stored is None else self.builder.store(stored.value, pointer, align=1)
        apart(self.builder, access, f"random bits of {v}", [*self.rows(index).names, *(f"random bits of {other}" for other in drawn)])
        return stored or Value(self.builder, access, dtype)

    def _code(self, v: int, index, stored: Value | None = None) -> Value:
        """Of a value that has 4 bits, as int32, in place of the value itself; read back, what is above its bits means nothing."""
        slot = self.builder.bitcast(self.rows(index).slot(self.slots, v), _INT.as_pointer())
        access = self.builder.load(slot) if stored is None else self.builder.store(stored.value, slot)
        apart(self.builder, access, "scratch", self.rows(index).names)
        return stored or Value(self.builder, access, "int32")

    def _in_words(self) -> Iterator[tuple]:
        """Of WIDTH codes at a time, which is what the loops read and write: where they are in scratch and in the row, two in a byte."""
        for v in self.variant.in_words:
            for first in range(0, GROUP, WIDTH):
                here, (there, _, _) = self.rows(WORD(first)).slot(self.slots, v), self.rows(WORD(first)).address(v, 0)
                pairs, octets = (ir.VectorType(ir.IntType(bits), WIDTH // 2).as_pointer() for bits in (64, 8))
                yield self.builder.bitcast(here, pairs), self.builder.bitcast(there, octets)

    def spread_codes(self) -> None:
        build = self.builder
        for here, there in self._in_words():
            pairs = build.zext(build.load(there, align=1), here.type.pointee)
            pairs = build.or_(pairs, build.shl(pairs, ir.Constant(pairs.type, [28] * pairs.type.count)))
            build.store(build.and_(pairs, ir.Constant(pairs.type, [0xF0000000F] * pairs.type.count)), here, align=4)

    def gather_codes(self) -> None:
        build = self.builder
        for here, there in self._in_words():
            pairs = build.load(here, align=4)
            pairs = build.and_(pairs, ir.Constant(pairs.type, [0xF0000000F] * pairs.type.count))
            pairs = build.or_(pairs, build.lshr(pairs, ir.Constant(pairs.type, [28] * pairs.type.count)))
            build.store(build.trunc(pairs, there.type.pointee), there, align=1)

    def unpack(self) -> None:
        scales = {v: self.scales.load(v, 1) for v in self.variant.storage.quantized}
        with cgutils.for_range(self.builder, WORD(GROUP)) as loop:
            rows = self.rows(loop.index)
            for v in self.variant.unpacked:
                if v in self.variant.in_words:
                    code = self._code(v, loop.index)
                    if self.variant.storage.dtypes[v][0] == "int4":
                        code = (code << 28) >> 28  # with its sign
                    value = traced(quant.part_of_scale)(code, self.variant.top(v))
                else:
                    value = rows.unpack(v)
                rows.keep(self.slots, v, scales[v] * value if v in scales else value)

    def draw(self, keys):
        """Random bits for all elements; returns the place of the first one among its four."""
        builder = self.builder
        *words, offset = (Value(builder, builder.extract_value(keys, k), "uint32") for k in range(keys.type.count))
        first = offset + Value(builder, self.first, "int64").to("uint32")
        with cgutils.for_range(builder, WORD(DRAWN // 4)) as loop:
            index = (first & 0xFFFFFFFC) + Value(builder, loop.index, "int64").to("uint32") * 4
            word = traced(rounding.random_word)(index, words)
            for v in self.variant.storage.drawn:
                shares = [traced(rounding.share)(word, Value(builder, _INT(place), "uint32"), v - 1) for place in range(4)]
                for pair in range(2):
                    at = builder.add(builder.mul(loop.index, WORD(2)), WORD(pair))
                    low, high = shares[2 * pair : 2 * pair + 2]
                    self._random(v, at, "uint32", low | (high << 16))
            body = builder.basic_block
        _vectorize(body, WIDTH, 1)
        return (first & 3).to("int64").value

    def pack(self, scales: dict[int, Value], keys) -> None:
        place = self.draw(keys)
        per_square = {v: traced(quant.squared_codes)(scale, self.variant.top(v)) for v, scale in scales.items()}

        def random(index, stream: int) -> Value:
            return self._random(stream + 1, self.builder.add(place, index), "uint16").to("uint32")

        with cgutils.for_range(self.builder, WORD(GROUP)) as loop:
            rows = self.rows(loop.index)
            for v in self.variant.unpacked:
                value = rows.recall(self.slots, v)
                if self.variant.storage.formats[v] != QUANTIZED:
                    rows.pack(v, value, partial(random, loop.index))
                    continue
                dtype = self.variant.storage.dtypes[v][0]
                signed = dtype in ("int8", "int4")
                code = traced(quant.quantize)(value, per_square[v], random(loop.index, v - 1), self.variant.top(v), signed)
                if v in self.variant.in_words:
                    self._code(v, loop.index, code)
                else:
                    rows.store(v, 0, code.to(dtype))
            body = self.builder.basic_block
        _vectorize(body, WIDTH, INTERLEAVED)


@intrinsic
def unpack_group(typing_context, variant, bases, first, scratch):
    """Into scratch, the elements from `first` on."""

    def build(context, builder, signature, args):
        _, bases, first, scratch = args
        if variant.unpacked:
            Rows(builder, variant, bases, builder.add(first, WORD(GROUPS_AHEAD * GROUP))).prefetch()
            group = _Group(builder, variant, bases, first, scratch)
            group.spread_codes()
            group.unpack()
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp, nt.intp), build


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
        if variant.unpacked:
            group = _Group(builder, variant, bases, first, scratch)
            scales = {}
            for number, v in enumerate(variant.storage.quantized):
                scales[v] = Value(builder, builder.bitcast(builder.extract_value(peaks, number), FLOAT), "float32")
                group.scales.store(v, 1, scales[v])
            group.pack(scales, keys)
            group.gather_codes()
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp, peaks, keys, nt.intp), build
