"""Numba: L2 norms of gradients, by the additions of norm.py in the same order."""

import functools
import math

import numba
import numpy as np
from numba.core import types as nt
from numba.extending import overload

from .. import rules
from ..caches import cached_njit
from ..fma import fma
from ..storage import Storage
from .memory import Variant, load_row
from .step import FLOAT64, INT32, INT64, MIN_WORK, compile_rule, fixed, unscaled
from .threads import Loop, Threads, compile_loop

LEVELS = 10
LANES = 1 << LEVELS
CHUNK = 16 * LANES  # elements whose squares make one sum


def _with_square(variant, squares, values, hyper):
    """Replaced by its overload: squares, and that of what `rules.normed` makes of the gradient."""


@overload(_with_square)
def _(variant, squares, values, hyper):
    normed = compile_rule(rules.normed, variant.compute)
    n_common = len(rules.COMMON)

    def with_square(variant, squares, values, hyper):
        grad = normed(values[0], hyper[:n_common])
        return fma(grad, grad, squares)

    return with_square


@numba.njit
def _lanes_in_use(n):
    """The power of two that holds n numbers, at most LANES; adding the zeros beyond it would change nothing."""
    width = 1
    while width < min(n, LANES):
        width *= 2
    return width


@numba.njit
def _pairwise_sum(x, width):
    """Of the first numbers of x, which it overwrites."""
    while width > 1:
        width //= 2
        for i in range(width):
            x[i] += x[i + width]
    return x[0]


@cached_njit(nogil=True, error_model="numpy")
def _squares(variant, addresses, numels, groups, chunk_tensor, chunk_start, hyper, first_sum, scalars, sums, chunk, first, last):
    """Chunks first up to last of norm.squares_kernel, whose arguments these are; variant as in cpu.py."""
    lanes, scratch = np.empty(LANES, hyper.dtype), np.empty(LANES)
    for k in range(first, last):
        tensor = chunk_tensor[k]
        start = chunk_start[k]
        end = min(start + chunk, numels[tensor])
        bases, row = fixed(variant, addresses, tensor, hyper, groups[tensor])
        row = unscaled(variant, row, hyper.dtype.type(scalars[1]))
        width = _lanes_in_use(end - start)
        for i in range(width):
            lanes[i] = 0
        for begin in range(start, end, LANES):
            for i in range(min(LANES, end - begin)):
                lanes[i] = _with_square(variant, lanes[i], load_row(variant, bases, begin + i, ()), row)
        for i in range(width):
            scratch[i] = lanes[i]
        sums[first_sum[tensor] + start // chunk] = _pairwise_sum(scratch, width)


@cached_njit(nogil=True)
def _norms(sums, spans, norms):
    lanes = np.empty(LANES)
    for k in range(norms.size):
        first, last = spans[k]
        width = _lanes_in_use(last - first)
        for i in range(width):
            lanes[i] = 0
        for begin in range(first, last, LANES):
            for i in range(min(LANES, last - begin)):
                lanes[i] += sums[begin + i]
        norms[k] = math.sqrt(_pairwise_sum(lanes, width))


@functools.cache
def _compiled_squares(dtype: str, compute: nt.Float, n_hyper: int) -> Loop:
    variant = Variant("normed", Storage(((dtype,),)), compute, n_hyper)
    hyper = nt.Array(compute, 2, "C")
    return compile_loop(_squares, variant, nt.Array(nt.int64, 2, "C"), INT64, INT32, INT32, INT64, hyper, INT64, FLOAT64, FLOAT64)


def prepare_squares(dtype: str, tables) -> Threads:
    """What writes the sums of squares of a bucket; dtype is that of the gradients, tables as launch.NormTables of NumPy arrays."""
    loop = _compiled_squares(dtype, numba.from_dtype(tables.hyper.dtype), tables.hyper.shape[1])
    return Threads(loop, tables, CHUNK, MIN_WORK)


@functools.cache
def _compiled_norms():
    return _norms.compile((FLOAT64, nt.Array(nt.int64, 2, "C"), FLOAT64))


def norms(sums: np.ndarray, spans: np.ndarray, out: np.ndarray) -> None:
    """Arguments of norm.norms_kernel."""
    _compiled_norms()(sums, spans, out)
