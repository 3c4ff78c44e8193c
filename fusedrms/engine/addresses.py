"""Addresses of parameters, gradients, states and counters, read only if nothing else about them has changed.

A stale address is memory corruption. So before every step all that the tables were made from is reached anew, from the lists and
dicts of the optimizer, and compared; what was reached is held until the launch has ended, and nothing of it in between. In Python
this is a microsecond a parameter; here a compiled loop asks CPython's C API, and DLPack's C interface (torch 2.10 on), which gives
all facts of a tensor in one call; where they are found (torch_words.py), it compares torch's own words instead.
"""

import functools
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import Parameter

from ..kernels.caches import cached_njit
from .c_api import FUNCTIONS, call, peek, prefetch, shape_address
from .torch_words import INLINE, KIND, Words, find

WORDS = find(shape_address) if FUNCTIONS.exchange else Words()
_GRAD, _PART = "grad", "_local_tensor"  # names of attributes; the second is that of DTensors, which is asked for what is here
AHEAD = 8  # tensors that memory is asked for before they are read: 10,000 fit into no fast cache
DICT_KEYS = 4  # word of a dict that says where its keys and values lie; only for prefetches


class Owned(NamedTuple):
    """References to all that a launch reads: as long as they last, nobody's memory is given away."""

    params: list  # of all parameter groups, one after the other
    held: list  # the states that a step writes, then the counters
    grads: list  # of the parameters that have one
    parts: list  # what is here of DTensors, else None


# facts of a tensor; addresses as int64
_FACTS = np.dtype(
    [
        ("object", np.int64),  # the Python object, when last seen
        ("tensor", np.int64),  # likewise where torch keeps what it knows of the tensor,
        ("storage", np.int64),  # and what says where the data are
        ("extent", np.int64),  # bytes from the first to the last element, for which there must be memory
        ("version", np.int64),  # its version counter
        ("dims", np.int32),  # where in a list of dims shape and strides begin
        ("like", np.int16),  # row of _SORTS; -1 if torch keeps it otherwise than WORDS says
        ("itemsize", np.int8),  # bytes
        ("ndim", np.int8),
        ("sharded", np.bool_),  # it is what is here of a DTensor
        ("written", np.bool_),  # by a step: memory that is shared until it is written (copy on write) must become its own
        ("fixed", np.bool_),  # other memory takes other tables
        ("bumped", np.bool_),  # a step bumps its version
    ],
    align=True,
)
# what most tensors have in common, as torch keeps it
_SORTS = np.dtype(
    [
        ("type", np.int64),  # the class of the Python object
        ("kind", np.int64),  # dtype and device
        ("keys", np.int64),  # for dispatch
        ("deleter", np.int64),  # how memory is given back, another one while it is shared until it is written
    ],
    align=True,
)
MOST_SORTS = 64  # the tensors of others are asked about by DLPack


class _Known(NamedTuple):
    """What is known of all tensors: of each active parameter and its gradient in turn, then of states and counters."""

    facts: np.ndarray  # _FACTS [n]
    addresses: np.ndarray  # int64 [n], of the data
    sorts: np.ndarray  # _SORTS [MOST_SORTS], type 0 where there is none yet
    dims: np.ndarray  # int64: shape, then strides, of each tensor
    exactly: np.ndarray  # int64 [n, 2]: device; ndim and dtype, as DLPack tells them
    written: np.ndarray  # int64 [2**m], a hash table: the storages of what a step writes
    # bool [4]: an address has changed; a parameter has another version counter; memory must be asked for; what is written may overlap
    news: np.ndarray


class _Objects(NamedTuple):
    """Addresses of Python objects, all int64."""

    params: np.ndarray  # what the parameter groups' lists hold, one after the other
    active: np.ndarray  # places among them: those that have a gradient,
    idle: np.ndarray  # and those that have none
    keys: np.ndarray  # keys and
    values: np.ndarray  # values of the optimizer's state, in its order
    holders: np.ndarray  # of the states and counters: the dict,
    names: np.ndarray  # the name,
    held: np.ndarray  # and the tensor


