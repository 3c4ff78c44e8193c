"""What an optimizer's parameters, gradients, states and counters looked like, and where they lie, if they still look so.

A stale address is memory corruption. So before every step all that the tables were made from is reached anew, from the lists and
dicts of the optimizer, and compared; what was reached is held until the launch has ended, and nothing of it in between.
"""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import Parameter

from ..sharded import is_sharded, local
from . import c_api, torch_words
from .facts import FACTS, KINDS, LOOKED_UP, MAY_OVERLAP, MOST_KINDS, MOVED, UNSURE, Objects, Owned, Record
from .memory import extent, has_memory
from .scan import OTHER_GRADS, SAME, Scan, enter_written

_CHANGED = "the optimizer's state changed while step() read it: another thread may be writing it"


class StateTensor(NamedTuple):
    """A tensor in the optimizer's state that a step writes."""

    values: dict[str, Any]  # the state of its parameter
    key: str
    tensor: Tensor


def held_in(values: dict[str, Any], tensors: dict[str, Tensor]) -> list[StateTensor]:
    """Tensors as the state of a parameter holds them; of DTensors the local ones are given, whose addresses a launch will read.

    Raises:
        RuntimeError: it holds others by now: nobody would keep the memory of these.
    """
    held = [StateTensor(values=values, key=key, tensor=values[key]) for key in tensors]
    if any(local(each.tensor) is not tensors[each.key] for each in held):
        raise RuntimeError(_CHANGED)
    return held


def _ids(values) -> np.ndarray:
    return np.fromiter(map(id, values), np.int64)


def _by_dict(held: list[StateTensor]) -> np.ndarray:
    """Indices of tensors in states, those of a dict one after the other: while it is at hand."""
    order: dict[int, int] = {}
    return np.argsort(np.array([order.setdefault(id(each.values), len(order)) for each in held], np.int64), kind="stable")


def _looks(tensor: Tensor | None) -> tuple | None:
    """All that decides what a launch would make of it, but for its address."""
    if tensor is None or tensor.layout is not torch.strided:
        return None
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _record_of(tensors: list[Tensor], n_active: int) -> Record:
    """What is known of the tensors before a scan: active parameters and gradients in turn, states, counters."""
    n = len(tensors)
    n_dims = np.array([2 * tensor.dim() for tensor in tensors], np.int64)
    facts = np.zeros(n, FACTS)
    facts["object"] = _ids(tensors)
    facts["itemsize"] = [tensor.itemsize for tensor in tensors]
    facts["extent"] = [extent(tensor) * tensor.itemsize for tensor in tensors]
    facts["dims"], facts["kind"] = np.cumsum(n_dims) - n_dims, -1
    facts["fixed"][2 * n_active : n - n_active] = True  # states: counters are written where they lie
    facts["written"][: 2 * n_active : 2] = True
    facts["written"][2 * n_active :] = True
    flags = np.array([MOVED], np.int64)
    return Record(
        facts=facts,
        addresses=np.zeros(n, np.int64),
        kinds=np.zeros(MOST_KINDS, KINDS),
        dims=np.zeros(n_dims.sum(), np.int64),
        dlpack=np.zeros((n, 2), np.int64),
        written=np.zeros(1 << (2 * n).bit_length(), np.int64),
        flags=flags,
    )


