"""Numba: a group of quantized values that the tensor's end cuts short, handled as if it were whole."""

from llvmlite import ir
from numba.core import cgutils
from numba.core import types as nt
from numba.extending import intrinsic

from ..quant import GROUP
from ..storage import ITEMSIZE
from .memory import WORD, Variant


class _LastGroup:
    """The elements of a group that is cut short, in memory of their own, where it is whole: of what is missing, copies of the first.

    So loops over groups have a length that LLVM knows; copies have no peak that the first has not.
    """

    def __init__(self, builder: ir.IRBuilder, variant: Variant, bases, first, last, scratch):
        self.builder, self.bases, self.first, self.storage = builder, bases, first, variant.storage
        self.size = builder.sub(last, first)
        self.is_short = builder.icmp_signed("<", self.size, WORD(GROUP))
        self.room = builder.add(scratch, WORD(4 * GROUP * len(variant.unpacked)))
        scales = {variant.rows[v] + 1 for v in variant.storage.quantized}
        rows = enumerate(dtype for value in variant.storage.dtypes for dtype in value)
        self.rows = {row: ITEMSIZE[dtype] for row, dtype in rows if row not in scales}

    def _pointers(self, row: int):
        """To the first element in its tensor, and here."""
        at = self.builder.extract_value(self.bases, row), self.builder.mul(self.first, WORD(self.rows[row]))
        kind = ir.IntType(8 * self.rows[row]).as_pointer()
        return self.builder.inttoptr(self.builder.add(*at), kind), self.builder.inttoptr(self._here(row), kind)

    def _here(self, row: int):
        return self.builder.add(self.room, WORD(4 * GROUP * row))

    def filled(self):
        """The rows' addresses: of the tensor, or such that its indices lead here."""
        with self.builder.if_then(self.is_short, likely=False):
            for row, itemsize in self.rows.items():
                there, here = self._pointers(row)
                value = self.builder.load(there, align=1)
                with cgutils.for_range(self.builder, WORD(GROUP)) as loop:
                    self.builder.store(value, self.builder.gep(here, [loop.index]))
                cgutils.raw_memcpy(self.builder, here, there, self.size, itemsize)
        new = self.bases
        for row, itemsize in self.rows.items():
            base = self.builder.sub(self._here(row), self.builder.mul(self.first, WORD(itemsize)))
            base = self.builder.select(self.is_short, base, self.builder.extract_value(self.bases, row))
            new = self.builder.insert_value(new, base, row)
        return new

    def write_back(self) -> None:
        with self.builder.if_then(self.is_short, likely=False):
            for row, itemsize in self.rows.items():
                if row > 0:  # the gradient is only read
                    there, here = self._pointers(row)
                    cgutils.raw_memcpy(self.builder, there, here, self.size, itemsize)


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
