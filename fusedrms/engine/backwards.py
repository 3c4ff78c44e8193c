"""The norm of all gradients in a backward, of which each is used, and freed, before the next is there."""

from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .run import Run

_engine: Any = torch.autograd.Variable._execution_engine  # pyright: ignore[reportAttributeAccessIssue]


class Backwards:
    """Which steps of single parameters belong to one backward, and the norm of their gradients together; without a wait for a device.

    Args:
        parts: what the steps of each parameter leave behind; a part without a norm does not count.
        limits: whether the norm of each backward limits the gradients of the next.

    Attributes:
        previous: the norm of the backward before, without gradients that were not finite; None: there was none.
        loaded: what previous is after restart().
    """

    def __init__(self, parts: "Iterable[Run]", limits: bool):
        self.limits = limits
        self.previous: Tensor | float | None = None
        self.loaded: float | None = None
        self._parts = parts
        self._following: Tensor | float | None = None  # once it is known
        self._number = 0  # of the backward under way, or of the last one
        self._is_running = False
        self._lock = Lock()  # autograd has a thread for each device

    def enter(self, part: "Run") -> None:
        """The step of a part comes next. Outside of a backward it belongs to the last one.

        A backward ends where autograd says so; what runs within, as reentrant checkpoints do, is a part of it. If one has failed,
        autograd says nothing, and the next begins with a parameter that has been seen.
        """
        in_backward = torch._C._current_graph_task_id() >= 0  # pyright: ignore[reportAttributeAccessIssue]
        with self._lock:
            if part.backward == self._number or (in_backward and not self._is_running):
                self.previous, self._following = self.following(), None
                self._number += 1
                self._is_running = in_backward
                if in_backward:
                    _engine.queue_callback(self._end_last)

    def leave(self, part: "Run", norm: Tensor | None) -> None:
        """Its step has been made, with a gradient of this norm; None: not measured."""
        if norm is not None:
            part.backward, part.norm, self._following = self._number, norm, None

    def _end_last(self) -> None:
        """After all that others do at the end: FSDP2 has the last gradients only there."""
        _engine.queue_callback(self._end)

    def _end(self) -> None:
        """Here, since the caller's stream has waited for those of all steps, and those of the next backward will wait for it."""
        self._is_running = False
        self.following()

    def _norms(self) -> Tensor | None:
        """In an order that depends on nothing but them, so that their sum does not either."""
        norms = [part.norm for part in self._parts if part.backward == self._number and part.norm is not None]
        return torch.stack([norm.to(norms[0].device) for norm in norms]).sort().values if norms else None

    def norm(self) -> Tensor | None:
        """Of all gradients in the last backward, 0-d float64; None if none was measured."""
        norms = self._norms()
        return None if norms is None else norms.norm()

    def following(self) -> Tensor | float | None:
        """What `previous` is in the next backward."""
        if self._following is None:
            norms = self._norms() if self.limits else None
            self._following = self.previous if norms is None else norms.nan_to_num(nan=0.0, posinf=0.0).norm()
        return self._following

    def restart(self) -> None:
        """Forget what has been measured."""
        self._number += 1
        self.previous, self._following, self.loaded = self.loaded, None, None
