"""tl.fma for Numba, and for Triton's interpreter, whose own rounds twice."""

import numba
from numba.extending import intrinsic, overload

from .lang import interpreted, tl


@intrinsic
def fma(typing_context, x, y, z):
    """x * y + z, rounded once; all of one float type."""
    return x(x, x, x), lambda context, builder, signature, args: builder.fma(*args)


@overload(tl.fma)
def _(x, y, z):
    return lambda x, y, z: fma(x, y, z)


if interpreted():
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    _rounded_once = numba.vectorize(["f4(f4, f4, f4)", "f8(f8, f8, f8)"])(lambda x, y, z: fma(x, y, z))
    _rounded_twice = InterpreterBuilder.create_fma

    def _create_fma(self, x, y, z):
        if z.data.dtype not in ("float32", "float64"):  # in others' kernels
            return _rounded_twice(self, x, y, z)
        return TensorHandle(_rounded_once(x.data, y.data, z.data), z.dtype.scalar)

    InterpreterBuilder.create_fma = _create_fma
