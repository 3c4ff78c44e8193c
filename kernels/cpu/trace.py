"""Runs an elementwise function of rounding.py or quant.py on LLVM values, so that both drivers have one source and the same bits.

Values have the dtypes, and literals take them, as in Triton. bfloat16 is kept as its bits, which every CPU vectorises.
"""

from types import SimpleNamespace

from llvmlite import ir

from ..lang import twin

_FLOATS = {"float64": ir.DoubleType(), "float32": ir.FloatType(), "float16": ir.HalfType()}
_INTS = {"bool": 1, "uint8": 8, "int8": 8, "uint16": 16, "int16": 16, "bfloat16": 16, "uint32": 32, "int32": 32, "int64": 64}
TYPES: dict[str, ir.Type] = {**_FLOATS, **{name: ir.IntType(bits) for name, bits in _INTS.items()}}


class Value:
    """An LLVM value and its dtype."""

    def __init__(self, builder: ir.IRBuilder, value, dtype: str):
        self.builder, self.value, self.dtype = builder, value, dtype

    def constant(self, number) -> "Value":
        if isinstance(number, Value):
            return number
        if self.dtype in _INTS:
            bits = _INTS[self.dtype]
            number = (number + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)  # LLVM writes them with a sign
        return Value(self.builder, ir.Constant(TYPES[self.dtype], number), self.dtype)

    def to(self, dtype: str, bitcast: bool = False) -> "Value":
        if bitcast:
            return Value(self.builder, self.builder.bitcast(self.value, TYPES[dtype]), dtype)
        return Value(self.builder, self._converted(dtype), dtype)

    def _converted(self, dtype: str):
        build, value, target = self.builder, self.value, TYPES[dtype]
        if dtype == self.dtype:
            return value
        if self.dtype in _FLOATS and dtype in _FLOATS:
            order = list(_FLOATS)
            return build.fptrunc(value, target) if order.index(dtype) > order.index(self.dtype) else build.fpext(value, target)
        unsigned = self.dtype == "bool" or "u" in (self.dtype if self.dtype in _INTS else dtype)
        if self.dtype in _FLOATS:
            return build.fptoui(value, target) if unsigned else build.fptosi(value, target)
        if dtype in _FLOATS:
            return build.uitofp(value, target) if unsigned else build.sitofp(value, target)
        if _INTS[dtype] <= _INTS[self.dtype]:
            return build.trunc(value, target) if _INTS[dtype] < _INTS[self.dtype] else value
        return build.zext(value, target) if unsigned else build.sext(value, target)

    def _binary(self, name: str, other, swapped: bool = False) -> "Value":
        a, b = (self.constant(other), self) if swapped else (self, self.constant(other))
        prefix = "f" if self.dtype in _FLOATS else ""
        return Value(self.builder, getattr(self.builder, prefix + name)(a.value, b.value), self.dtype)

    def _compared(self, sign: str, other) -> "Value":
        compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        if self.dtype in _INTS:
            compare = self.builder.icmp_unsigned if "u" in self.dtype else self.builder.icmp_signed
        return Value(self.builder, compare(sign, self.value, self.constant(other).value), "bool")

    def __add__(self, other):
        return self._binary("add", other)

    def __sub__(self, other):
        return self._binary("sub", other)

    def __mul__(self, other):
        return self._binary("mul", other)

    def __truediv__(self, other):
        return self._binary("div", other)

    def __rmul__(self, other):
        return self._binary("mul", other, swapped=True)

    def __rtruediv__(self, other):
        return self._binary("div", other, swapped=True)

    def __rsub__(self, other):
        return self._binary("sub", other, swapped=True)

    def __and__(self, other):
        return self._binary("and_", other)

    def __or__(self, other):
        return self._binary("or_", other)

    def __xor__(self, other):
        return self._binary("xor", other)

    def __lshift__(self, other):
        return self._binary("shl", other)

    def __rshift__(self, other):
        return self._binary("lshr" if "u" in self.dtype else "ashr", other)

    def __neg__(self):
        return Value(self.builder, (self.builder.fneg if self.dtype in _FLOATS else self.builder.neg)(self.value), self.dtype)

    def __lt__(self, other):
        return self._compared("<", other)

    def __gt__(self, other):
        return self._compared(">", other)

    def __eq__(self, other):
        return self._compared("==", other)

    def __ne__(self, other):
        return self._compared("!=", other)

    __hash__ = None


def _where(condition: Value, a, b) -> Value:
    if not isinstance(a, Value):  # beside another number, one of 32 bits
        a = (b if isinstance(b, Value) else Value(condition.builder, None, "uint32")).constant(a)
    return Value(a.builder, a.builder.select(condition.value, a.value, a.constant(b).value), a.dtype)


def _minimum(a: Value, b) -> Value:
    return _where(a < b, a, b)


def _maximum(a: Value, b) -> Value:
    return _where(a > b, a, b)


def _intrinsic(name: str):
    def function(x: Value) -> Value:
        callee = x.builder.module.declare_intrinsic(f"llvm.{name}", [TYPES[x.dtype]])
        return Value(x.builder, x.builder.call(callee, [x.value]), x.dtype)

    return function


def _fma(x: Value, y, z) -> Value:
    return Value(x.builder, x.builder.fma(x.value, x.constant(y).value, x.constant(z).value), x.dtype)


_FUNCTIONS = dict(where=_where, minimum=_minimum, maximum=_maximum, fma=_fma)
_FUNCTIONS |= dict(sqrt=_intrinsic("sqrt"), abs=_intrinsic("fabs"))
_TL = SimpleNamespace(**_FUNCTIONS, **{name: name for name in TYPES})


def traced(function):
    """The function on Values: tl's names, and the functions that it calls, in their form for them."""
    return twin(function, {"tl": _TL, "BY_BITS": True})
