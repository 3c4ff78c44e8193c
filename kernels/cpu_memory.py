"""Numba: typed loads and stores at addresses, the counterpart of memory.py.

Stored dtypes are named as torch names them. bfloat16 is handled as its bits, which every CPU vectorises.
"""

from llvmlite import ir
from numba.core import cgutils
from numba.core import types as nt
from numba.extending import NativeValue, intrinsic, models, register_model, unbox


class Variant(nt.Opaque):
    """What a loop is compiled for, as a type: Numba compiles once for each, and names its disk cache by it.

    Args:
        rule: its name in rules.py.
        dtypes: stored dtype of each row of addresses (grad, param, state 0, ...), as torch names them.
        compute: what they are widened to.
        n_hyper: numbers in a row of hyperparameters.
        digest: of the source files; Numba's cache would not see a change in a rule.
    """

    def __init__(self, rule: str, dtypes: tuple[str, ...], compute: nt.Float, n_hyper: int, digest: str):
        super().__init__(f"Variant({rule}, {', '.join(dtypes)}, {compute}, {n_hyper}, {digest})")
        self.rule, self.dtypes, self.compute, self.n_hyper = rule, dtypes, compute, n_hyper


register_model(Variant)(models.OpaqueModel)


@unbox(Variant)
def _(variant, value, c):
    return NativeValue(c.context.get_dummy_value())


def _stored(name: str) -> ir.Type:
    return {"float64": ir.DoubleType(), "float32": ir.FloatType(), "float16": ir.HalfType(), "bfloat16": ir.IntType(16)}[name]


def _pointer(builder, base, index, name):
    return builder.gep(builder.inttoptr(base, _stored(name).as_pointer()), [index])


def _widen(builder, value, name: str, to: ir.Type):
    if name == "bfloat16":
        bits = builder.shl(builder.zext(value, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        value = builder.bitcast(bits, ir.FloatType())
    return value if value.type == to else builder.fpext(value, to)


def _round(builder, value, name: str):
    """To nearest, ties to even."""
    stored = _stored(name)
    if name != "bfloat16":
        return value if value.type == stored else builder.fptrunc(value, stored)
    word = ir.IntType(32)
    bits = builder.bitcast(value, word)
    odd = builder.and_(builder.lshr(bits, word(16)), word(1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, word(0x7FFF))), word(16))
    quiet_nan = builder.or_(builder.lshr(bits, word(16)), word(0x40))  # adding could carry a NaN over into a number
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(is_nan, quiet_nan, rounded), stored)


@intrinsic
def load_row(typing_context, variant, bases, index):
    """Element `index` of every row, widened to the compute type."""

    def build(context, builder, signature, args):
        _, bases, index = args
        to = context.get_value_type(variant.compute)
        values = []
        for r, name in enumerate(variant.dtypes):
            pointer = _pointer(builder, builder.extract_value(bases, r), index, name)
            values.append(_widen(builder, builder.load(pointer, align=1), name, to))
        return cgutils.pack_array(builder, values)

    return nt.UniTuple(variant.compute, len(variant.dtypes))(variant, bases, nt.intp), build


@intrinsic
def store_row(typing_context, variant, bases, index, values):
    """Parameter and states, rounded to their stored dtypes; row 0, the gradient, is only read."""

    def build(context, builder, signature, args):
        _, bases, index, values = args
        for r, name in enumerate(variant.dtypes[1:], start=1):
            value = _round(builder, builder.extract_value(values, r - 1), name)
            builder.store(value, _pointer(builder, builder.extract_value(bases, r), index, name), align=1)
        return context.get_dummy_value()

    return nt.none(variant, bases, nt.intp, values), build
