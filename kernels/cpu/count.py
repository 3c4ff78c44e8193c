"""Counters of steps on CPUs: the users' tensors, each in memory of its own, counted at their addresses.

Processes may share them. So each is read, changed and written at once: one that was interrupted in between would set a counter back to
where it had been, by as many steps as the others have made meanwhile.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import types as nt
from numba.extending import intrinsic

from ..caches import cached_njit


def _at(context, builder: ir.IRBuilder, address, one: nt.Number):
    return builder.inttoptr(address, context.get_value_type(one).as_pointer())


@intrinsic
def _read(typing_context, address, one):
    """What lies at an address, of the type of `one`."""

    def build(context, builder, signature, args):
        return builder.load(_at(context, builder, args[0], one))

    return one(nt.int64, one), build


@intrinsic
def _add(typing_context, address, one):
    """Add `one` to what lies at an address: what it was. No other thread or process comes in between."""

    def build(context, builder, signature, args):
        add = "fadd" if isinstance(one, nt.Float) else "add"
        return builder.atomic_rmw(add, _at(context, builder, args[0], one), args[1], "monotonic")

    return one(nt.int64, one), build


DTYPES = "float32", "float64", "int64", "int32"  # as torch names them


@cached_njit()
def _after(address, one, stored):
    return (_add(address, one) if stored else _read(address, one)) + one


@cached_njit()
def _step(addresses, dtypes, counted, stored):
    """What each comes to with one more, which is stored in it or not."""
    for k in range(addresses.size):
        if dtypes[k] == 0:
            counted[k] = _after(addresses[k], np.float32(1), stored)
        elif dtypes[k] == 1:
            counted[k] = _after(addresses[k], np.float64(1), stored)
        elif dtypes[k] == 2:
            counted[k] = _after(addresses[k], np.int64(1), stored)
        else:
            counted[k] = _after(addresses[k], np.int32(1), stored)


class Counters:
    """Some of the counters of an optimizer.

    Args:
        dtypes: of each, one of DTYPES.

    Attributes:
        addresses: int64 [n], to be written whenever they may have changed.
    """

    def __init__(self, dtypes: list[str]):
        n = len(dtypes)
        self.addresses, self._dtypes = np.zeros(n, np.int64), np.array([DTYPES.index(dtype) for dtype in dtypes], np.int8)
        self._counted = np.zeros(n)
        # the machine code: a call through Numba's dispatcher takes microseconds
        self._step = _step.compile(tuple(map(numba.typeof, (self.addresses, self._dtypes, self._counted, 1))))

    def after_step(self) -> np.ndarray:
        """What each comes to with a step that is not yet counted: float64 [n], until the next call; float32 ends at 2**24, as torch's."""
        self._step(self.addresses, self._dtypes, self._counted, 0)
        return self._counted

    def count(self) -> None:
        """Add a step to each."""
        self._step(self.addresses, self._dtypes, self._counted, 1)
