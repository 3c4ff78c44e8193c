"""Counters of steps on CPUs: the users' tensors, float32 or float64, each in memory of its own, counted at their addresses."""

import numba
import numpy as np
from numba.core import types as nt
from numba.extending import intrinsic

from .c_api import cached_njit


@intrinsic
def _pointer(typing_context, address):
    def build(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(nt.voidptr))

    return nt.voidptr(nt.int64), build


@cached_njit()
def _after_step(addresses, double, counted):
    for k in range(addresses.size):
        if double[k]:
            counted[k] = numba.carray(_pointer(addresses[k]), 1, np.float64)[0] + 1
        else:
            counted[k] = numba.carray(_pointer(addresses[k]), 1, np.float32)[0] + np.float32(1)


@cached_njit()
def _count(addresses, double):
    for k in range(addresses.size):
        if double[k]:
            numba.carray(_pointer(addresses[k]), 1, np.float64)[0] += 1
        else:
            numba.carray(_pointer(addresses[k]), 1, np.float32)[0] += np.float32(1)


class Counters:
    """Some of the counters of an optimizer.

    Args:
        double: bool [n]: which are float64; the others are float32.

    Attributes:
        addresses: int64 [n], to be written whenever they may have changed.
    """

    def __init__(self, double: np.ndarray):
        self.addresses, self._double, self._counted = np.zeros(len(double), np.int64), double, np.zeros(len(double))
        # the machine code: a call through Numba's dispatcher takes microseconds
        self._after_step = _after_step.compile(tuple(map(numba.typeof, (self.addresses, double, self._counted))))
        self._count = _count.compile(tuple(map(numba.typeof, (self.addresses, double))))

    def after_step(self) -> np.ndarray:
        """What each comes to with a step that is not yet counted: float64 [n], until the next call; float32 ends at 2**24, as torch's."""
        self._after_step(self.addresses, self._double, self._counted)
        return self._counted

    def count(self) -> None:
        """Add a step to each."""
        self._count(self.addresses, self._double)
