"""Arguments that stay the same from call to call, packed once: of each array that a call brings Numba takes 0.1 µs to see what it is."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core import types as nt
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from ..caches import cached_njit


class Address(nt.Type):
    """The type of an integer: where a tuple lies that Packed has stored.

    Args:
        values: the type of the tuple.
    """

    def __init__(self, values: nt.BaseTuple):
        super().__init__(f"Address({values})")
        self.values = values


@register_model(Address)
class _(models.PrimitiveModel):
    def __init__(self, manager, address):
        super().__init__(manager, address, ir.IntType(64))


@unbox(Address)
def _(address, value, c):
    return NativeValue(c.pyapi.long_as_longlong(value))


def _without_owners(context, builder, type_, value):
    """The arrays in it without what Numba counts references to: whoever packs them keeps them alive."""
    if isinstance(type_, nt.BaseTuple):
        fields = [_without_owners(context, builder, field, builder.extract_value(value, k)) for k, field in enumerate(type_)]
        return context.make_tuple(builder, type_, fields)
    if isinstance(type_, nt.Array):
        array = cgutils.create_struct_proxy(type_)(context, builder, value=value)
        array.meminfo, array.parent = (ir.Constant(each.type, None) for each in (array.meminfo, array.parent))
        return array._getvalue()
    return value


@intrinsic
def _size_of(typing_context, values):
    def build(context, builder, signature, args):
        return ir.Constant(ir.IntType(64), context.get_abi_sizeof(context.get_value_type(values)))

    return nt.int64(values), build


@intrinsic
def _store(typing_context, values, address):
    def build(context, builder, signature, args):
        pointer = builder.inttoptr(args[1], context.get_value_type(values).as_pointer())
        builder.store(_without_owners(context, builder, values, args[0]), pointer, align=1)
        return context.get_dummy_value()

    return nt.none(values, address), build


@intrinsic
def values_at(typing_context, address):
    """The tuple."""

    def build(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], context.get_value_type(address.values).as_pointer())
        return builder.load(pointer, align=1)

    return address.values(address), build


@cached_njit()
def _pack(values, address):
    """How many bytes the tuple takes; stored, if there is an address."""
    if address:
        _store(values, address)
    return _size_of(values)


class Packed:
    """A tuple of numbers, arrays and such tuples, which lives as long as this.

    Attributes:
        type: an Address.
        address: of the tuple, for arguments of that type.
    """

    def __init__(self, values: Any):
        self._values, values_type = values, numba.typeof(values)
        pack = _pack.compile((values_type, nt.int64))
        self._memory = np.zeros(pack(values, 0), np.uint8)
        pack(values, self._memory.ctypes.data)
        self.type, self.address = Address(values_type), self._memory.ctypes.data
