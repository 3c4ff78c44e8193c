"""Version counters, by which autograd knows that a tensor has changed since it was saved for a backward."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import Parameter

from . import torch_words


class Versions:
    """The version counters of parameters; bumping them costs a quarter of what it else would.

    That needs torch's own words, which tell when a parameter has another counter.
    """

    def __init__(self, params: list[Tensor]):
        ours = [torch_words.WORDS.impl > 0 and type(param) in (Tensor, Parameter) for param in params]
        # a detached tensor shares the counter; it gets other memory, lest it keep the parameter's alive
        self._counters = [param.detach() for param, own in zip(params, ours, strict=True) if own]
        self._others = [k for k, own in enumerate(ours) if not own]
        self._owners = []  # a tensor that only Python owns is handed over, and back, whenever C++ looks at it: 40 ns
        for counter in self._counters:
            counter.data = torch.empty(0, dtype=counter.dtype, device=counter.device)
            owner = torch.empty_like(counter)
            owner.grad = counter
            self._owners.append(owner)

    def increment(self, params: Callable[[], list[Tensor]]) -> None:
        """params: the same as before, asked for if some are not bumped by their counters."""
        increment_version(self._counters)
        if self._others:
            now = params()
            increment_version([now[k] for k in self._others])
