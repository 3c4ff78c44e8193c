"""The language that rules are written in: Triton's, or just enough of it for the Numba driver where Triton does not exist."""

from types import SimpleNamespace

try:
    import triton
    import triton.language as tl
except ImportError:  # macOS, Windows: the CPU driver reads only the source of a rule, and compiles tl's names itself

    def _name(name):
        def function(*args):
            raise RuntimeError(f"tl.{name} runs inside a compiled rule only")

        return function

    triton = None
    tl = SimpleNamespace(constexpr=lambda value: value, sqrt=_name("sqrt"), where=_name("where"))
    jit = lambda fn: SimpleNamespace(fn=fn, __name__=fn.__name__)  # noqa: E731
    clip = _name("clip")
    quotient = _name("quotient")
else:
    jit = triton.jit

    @jit
    def clip(x, limit):
        """To [-limit, limit]; NaN stays NaN."""
        if x.dtype == tl.float64:  # GPUs have no such instruction for it
            return tl.where(x > limit, limit, tl.where(x < -limit, -limit, x))
        return tl.clamp(x, -limit, limit, tl.PropagateNan.ALL)

    @jit
    def quotient(x, y):
        """x / y, y not negative, to 3 units in the last place: in half of the instructions that GPUs take to divide any numbers."""
        if y.dtype == tl.float64:
            return x / y
        root = tl.rsqrt(y)
        return x * root * root


def is_rule(value) -> bool:
    """A function written in this language, whichever of the three forms it has: compiled, interpreted, source only."""
    return hasattr(value, "fn") and callable(value.fn)


def interpreted() -> bool:
    """Whether TRITON_INTERPRET=1 was set when the kernels were decorated."""
    return triton is not None and not isinstance(_probe, triton.JITFunction)


@jit
def _probe():
    pass
