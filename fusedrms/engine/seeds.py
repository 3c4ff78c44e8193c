"""Seeds of optimizers that are given none."""

import gc
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import count
from typing import Any
from weakref import WeakValueDictionary
from zlib import crc32

from torch import Tensor
from torch.nn.parameter import is_lazy as is_uninitialized

_alive: defaultdict[tuple, WeakValueDictionary[int, Any]] = defaultdict(WeakValueDictionary)  # optimizers of such parameters, numbered


@cache
def _collect() -> None:
    """Once: torch has a cycle that keeps the frames in which a process has made its first optimizer, and so that one."""
    gc.collect()


def default_seed(optimizer: Any, params: Iterable[Tensor]) -> int:
    """Made of the parameters' shapes and dtypes, and the first number that no other living optimizer of such parameters has."""
    kinds = tuple(None if is_uninitialized(param) else (tuple(param.shape), param.dtype) for param in params)
    if others := _alive[kinds]:
        _collect()
    number = next(n for n in count() if n not in others)
    others[number] = optimizer
    return (crc32(repr(kinds).encode()) + (number << 32)) % 2**64