@cached_njit()
def _reached(functions, objects, state, owned):
    """Whether parameters, states and counters are the objects that they were; holds them. Nothing here runs code of Python's."""
    params, held, _, _ = owned
    listed, _, _, keys, values, holders, names, tensors = objects  # each by itself: to take one out of a tuple costs an atomic count
    for k in range(listed.size):
        if call(functions.list_item, (params, k)) != listed[k]:
            return False
    entry = np.zeros(3, np.int64)  # PyDict_Next's position, key, value
    at = entry.ctypes.data
    for k in range(values.size):
        if not call(functions.dict_next, (state, at, at + 8, at + 16)) & 0xFFFFFFFF:
            return False
        if entry[1] != keys[k] or entry[2] != values[k]:
            return False
    for k in range(tensors.size):
        ahead, further = holders[min(k + AHEAD, tensors.size - 1)], min(k + 2 * AHEAD, tensors.size - 1)
        prefetch(tensors[further])
        prefetch(holders[further])
        for n in range(3):
            prefetch(peek(ahead + 8 * DICT_KEYS) + 64 * n)
        tensor = call(functions.dict_item, (holders[k], names[k]))
        if tensor != tensors[k] or call(functions.list_append, (held, tensor)) & 0xFFFFFFFF:
            return False
    return True


@cached_njit(inline="always")
def _attribute(functions, object, name, into, k):
    """The address of an attribute, which a list holds at k from now on; 0 if there is none."""
    found = call(functions.get_attribute, (object, name))
    if found and call(functions.list_set, (into, k, found)) & 0xFFFFFFFF:  # which takes over the reference, in any case
        return 0
    return found


@cached_njit(inline="always")
def _take_version(words, row, news, tensor):
    """Where torch keeps what it knows of the tensor, and whether a parameter's version counter may be another than it was."""
    if row.bumped and (row.tensor != tensor or row.version != peek(tensor + 8 * words.version)):
        row.version = peek(tensor + 8 * words.version)
        news[1] = True
    row.tensor = tensor


@cached_njit(inline="always")
def _in_words(words, facts, sorts, dims, news, k, object):
    """The address of the data if torch's own words say that all else is as it was; else -1."""
    row = facts[k]
    sort = sorts[row.like]
    if peek(object + 8) != sort.type:
        return -1
    tensor = peek(object + 8 * words.tensor)
    at, ndim, start = tensor + 8 * words.ndim, row.ndim, row.dims
    if peek(at) != ndim:
        return -1
    for d in range(ndim):
        if peek(at + 8 * (1 + d)) != dims[start + d] or peek(at + 8 * (1 + INLINE + d)) != dims[start + ndim + d]:
            return -1
    if peek(tensor + 8 * words.kind) & KIND != sort.kind or peek(tensor + 8 * words.kind + 8) != sort.keys:
        return -1
    storage = peek(tensor + 8 * words.storage) + 8 * words.memory
    if row.written and peek(storage + 8) != sort.deleter:
        return -1
    _take_version(words, row, news, tensor)
    row.storage = storage
    if row.extent == 0:
        return 0
    offset = row.itemsize * peek(tensor + 8 * words.first)
    if peek(storage) == 0 or offset + row.extent > peek(storage + 8 * words.size):
        return -1
    return peek(storage) + offset


@cached_njit()
def _sort(words, sorts, object, known):
    """The row of sorts that a tensor belongs to, a new one if there is none; -1 if there is no more room, or its class is not known."""
    tensor = peek(object + 8 * words.tensor)
    storage = peek(tensor + 8 * words.storage) + 8 * words.memory
    kind, keys = peek(tensor + 8 * words.kind) & KIND, peek(tensor + 8 * words.kind + 8)
    for n in range(sorts.size):
        sort = sorts[n]
        known |= sort.type == peek(object + 8)  # only of classes that live on is the address their own
        if sort.type == 0:
            if not known:
                return -1
            sort.type, sort.kind, sort.keys, sort.deleter = peek(object + 8), kind, keys, peek(storage + 8)
        if sort.type == peek(object + 8) and sort.kind == kind and sort.keys == keys and sort.deleter == peek(storage + 8):
            return n
    return -1


