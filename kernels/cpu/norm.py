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
from ..tables import UNSCALE, NormTables
from .language import compile_rule
from .memory import Variant, load_row
from .packed import values_at
from .step import array, column, common_of, packed
from .threads import Loop, Threads, compile_loop

LEVELS = 10
LANES = 1 << LEVELS
CHUNK = 16 * LANES  # elements whose squares make one sum


def _add_square(variant, squares, values, grad_scale, common):
    """Replaced by its overload: squares, and that of what `rules.normed` makes of the gradient."""


@overload(_add_square)
def _(variant, squares, values, grad_scale, common):
    normed = compile_rule(rules.normed, variant.compute)

    def add_square(variant, squares, values, grad_scale, common):
        grad = normed(values[0], grad_scale, common)
        return fma(grad, grad, squares)

    return add_square


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
def _squares(variant, tables_at, chunk, first, last, sums):
    """What a thread of norm.squares_kernel does: chunks `first` up to `last`; arguments as in step.py, of NormTables."""
    tables = values_at(tables_at)
    # once: to take an array out of a tuple costs an atomic count
    addresses, numels, groups, hyper, first_sum = tables.addresses, tables.numels, tables.groups, tables.hyper, tables.first_sum
    chunk_tensor, chunk_start, scalars = tables.chunk_tensor, tables.chunk_start, tables.scalars
    lanes, scratch = np.empty(LANES, hyper.dtype), np.empty(LANES)
    for k in range(first, last):
        tensor = chunk_tensor[k]
        start = chunk_start[k]
        end = min(start + chunk, numels[tensor])
        bases = column(variant, addresses, tensor)
        common = common_of(variant, hyper, groups[tensor])
        grad_scale = common.grad_scale * hyper.dtype.type(scalars[UNSCALE])
        width = _lanes_in_use(end - start)
        for i in range(width):
            lanes[i] = 0
        for begin in range(start, end, LANES):
            for i in range(min(LANES, end - begin)):
                lanes[i] = _add_square(variant, lanes[i], load_row(variant, bases, begin + i, 0), grad_scale, common)
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
def _compiled_squares(dtype: str, compute: nt.Float) -> Loop:
    variant = Variant("normed", Storage(((dtype,),)), compute)
    return compile_loop(_squares, variant, packed(NormTables, compute), array("sums"))


def prepare_squares(dtype: str, tables) -> Threads:
    """What writes the sums of squares of a bucket; dtype is that of the gradients, tables: NormTables of NumPy arrays."""
    loop = _compiled_squares(dtype, numba.from_dtype(tables.hyper.dtype))
    return Threads(loop, tables, CHUNK)


@functools.cache
def _compiled_norms():
    return _norms.compile((array("sums"), array("spans"), array("norms")))


def norms(sums: np.ndarray, spans: np.ndarray, out: np.ndarray) -> None:
    """Arguments of norm.norms_kernel."""
    _compiled_norms()(sums, spans, out)
