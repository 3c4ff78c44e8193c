"""Tensors whose memory may come to hold the conjugates or the negatives of their values."""

from ..ownership.facts import Owned
from ..ownership.snapshot import StateTensor
from ..sharded import local
from ..state.strides import is_conj_or_neg
from .layout import Member


class LazyViews:
    """The tensors of a plan that may become lazy, which a snapshot does not see.

    A dense tensor of several real numbers is no lazy view (short of torch's private functions), a single or complex one may be.
    """

    def __init__(self, active: list[int], members: list[Member], states: list[StateTensor]):
        self._active = active
        self._grads = [m.active_index for m in members if not m.copies_grad and (m.param.is_complex() or m.param.numel() == 1)]
        self._params = [m.active_index for m in members if m.param.is_complex()]
        self._states = [k for k, each in enumerate(states) if each.tensor.is_complex()]
        self._possible = bool(self._grads or self._params or self._states)  # of most models none, and every step asks

    def appeared(self, owned: Owned) -> bool:
        """Whether one is lazy now."""
        return self._possible and (
            any(is_conj_or_neg(local(owned.grads[n])) for n in self._grads)
            or any(is_conj_or_neg(local(owned.params[self._active[n]])) for n in self._params)
            or any(is_conj_or_neg(local(owned.states[k])) for k in self._states)
        )