@cached_njit()
def _by_dlpack(functions, words, known, k, object, view, record):
    """The address of the data if DLPack says that all else is as it was, or record it; else -1."""
    facts, _, sorts, dims, exactly, _, news = known
    row = facts[k]
    if call(functions.exchange, (object, view.ctypes.data)) & 0xFFFFFFFF:  # not a tensor, or a sparse one
        return -1
    if record:
        exactly[k, 0], exactly[k, 1] = view[1], view[2]
    elif view[1] != exactly[k, 0] or view[2] != exactly[k, 1]:
        return -1
    ndim, start = view[2] & 0xFFFFFFFF, row.dims
    for d in range(2 * ndim):
        dim = peek(view[3] + 8 * d) if d < ndim else peek(view[4] + 8 * (d - ndim))
        if record:
            dims[start + d] = dim
        elif dim != dims[start + d]:
            return -1
    address = view[0] + view[5] if row.extent else 0
    if words.tensor > 0:
        _take_version(words, row, news, peek(object + 8 * words.tensor))
        if ndim <= INLINE:
            row.ndim, row.like = ndim, _sort(words, sorts, object, record)
            if row.like >= 0 and _in_words(words, facts, sorts, dims, news, k, object) != address:
                row.like = -1
    news[2] |= row.like < 0
    return address


@cached_njit(inline="always")
def _slot(table, address):
    """Where in a hash table an address is, or belongs."""
    k = ((address >> 4) * 0x9E3779B1 >> 12) & (table.size - 1)  # the lower bits of addresses are alike
    while table[k] not in (0, address):
        k = (k + 1) & (table.size - 1)
    return k


@cached_njit()
def _enter(facts, written):
    """Enter the storages of what a step writes."""
    written[:] = 0
    for k in range(facts.size):
        if facts[k].written:
            written[_slot(written, facts[k].storage)] = facts[k].storage


@cached_njit()
def _record(functions, words, known):
    """All facts of the tensors that are named by their objects."""
    view = np.empty(6, np.int64)  # DLTensor: data, device, ndim and dtype, shape *, strides *, byte offset
    for k in range(known.facts.size):
        known.addresses[k] = _by_dlpack(functions, words, known, k, known.facts[k].object, view, True)
        if known.addresses[k] == -1:
            call(functions.clear_error, ())
            return False
    _enter(known.facts, known.written)
    return True


