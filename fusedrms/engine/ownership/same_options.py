"""Compiled: whether parameter groups hold the options that they did, by the addresses of their dicts' keys and values.

In Python each look at an option touches its name, its hash and its value: a third of the host's work of a small model's step.
"""

from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numba.core import types as nt

from ...kernels.caches import cached_njit
from ...kernels.cpu.packed import Packed, values_at
from .c_api import API, call


@cached_njit()
def _hold(at, groups):
    """Whether a list of dicts has those keys, in that order, with those values."""
    api, n_keys, keys, values = values_at(at)
    if call(api.list_size, (groups,)) != n_keys.size:
        call(api.clear_error, ())  # it is no list
        return False
    entry = np.zeros(3, np.int64)  # PyDict_Next's position, key, value
    next = entry.ctypes.data
    k = 0
    for g in range(n_keys.size):
        group = call(api.list_item, (groups, g))
        entry[0] = 0
        for _ in range(n_keys[g]):
            if not call(api.dict_next, (group, next, next + 8, next + 16)) & 0xFFFFFFFF:
                return False
            if entry[1] != keys[k] or (entry[2] != values[k] and values[k] != 0):
                return False
            k += 1
        if call(api.dict_next, (group, next, next + 8, next + 16)) & 0xFFFFFFFF:
            return False
    return True


class SameOptions:
    """The options of parameter groups as recipes were made of them.

    Args:
        groups: the parameter groups.
        names: of their options; what else they hold may be anything.
        options: the values of these in each group.
    """

    def __init__(self, groups: list[dict[str, Any]], names: list[str], options: list[tuple[Any, ...]]):
        self._keys = [list(dict.keys(group)) for group in groups]  # held, as the options are, so that their addresses stay theirs
        n_keys = np.fromiter(map(len, self._keys), np.int64)
        first = np.cumsum(n_keys) - n_keys
        self._places = np.array(
            [start + keys.index(name) for start, keys in zip(first, self._keys, strict=True) for name in names], np.int64
        )
        self._values = np.zeros(n_keys.sum(), np.int64)  # 0: any
        keys = np.fromiter(map(id, chain.from_iterable(self._keys)), np.int64)
        packed = self._packed = Packed((API, n_keys, keys, self._values))
        self._hold = partial(_hold.compile((packed.type, nt.int64)), packed.address)
        self.take(groups, options)

    def take(self, groups: list[dict[str, Any]], options: list[tuple[Any, ...]]) -> bool:
        """Other values than before; False if the groups have other keys than before."""
        if len(options) != len(self._keys):
            return False
        self._values[self._places] = np.fromiter(map(id, chain.from_iterable(options)), np.int64)
        self._options = options
        return self.hold(groups)

    def hold(self, groups: list[dict[str, Any]]) -> bool:
        """Whether the groups hold them."""
        return self._hold(id(groups))
