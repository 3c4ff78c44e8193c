"""The language that rules are written in: Triton's, or just enough of it for the Numba driver where Triton does not exist."""

import dis
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:  # macOS, Windows: the CPU driver reads only the source of a rule, and compiles tl's names itself

    def _name(name):
        def function(*args):
            raise RuntimeError(f"tl.{name} runs inside a compiled rule only")

        return function

    triton = None
    tl = ModuleType("tl")  # as Numba knows its attributes
    tl.constexpr = lambda value: value
    for _function in ("sqrt", "rsqrt", "where", "fma", "abs", "exp", "log"):
        setattr(tl, _function, _name(_function))

    class jit:
        """A function of which only the source is read; by its identity a key, as Triton's are."""

        def __init__(self, fn):
            self.fn, self.__name__ = fn, fn.__name__

    at_least, clip, quotient, rounded_quotient, reciprocal, normal = map(
        _name, ("at_least", "clip", "quotient", "rounded_quotient", "reciprocal", "normal")
    )
    larger, smaller, like = map(_name, ("larger", "smaller", "like"))
else:
    jit = triton.jit

    @jit
    def clip(x, limit):
        """To [-limit, limit]; NaN stays NaN."""
        if x.dtype == tl.float64:  # GPUs have no such instruction for it
            sign = x.to(tl.uint64, bitcast=True) & 0x8000000000000000
            bound = (limit.to(tl.uint64, bitcast=True) | sign).to(tl.float64, bitcast=True)
            return tl.where(tl.abs(x) > limit, bound, x)
        # not tl.clamp(), which the compiler does not drop where the limit is known to be infinite
        return tl.minimum(tl.maximum(x, -limit, tl.PropagateNan.ALL), limit, tl.PropagateNan.ALL)

    @jit
    def at_least(x, least):
        """The larger one; NaN stays NaN."""
        if x.dtype == tl.float64:  # likewise
            return tl.where(x < least, least, x)
        return tl.maximum(x, least, tl.PropagateNan.ALL)

    @jit
    def quotient(x, y):
        """x / y, y of a `normal` size and not negative, in half of the instructions that GPUs take to divide any numbers.

        To 6 units in the last place: the PTX ISA lets rsqrt be off by 2**-22.9 of itself, and both products are rounded.
        """
        if y.dtype == tl.float64:
            return x / y
        root = tl.rsqrt(y)
        return x * root * root

    @jit
    def rounded_quotient(x, y):
        """x / y as IEEE 754 has it: the same bits on every device."""
        if y.dtype == tl.float64:
            return x / y
        else:
            return tl.div_rn(x, y)

    @jit
    def reciprocal(y):
        """1 / y, y at least 1 and its last bit dropped, to nearest: the same bits on every device, in a third of a division's instructions.

        Were all bits of its fraction set, the second step would not round as IEEE 754 has it.
        """
        if y.dtype == tl.float64:
            return 1.0 / y
        else:
            y = tl.minimum(y, 85070591730234615865843651857942052864.0, propagate_nan=tl.PropagateNan.ALL)  # 2**126: no step is subnormal
            y = (y.to(tl.uint32, bitcast=True) & 0xFFFFFFFE).to(tl.float32, bitcast=True)
            root = tl.rsqrt(y)
            r = root * root
            negative = y * -1.0  # -y is 0 - y to Triton, an instruction more
            r = tl.fma(tl.fma(negative, r, 1.0), r, r)
            return tl.fma(tl.fma(negative, r, 1.0), r, r)

    @jit
    def normal(x):
        """x, not negative, but at least the smallest number that a GPU does not take for 0 where it approximates."""
        return tl.maximum(x, 2.2250738585072014e-308 if x.dtype == tl.float64 else 1.1754943508222875e-38)

    @jit
    def larger(x, y):
        """As torch.maximum(): a NaN of either stays. x is no literal."""
        if x.dtype == tl.float64:  # GPUs have no such instruction for it
            most = tl.where(x < y, y, x)
            return tl.where(y == y, most, y)
        return tl.maximum(x, y, tl.PropagateNan.ALL)

    @jit
    def smaller(x, y):
        """As torch.minimum(), likewise."""
        if x.dtype == tl.float64:
            least = tl.where(x > y, y, x)
            return tl.where(y == y, least, y)
        return tl.minimum(x, y, tl.PropagateNan.ALL)

    @jit
    def like(x, value):
        """A literal, or a value for all elements, as a block such as x is, of its type."""
        return tl.full(x.shape, value, x.dtype)


def is_rule(value) -> bool:
    """A function written in this language, whichever of the three forms it has: compiled, interpreted, source only."""
    return hasattr(value, "fn") and callable(value.fn)


def constant(value):
    """The value of a tl.constexpr; another one as it is."""
    return value.value if triton is not None and isinstance(value, tl.constexpr) else value


def twin(function: Any, found: Mapping[str, Any], made: Callable[[Callable], Any] = lambda copy: copy) -> Any:
    """A copy of a function of this language, and of those that it calls, for others than its compilers.

    Args:
        found: what copies find under global names, in place of what the function does.
        made: what is done to each copy.
    """
    code = function.fn.__code__
    names = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"} - found.keys()  # co_names has attributes too
    known = {name: value for name, value in function.fn.__globals__.items() if name in names}
    scope = {name: twin(value, found, made) if is_rule(value) else constant(value) for name, value in known.items()}
    copy = FunctionType(code, {"__name__": function.fn.__module__, **scope, **found}, code.co_name)
    copy.__annotations__ = function.fn.__annotations__
    return made(copy)


def interpreted() -> bool:
    """Whether TRITON_INTERPRET=1 was set when the kernels were decorated."""
    return triton is not None and not isinstance(_probe, triton.JITFunction)


@jit
def _probe():
    pass
