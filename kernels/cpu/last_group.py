"""Numba: a group of quantized values that the tensor's end cuts short, handled as if it were whole."""

from collections.abc import Iterator

from llvmlite import ir
from numba.core import cgutils
from numba.core import types as nt
from numba.extending import intrinsic

from ..quant import GROUP, PER_WORD
from ..storage import ITEMSIZE, WORDS
from .groups import room_of
from .memory import WORD, Variant

_CODES = ir.IntType(16)  # a word of them


class _LastGroup:
    """The elements of a group that is cut short, in memory of their own, where it is whole: of what is missing, copies of the first.

    So loops over groups have a length that LLVM knows; copies have no peak that the first has not.
    """

    def __init__(self, builder: ir.IRBuilder, variant: Variant, bases, first, last, scratch):
        self.builder, self.bases, self.first, self.storage = builder, bases, first, variant.storage
        self.size = builder.sub(last, first)
        self.is_short = builder.icmp_signed("<", self.size, WORD(GROUP))
        self.room = builder.add(scratch, WORD(room_of(variant)))
        scales = {variant.rows[v] + 1 for v in variant.storage.quantized}
        self.rows = {row: d for row, d in enumerate(d for value in variant.storage.dtypes for d in value) if row not in scales}

    def _here(self, row: int):
        return self.builder.add(self.room, WORD(4 * GROUP * row))

    def _before_first(self, row: int):
        """Bytes from where the tensor's row begins to the group."""
        return self.builder.udiv(self.builder.mul(self.first, WORD(int(8 * ITEMSIZE[self.rows[row]]))), WORD(8))

    def _pointers(self, row: int, kind: ir.Type):
        """To the group in its tensor, and here."""
        there = self.builder.add(self.builder.extract_value(self.bases, row), self._before_first(row))
        return tuple(self.builder.inttoptr(address, kind.as_pointer()) for address in (there, self._here(row)))

    def _fill(self, row: int) -> None:
        itemsize = int(ITEMSIZE[self.rows[row]])
        there, here = self._pointers(row, ir.IntType(8 * itemsize))
        value = self.builder.load(there, align=1)
        with cgutils.for_range(self.builder, WORD(GROUP)) as loop:
            self.builder.store(value, self.builder.gep(here, [loop.index]))
        cgutils.raw_memcpy(self.builder, here, there, self.size, itemsize)

    def _words(self, from_there: bool, row: int) -> Iterator[tuple]:
        """Copy whole words of codes; then, if there is another, where to read it, where to write it, and its bits that are codes."""
        build = self.builder
        there, here = self._pointers(row, _CODES)
        source, target = (there, here) if from_there else (here, there)
        n_whole, rest = build.udiv(self.size, WORD(PER_WORD)), build.urem(self.size, WORD(PER_WORD))
        cgutils.raw_memcpy(build, target, source, n_whole, 2)
        with build.if_then(build.icmp_unsigned("!=", rest, WORD(0))):
            bits = build.trunc(build.mul(rest, WORD(4)), _CODES)
            mask = build.sub(build.shl(_CODES(1), bits), _CODES(1))
            yield build.gep(source, [n_whole]), build.gep(target, [n_whole]), mask

    def _fill_words(self, row: int) -> None:
        build = self.builder
        there, here = self._pointers(row, _CODES)
        fill = build.mul(build.and_(build.load(there, align=1), _CODES(15)), _CODES(0x1111))
        with cgutils.for_range(build, WORD(GROUP // PER_WORD)) as loop:
            build.store(fill, build.gep(here, [loop.index]))
        for source, target, mask in self._words(True, row):
            codes = build.and_(build.load(source, align=1), mask)
            build.store(build.or_(codes, build.and_(fill, build.not_(mask))), target)

    def filled(self):
        """The rows' addresses: of the tensor, or such that its indices lead here."""
        with self.builder.if_then(self.is_short, likely=False):
            for row, dtype in self.rows.items():
                (self._fill_words if dtype in WORDS else self._fill)(row)
        new = self.bases
        for row in self.rows:
            base = self.builder.sub(self._here(row), self._before_first(row))
            base = self.builder.select(self.is_short, base, self.builder.extract_value(self.bases, row))
            new = self.builder.insert_value(new, base, row)
        return new

    def write_back(self) -> None:
        with self.builder.if_then(self.is_short, likely=False):
            for row in list(self.rows)[1:]:  # the gradient is only read
                if self.rows[row] in WORDS:
                    for source, target, mask in self._words(False, row):
                        self.builder.store(self.builder.and_(self.builder.load(source), mask), target, align=1)
                else:
                    there, here = self._pointers(row, ir.IntType(8))
                    size = self.builder.mul(self.size, WORD(int(ITEMSIZE[self.rows[row]])))
                    cgutils.raw_memcpy(self.builder, there, here, size, 1)


@intrinsic
def whole_group(typing_context, variant, bases, first, last, scratch):
    """The addresses by which the elements from `first` on are handled, a whole group; `bases` where nothing is quantized."""

    def build(context, builder, signature, args):
        return _LastGroup(builder, variant, *args[1:]).filled() if variant.storage.quantized else args[1]

    return bases(variant, bases, nt.intp, nt.intp, nt.intp), build


@intrinsic
def write_back(typing_context, variant, bases, first, last, scratch):
    """Bring what was updated elsewhere to where it belongs."""

    def build(context, builder, signature, args):
        if variant.storage.quantized:
            _LastGroup(builder, variant, *args[1:]).write_back()
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp, nt.intp, nt.intp), build
