"""Triton: what a step's values come to, added up in an order that no block, chunk or warp can change.

The elements of a block are added up as a binary tree over neighbours; the sums of blocks, which the host adds up likewise, make the same
tree, whatever their size.
"""

from .. import tables
from ..lang import jit, tl

INFINITY = tl.constexpr(float("inf"))
UNIT = tl.constexpr(tables.UNIT)
OTHERS = tl.constexpr(len(tables.UNIT_SUMS) + len(tables.UNIT_COUNTS))  # columns of unit_sums beside the states


@jit
def tree_sum(x, LEVELS: tl.constexpr):
    """Of 2**LEVELS numbers. Only sums of two, whose order does not matter, are left to the compiler."""
    for level in tl.static_range(LEVELS):
        x = tl.sum(tl.reshape(x, [1 << (LEVELS - 1 - level), 2]), axis=1)
    return tl.sum(x, axis=0)


@jit
def store_sum(ptr, column: tl.constexpr, value, inside, LEVELS: tl.constexpr):
    """inside: which elements count; None: all."""
    if inside is not None:
        value = tl.where(inside, value, 0.0)
    tl.store(ptr + column, tree_sum(value, LEVELS))


@jit
def measure_block(ptr, grad, before, param, state, first, limit, LEVELS: tl.constexpr):
    """Write a row of unit_sums.

    Args:
        ptr: to it.
        grad: without its loss scale.
        before, param: the parameter before the step and after it.
        state: after it.
        first, limit: as of step.update_block().
    """
    N_STATES: tl.constexpr = len(state)
    inside = None if limit is None else first + tl.arange(0, 1 << LEVELS) < limit
    change = param - before
    store_sum(ptr, 0, grad * grad, inside, LEVELS)
    store_sum(ptr, 1, change * change, inside, LEVELS)
    store_sum(ptr, 2, param * param, inside, LEVELS)
    for n in tl.static_range(N_STATES):
        store_sum(ptr, 3 + n, state[n] * state[n], inside, LEVELS)
    size = tl.abs(grad)
    store_sum(ptr, 3 + N_STATES, tl.where(grad == 0.0, 1.0, 0.0).to(grad.dtype), inside, LEVELS)
    store_sum(ptr, 4 + N_STATES, tl.where(size < INFINITY, 0.0, 1.0).to(grad.dtype), inside, LEVELS)
    size = tl.where(size == size, size, 0.0)
    if inside is not None:
        size = tl.where(inside, size, 0.0)
    tl.store(ptr + 5 + N_STATES, tl.max(size, axis=0))


@jit
def row_of(unit_sums_ptr, first_unit_ptr, tensor, start, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    """Where the row of a tensor's block at element `start` is."""
    return unit_sums_ptr + (tl.load(first_unit_ptr + tensor) * (UNIT // BLOCK) + start // BLOCK) * COLUMNS
