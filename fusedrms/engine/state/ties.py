"""Ties of split masters: halfway between two bfloat16, where a copy goes to the even one and the kernels away from 0.

A remainder is too small to say which of the two its parameter is. So where a master goes out, and may come back by
``param.copy_(master)``, the ties are remembered, until a step has put right what that has changed.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ..sharded import local
from .precision import REMAINDERS


def is_remainder(master: object) -> TypeGuard[Tensor]:
    """Whether what a state has as master is the bits that its bfloat16 parameter lacks."""
    return isinstance(master, Tensor) and master.dtype in REMAINDERS.values()


def _of(param: Tensor, remainder: Tensor) -> Tensor:
    """int64 [n]: of each tie the place in a flattened parameter, then 16 bits, those of the parameter: the last tells the even ones."""
    places = (remainder == torch.iinfo(remainder.dtype).min).flatten().nonzero().flatten()
    return places << 16 | param.view(torch.int16).take(places).long() & 0xFFFF


def _restore(param: Tensor, remainder: Tensor, ties: Tensor) -> None:
    ties = ties.to(param.device)
    ties = ties[ties & 1 == 1]
    copied = torch.isin(ties & ~1, _of(param, remainder))
    param.view(torch.int16).put_(ties[copied] >> 16, ties[copied].to(torch.int16))


class Ties:
    """Those of the parameters whose masters have gone out since their last step.

    Keeps no parameter alive, and no weak reference to one, with which torch.utils.swap_tensors would refuse it.

    Attributes:
        known: by the parameter's id and the address of its remainder.
        settled: likewise: those that the step now has put right.
    """

    def __init__(self):
        self.known: dict[tuple[int, int], Tensor] = {}
        self.settled: dict[tuple[int, int], Tensor] = {}

    def clear(self) -> None:
        self.known.clear()

    def exported(self, param: Tensor, values: Mapping[str, Any]) -> Tensor:
        """The local tensor of a parameter whose master goes out, as the kernels round it; values: the local tensors of its state."""
        rounded, remainder = local(param).detach(), values.get("master_param")
        if not is_remainder(remainder) or rounded.dtype != torch.bfloat16 or rounded.is_meta:
            return rounded
        key, remainder = (id(param), remainder.data_ptr()), remainder.to(rounded.device)
        known = self.known.get(key)
        if known is not None:
            rounded = rounded.clone()
            _restore(rounded, remainder, known)
        found = _of(rounded, remainder)
        if known is not None:  # what went out first counts: an average that was there in between may have gone out too
            known = known.to(found.device)
            found = torch.cat([known, found[~torch.isin(found & ~1, known & ~1)]])
        if found.numel():
            self.known[key] = found
        return rounded

    def settle(self, params: Iterable[Tensor], state: dict) -> None:
        """Before a step: let the parameters that it updates show their masters again where these were copied into them."""
        for param in params if self.known else ():
            remainder = local(state.get(param, {}).get("master_param"))
            if param.grad is None or not is_remainder(remainder):
                continue
            ties = self.known.pop((id(param), remainder.data_ptr()), None)
            if ties is not None:
                self.settled[id(param), remainder.data_ptr()] = ties
                _restore(local(param).detach(), remainder, ties)

    def end(self, made: bool) -> None:
        """After a step; if it was none after all, what it has put right may be copied once more."""
        if not made:
            self.known |= self.settled
        self.settled = {}
