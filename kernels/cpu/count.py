"""Counters of steps on CPUs: the users' tensors, each in memory of its own, counted at their addresses."""

import numba
import numpy as np
from numba.core import types as nt
from numba.extending import intrinsic

from ..caches import cached_njit


@intrinsic
def _pointer(typing_context, address):
    def build(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(nt.voidptr))

    return nt.voidptr(nt.int64), build


DTYPES = "float32", "float64", "int64", "int32"  # as torch names them


@cached_njit()
def _step(addresses, dtypes, counted, stored):
    """What each comes to with one more, which is stored in it or not."""
    for k in range(addresses.size):
        at = _pointer(addresses[k])
        if dtypes[k] == 0:
            single = numba.carray(at, 1, np.float32)
            following = single[0] + np.float32(1)
            if stored:
                single[0] = following
            counted[k] = following
        elif dtypes[k] == 1:
            double = numba.carray(at, 1, np.float64)
            double[0] += stored
            counted[k] = double[0] + (1 - stored)
        elif dtypes[k] == 2:
            long = numba.carray(at, 1, np.int64)
            long[0] += stored
            counted[k] = long[0] + (1 - stored)
        else:
            short = numba.carray(at, 1, np.int32)
            short[0] += stored
            counted[k] = short[0] + (1 - stored)


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