@cached_njit()
def _same(functions, words, names, none, objects, known, state, owned):
    """Whether everything is as recorded; False leaves a Python error to be cleared."""
    if not _reached(functions, objects, state, owned):
        return False
    _, _, grads, parts = owned
    params, active, idle, _, _, _, _, held = objects
    for k in idle:
        grad = call(functions.get_attribute, (params[k], names[0]))
        if grad == 0:
            return False
        call(functions.release, (grad,))
        if grad != none:
            return False
    view = np.empty(6, np.int64)
    facts, addresses, sorts, dims, _, written, news = known
    n, first_held = facts.size, 2 * active.size
    for k in range(n):
        row, ahead = facts[k], facts[min(k + AHEAD, n - 1)]
        prefetch(ahead.object)
        prefetch(ahead.storage)
        prefetch(ahead.storage + 48)
        for word in range(2, 24, 7):
            prefetch(ahead.tensor + 8 * word)
        if k >= first_held:
            object = held[k - first_held]
        elif k % 2:
            object = _attribute(functions, params[active[k // 2]], names[0], grads, k // 2)
        else:
            object = params[active[k // 2]]
        if object and row.sharded:
            object = _attribute(functions, object, names[1], parts, k)
        if object == 0:
            return False
        row.object = object
        address, storage = -1, row.storage
        if row.like >= 0:
            address = _in_words(words, facts, sorts, dims, news, k, object)
        if address == -1:
            address = _by_dlpack(functions, words, known, k, object, view, False)
        if address == -1 or (address == 0 and row.extent):
            return False
        if address != addresses[k]:
            if row.fixed:  # a state that was given other memory through .data
                return False
            addresses[k] = address
            news[0] = True
            news[3] |= row.written or row.like < 0
        # a gradient in other memory than before, which others know of as well
        if row.storage != storage and not row.written and (peek(object) != words.unheld or peek(row.storage - 8) != words.alone):
            news[3] |= written[_slot(written, row.storage)] != 0
    return True


@cached_njit()
def _scan(functions, words, names, none, interrupt, objects, known, state, owned):
    same = _same(functions, words, names, none, objects, known, state, owned)
    if not same:
        interrupted = call(functions.error_matches, (interrupt,)) & 0xFFFFFFFF
        call(functions.clear_error, ())
        if interrupted:  # while a class of the user's gave its attributes: to be raised a little later
            call(functions.raise_in, (call(functions.thread, ()), interrupt))
    return same


def extent(tensor: Tensor) -> int:
    """Elements from the first to the last in memory, gaps included."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0


def has_memory(tensor: Tensor) -> bool:
    """Whether the storage has room for all elements; it may have been made smaller."""
    if not tensor.numel():
        return True
    storage = tensor.untyped_storage()
    return storage.data_ptr() != 0 and (tensor.storage_offset() + extent(tensor)) * tensor.itemsize <= storage.nbytes()


def _ids(values) -> np.ndarray:
    return np.fromiter(map(id, values), np.int64)


def _facts(tensor):
    if tensor is None or tensor.layout is not torch.strided:
        return None
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride()


class Versions:
    """The version counters by which autograd knows that parameters have changed; bumping them costs a quarter of what it else would.

    That needs torch's own words, which tell when a parameter has another counter.
    """

    def __init__(self, params: list[Tensor]):
        ours = [WORDS.tensor > 0 and type(param) in (Tensor, Parameter) for param in params]
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


class Snapshot:
    """What an optimizer's parameters, gradients, states and counters looked like; keeps none of them alive.

    Args:
        lists: the parameters of each parameter group.
        active: places of those that have a gradient, among all of them.
        grads: their gradients.
        state: the optimizer's.
        held: the tensors in it that a step writes, as (a value of `state`, the name in it, the tensor), the counters last.
        local: of a parameter, gradient or state what is here of it: itself, unless it is a DTensor.

    Attributes:
        address: int64 [2, n_active], of parameters and of gradients; written by `own`.
        counter_address: int64 [n_active], likewise.
    """

    def __init__(
        self,
        lists: list[list[Tensor]],
        active: list[int],
        grads: list[Tensor],
        state: dict,
        held: list[tuple[dict, str, Tensor]],
        local: Callable[[Tensor], Tensor],
    ):
        params, entries = list(chain.from_iterable(lists)), list(state.items())
        kept = [tensor for *_, tensor in held]
        if not {id(holder) for holder, *_ in held} <= {id(value) for _, value in entries}:  # they are reached through it
            raise RuntimeError("the optimizer's state changed while step() read it: another thread may be writing it")
        self._lengths, self._n_states, self._local = list(map(len, lists)), len(entries), local
        self._active, self._names = active, [name for _, name, _ in held]
        self._idle = sorted(set(range(len(params))) - set(active))
        self._objects = _Objects(
            _ids(params),
            np.array(active, np.int64),
            np.array(self._idle, np.int64),
            _ids(key for key, _ in entries),
            _ids(value for _, value in entries),
            _ids(holder for holder, *_ in held),
            _ids(self._names),
            _ids(kept),
        )
        owned = [*(tensor for k, grad in zip(active, grads, strict=True) for tensor in (params[k], grad)), *kept]
        tensors = [local(tensor) for tensor in owned]
        n_dims = np.array([2 * tensor.dim() for tensor in tensors], np.int64)
        facts = np.zeros(len(tensors), _FACTS)
        facts["object"] = _ids(tensors)
        facts["itemsize"] = [tensor.itemsize for tensor in tensors]
        facts["extent"] = [extent(tensor) * tensor.itemsize for tensor in tensors]
        facts["dims"], facts["like"] = np.cumsum(n_dims) - n_dims, -1
        facts["sharded"] = [tensor is not whole for tensor, whole in zip(tensors, owned, strict=True)]
        facts["fixed"][2 * len(active) : len(tensors) - len(active)] = True
        facts["bumped"][: 2 * len(active) : 2] = True
        facts["written"] = facts["bumped"]
        facts["written"][2 * len(active) :] = True
        self._has_parts = facts["sharded"].any()
        self._facts, self._classes = facts, set(map(type, tensors))  # so that their addresses in sorts stay theirs
        self._addresses = np.zeros(len(tensors), np.int64)
        self.address = self._addresses[: 2 * len(active)].reshape(-1, 2).T
        self.counter_address = self._addresses[len(tensors) - len(active) :]
        self._news = np.array([True, True, not FUNCTIONS.exchange, False])
        if not FUNCTIONS.exchange:
            self._known = list(map(_facts, tensors))
            self._addresses[:] = [tensor.data_ptr() for tensor in tensors]
            return
        dims, exactly = np.zeros(n_dims.sum(), np.int64), np.zeros((len(tensors), 2), np.int64)
        self._written = np.zeros(1 << (2 * len(tensors)).bit_length(), np.int64)
        known = _Known(facts, self._addresses, np.zeros(MOST_SORTS, _SORTS), dims, exactly, self._written, self._news)
        if not _record(FUNCTIONS, WORDS, known):
            raise RuntimeError("DLPack does not tell where a tensor lies")
        fixed = FUNCTIONS, WORDS, (id(_GRAD), id(_PART)), id(None), id(KeyboardInterrupt), self._objects, known
        # compile() returns the machine code itself: a call through Numba's dispatcher costs as much as 50 parameters
        self._scan = functools.partial(_scan.compile(tuple(map(numba.typeof, (*fixed, id(state), (0, 0, 0, 0))))), *fixed)

    def _owned(self, lists: list[list], state: dict) -> Owned | None:
        parts = len(self._facts) if self._has_parts else 0
        owned = Owned(list(chain.from_iterable(lists)), [], [None] * len(self._active), [None] * parts)
        return owned if self._scan(id(state), tuple(map(id, owned))) else None

    def own(self, lists: list[list], state: dict) -> Owned | None:
        """References, if all is as it was and has memory of its own, else None; reads the addresses."""
        if list(map(len, lists)) != self._lengths or len(state) != self._n_states:
            return None
        self._news[2] = not FUNCTIONS.exchange
        owned = self._owned(lists, state) if FUNCTIONS.exchange else self._by_python(lists, state)
        if owned and self._news[2]:  # a storage may be smaller at the same address
            tensors = self._tensors(owned)
            if not all(has_memory(tensors[k]) for k in np.flatnonzero(self._facts["like"] < 0)):
                return None
        return owned

    def _tensors(self, owned: Owned) -> list[Tensor]:
        """What is here of each."""
        pairs = (tensor for k, grad in zip(self._active, owned.grads, strict=True) for tensor in (owned.params[k], grad))
        return [self._local(tensor) for tensor in (*pairs, *owned.held)]

    def _by_python(self, lists: list[list], state: dict) -> Owned | None:
        params, known = [param for each in lists for param in each], self._objects
        held = {id(value): value for value in state.values()}
        if not all(map(np.array_equal, map(_ids, (params, state, state.values())), (known.params, known.keys, known.values))):
            return None
        kept = [held[holder].get(name) for holder, name in zip(known.holders, self._names, strict=True)]
        if not np.array_equal(_ids(kept), known.held) or any(params[k].grad is not None for k in self._idle):
            return None
        grads = [params[k].grad for k in self._active]
        owned = Owned(params, kept, grads, [])
        tensors = self._tensors(owned)
        if list(map(_facts, tensors)) != self._known:
            return None
        now, before = np.array([tensor.data_ptr() for tensor in tensors], np.int64), self._addresses
        moved = now != before
        if moved[self._facts["fixed"]].any():
            return None
        self._news |= [moved.any(), False, False, moved.any()]
        before[:] = now
        return owned._replace(parts=tensors)

    def moved(self) -> bool:
        """Whether an address has changed since this was last asked."""
        moved, self._news[0] = self._news[0], False
        return bool(moved)

    def may_overlap(self) -> bool:
        """Whether memory of two tensors lies between each other's.

        Looked at only if what a step writes has moved since this was last asked, or a gradient into a storage of that: others have
        memory of their own, unless they were made over foreign memory.
        """
        asked, self._news[3] = self._news[3], False
        if not asked:
            return False
        if FUNCTIONS.exchange:
            _enter(self._facts, self._written)
        extents = self._facts["extent"]
        begin = self._addresses[extents > 0]
        order = np.argsort(begin)
        begin, end = begin[order], (begin + extents[extents > 0])[order]
        return bool((end[:-1] > begin[1:]).any())

    def recounted(self) -> bool:
        """Whether a parameter may have another version counter since this was last asked."""
        recounted, self._news[1] = self._news[1], False
        return bool(recounted)