class Snapshot:
    """What tensors looked like; keeps none of them alive.

    Args:
        lists: the parameters of each parameter group.
        active: indices of those that have a gradient, among all of them.
        grads: their gradients.
        state: the optimizer's.
        held: the tensors in it that a step writes, the counters last.

    Attributes:
        address: int64 [2, n_active], of parameters and of gradients; written by `own`.
        counter_address: int64 [n_active], likewise.
        flags: what `own` has found: MOVED, MAY_OVERLAP, UNSURE, LOOKED_UP.
        other_grads: `own` has returned None since other parameters have gradients.
    """

    flags, other_grads = 0, False

    def __init__(self, lists: list[list[Tensor]], active: list[int], grads: list[Tensor], state: dict, held: list[StateTensor]):
        params = list(chain.from_iterable(lists))
        if not {id(each.values) for each in held} <= set(map(id, state.values())):  # they are reached through it
            raise RuntimeError(_CHANGED)
        self._lengths, self._n_states, self._active = list(map(len, lists)), len(state), active
        self._idle = sorted(set(range(len(params))) - set(active))
        self._keys = [each.key for each in held]
        whole = [tensor for k, grad in zip(active, grads, strict=True) for tensor in (params[k], grad)]
        whole += [each.tensor for each in held]
        tensors = [local(tensor) for tensor in whole]
        self._objects = Objects(
            params=_ids(params),
            active=np.array(active, np.int64),
            idle=np.array(self._idle, np.int64),
            keys=_ids(state),
            values=_ids(state.values()),
            dicts=_ids(each.values for each in held),
            names=_ids(self._keys),
            states=_ids(each.tensor for each in held),
            by_dict=_by_dict(held),
        )
        self._classes = set(map(type, tensors))  # so that their addresses in Record.kinds stay theirs
        self._record = _record_of(tensors, len(active))
        self._record.facts["sharded"] = [tensor is not each for tensor, each in zip(tensors, whole, strict=True)]
        self._n_references = len(held), len(active), len(tensors) if self._record.facts["sharded"].any() else 0
        self._wrapped = [k for k in active if is_sharded(params[k])]
        self._first, addresses = MOVED, self._record.addresses  # of the first `own`
        self.address = addresses[: 2 * len(active)].reshape(-1, 2).T
        self.counter_address = addresses[len(tensors) - len(active) :]
        self._scan, self._count_versions, self._grad = None, None, Parameter.grad
        if c_api.API.exchange:
            api = c_api.API if self._grad is c_api.GRAD_OF_PARAMETER else c_api.API._replace(parameter=0)
            self._scan = Scan(api, torch_words.WORDS, self._objects, self._record)
            if not self._scan.take():
                raise RuntimeError("DLPack does not tell where a tensor lies")
            self._count_versions = self._scan.count_versions
        else:
            self._looks = list(map(_looks, tensors))
            addresses[:] = [tensor.data_ptr() for tensor in tensors]

    def own(self, lists: list[list], state: dict) -> Owned | None:
        """References, if all is as it was and has memory of its own, else None; reads the addresses."""
        self.other_grads = False
        if Parameter.grad is not self._grad or list(map(len, lists)) != self._lengths or len(state) != self._n_states:
            return None
        if self._scan:
            n_states, n_active, n_shards = self._n_references
            owned = Owned(list(chain.from_iterable(lists)), [None] * n_states, [None] * n_active, [None] * n_shards)
            self.flags = found = self._scan.scan(id(state), *map(id, owned))
            if not found & SAME:
                self.other_grads = found == OTHER_GRADS
                return None
        else:
            owned = self._own_by_python(lists, state)
        if owned and self.flags & UNSURE:  # a storage may be smaller at the same address
            tensors = self._tensors(owned)
            if not all(has_memory(tensors[k]) for k in np.flatnonzero(self._record.facts["kind"] < 0)):
                return None
        return owned

    def _own_by_python(self, lists: list[list], state: dict) -> Owned | None:
        params, objects = [param for each in lists for param in each], self._objects
        values = {id(each): each for each in state.values()}
        if not all(map(np.array_equal, map(_ids, (params, state, state.values())), (objects.params, objects.keys, objects.values))):
            return None
        states = [values[each].get(key) for each, key in zip(objects.dicts, self._keys, strict=True)]
        if not np.array_equal(_ids(states), objects.states):
            return None
        owned = Owned(params, states, [params[k].grad for k in self._active], [])
        if any(params[k].grad is not None for k in self._idle) or any(grad is None for grad in owned.grads):
            self.other_grads = True
            return None
        tensors = self._tensors(owned)
        if list(map(_looks, tensors)) != self._looks:
            return None
        now, before = np.array([tensor.data_ptr() for tensor in tensors], np.int64), self._record.addresses
        moved = now != before
        if moved[self._record.facts["fixed"]].any():
            return None
        self.flags = self._first | UNSURE | LOOKED_UP | ((MOVED | MAY_OVERLAP) if moved.any() else 0)
        self._first = 0
        before[:] = now
        return owned._replace(shards=tensors)

    def _tensors(self, owned: Owned) -> list[Tensor]:
        """All of them, local ones of DTensors, in the order of a Record."""
        pairs = (tensor for k, grad in zip(self._active, owned.grads, strict=True) for tensor in (owned.params[k], grad))
        return [local(tensor) for tensor in (*pairs, *owned.states)]

    def count_versions(self, owned: Owned) -> None:
        """Let autograd know that the parameters change, and the local tensors of DTensors; owned: what `own` has just returned."""
        if self._count_versions:
            self._count_versions()
        else:
            increment_version(self._tensors(owned)[: 2 * len(self._active) : 2])
        if self._wrapped:
            increment_version([owned.params[k] for k in self._wrapped])

    def overlaps(self) -> bool:
        """Whether memory of two tensors lies between each other's.

        To be asked only if what a step writes has moved since this was last asked, or a gradient into a storage of that: others have
        memory of their own, unless they were made over foreign memory.
        """
        facts = self._record.facts
        if c_api.API.exchange:
            enter_written(facts, self._record.written)
        extents = facts["extent"]
        begin = self._record.addresses[extents > 0]
        order = np.argsort(begin)
        begin, end = begin[order], (begin + extents[extents > 0])[order]
        return bool((end[:-1] > begin[1:]).any())
