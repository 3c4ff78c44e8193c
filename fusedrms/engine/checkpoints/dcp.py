"""What torch.distributed.checkpoint is told apart for, by its frames: the keys of parameter groups, and steps that only make states."""

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, KeysView, Mapping
from types import FrameType
from typing import Any

from ..sharded import ProcessGroups
from .carrier import beyond_torch

_MODULE = "torch.distributed.checkpoint.state_dict"


class Group(dict[str, Any]):
    """A parameter group with all options; torch's flattened checkpoints, which load all keys that it has, see those that they have."""

    def __init__(self, group: Mapping[str, Any], options: Iterable[str]):
        super().__init__(group)
        self._hidden = beyond_torch(options)
        self.process_groups: ProcessGroups | None = None  # that the option had when a step or a checkpoint looked

    def _keys(self, caller: FrameType) -> KeysView[str]:
        keys = super().keys()
        if caller.f_globals.get("__name__") != _MODULE:
            return keys
        return {key: None for key in keys if key not in self._hidden}.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys(sys._getframe(1)))

    def keys(self) -> KeysView[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._keys(sys._getframe(1))  # torch 2.9 calls it

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter(self.items())  # which torch.load(weights_only=True) takes


def only_makes_states() -> bool:
    """Whether step() is called by torch.distributed.checkpoint, with lr 0 and gradients of zeros, to have states to load into."""
    code = getattr(getattr(sys.modules.get(_MODULE), "_init_optim_state", None), "__code__", None)
    frame = sys._getframe() if code else None
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None
