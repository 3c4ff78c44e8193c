"""tl.fma for Numba, and for Triton's interpreter, whose own rounds twice."""

import functools

import numpy as np
from numba.extending import intrinsic, overload

from .caches import cached_njit
from .lang import interpreted, tl


@intrinsic
def fma(typing_context, x, y, z):
    """x * y + z, rounded once; all of one float type."""
    return x(x, x, x), lambda context, builder, signature, args: builder.fma(*args)


@overload(tl.fma)
def _(x, y, z):
    return lambda x, y, z: fma(x, y, z)


@cached_njit(error_model="numpy")
def _rounded_once(x, y, z, results):
    for i in range(len(results)):
        results[i] = fma(x[i], y[i], z[i])


@functools.cache
def interpret() -> None:
    """Let the interpreter round once."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    rounded_twice = InterpreterBuilder.create_fma

    def create_fma(self, x, y, z):
        if z.data.dtype not in ("float32", "float64"):  # in others' kernels
            return rounded_twice(self, x, y, z)
        given = [np.ascontiguousarray(each) for each in np.broadcast_arrays(x.data, y.data, z.data)]
        results = np.empty_like(given[0])
        _rounded_once(*(each.reshape(-1) for each in given), results.reshape(-1))
        return TensorHandle(results, z.dtype.scalar)

    InterpreterBuilder.create_fma = create_fma


if interpreted():
    interpret()
