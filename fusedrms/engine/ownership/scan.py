"""Compiled: whether all that a launch reads is as it was recorded, and where it lies now.

1,000 parameters take 165 µs by torch's words, 523 by DLPack (10,900 with the sizes of storages, asked of Python), 17,300 all in Python:
the fastest of 300 calls each, for tensors of 64 elements and their states, torch 2.13, CPython 3.11, one core of an AMD EPYC.

A loop asks CPython's C API, and compares torch's own words (torch_words.py) or, where they are not known, DLPack's answers.
"""

from functools import partial

import numpy as np
from numba.core import types as nt

from ...kernels.caches import cached_njit
from ...kernels.cpu.packed import Packed, values_at
from .c_api import Api, call, count, peek, prefetch
from .facts import MAY_OVERLAP, MOVED, Objects, Record
from .looks import by_dlpack, by_words
from .torch_words import Words

AHEAD = 8  # tensors that memory is asked for before they are read: 10,000 fit into no fast cache
DICT_KEYS = 4  # word of a dict that says where its keys and values lie; only for prefetches
DIFFERENT, SAME, OTHER_GRADS = range(3)  # what a scan finds; the last: a parameter has a gradient that had none, or none that had one


# objects


@cached_njit(inline="always")
def _held(api, object, into, k):
    """The object, a new reference to which a list takes over at k; 0 if there is none, or the list cannot."""
    if object and call(api.list_set, (into, k, object)) & 0xFFFFFFFF:  # which takes it over in any case
        return 0
    return object


@cached_njit(inline="always")
def _grad(api, param):
    """A new reference to the gradient of a parameter, or to None; 0 if there is an error."""
    if peek(param + 8) == api.parameter:  # no subclass, which may have an attribute of its own
        return call(api.get_grad, (param, 0))
    return call(api.get_attribute, (param, api.grad))


@cached_njit()
def _are_idle(api, params, idle):
    """Whether those parameters have no gradient that had none."""
    for k in idle:
        grad = _grad(api, params[k])
        if grad == 0:
            return DIFFERENT
        call(api.release, (grad,))
        if grad != api.none:
            return OTHER_GRADS
    return SAME


@cached_njit()
def _same_objects(api, objects, state, whole, states):
    """Whether parameters, states and counters are the objects that they were; holds the states."""
    params, _, idle, keys, values, dicts, names, tensors, by_dict = objects
    for k in range(params.size):
        if call(api.list_item, (whole, k)) != params[k]:
            return DIFFERENT
    found = _are_idle(api, params, idle)
    if found != SAME:
        return found
    entry = np.zeros(3, np.int64)  # PyDict_Next's position, key, value
    at = entry.ctypes.data
    for k in range(values.size):
        if not call(api.dict_next, (state, at, at + 8, at + 16)) & 0xFFFFFFFF:
            return DIFFERENT
        if entry[1] != keys[k] or entry[2] != values[k]:
            return DIFFERENT
    for n in range(by_dict.size):
        k, last = by_dict[n], by_dict.size - 1
        ahead, further = by_dict[min(n + AHEAD, last)], by_dict[min(n + 2 * AHEAD, last)]
        prefetch(dicts[further])
        prefetch(tensors[ahead])
        for line in range(3):
            prefetch(peek(dicts[ahead] + 8 * DICT_KEYS) + 64 * line)
        tensor = call(api.dict_item, (dicts[k], names[k]))
        if tensor != tensors[k]:
            return DIFFERENT
        call(api.hold, (tensor,))
        if _held(api, tensor, states, k) == 0:
            return DIFFERENT
    return SAME


@cached_njit(inline="always")
def _object(api, params, active, grads, states, k):
    """The address of tensor k as Python has it: of active parameters and their gradients in turn, then of states; 0 if there is none."""
    pair = k // 2
    if pair >= active.size:
        return states[k - 2 * active.size]
    param = params[active[pair]]
    return _held(api, _grad(api, param), grads, pair) if k % 2 else param


# tensors


@cached_njit(inline="always")
def _slot(table, address):
    """Where in a hash table an address is, or belongs."""
    k = ((address >> 4) * 0x9E3779B1 >> 12) & (table.size - 1)  # the lower bits of addresses are alike
    while table[k] not in (0, address):
        k = (k + 1) & (table.size - 1)
    return k


@cached_njit()
def enter_written(facts, written):
    """Enter the storages of what a step writes."""
    written[:] = 0
    for k in range(facts.size):
        if facts[k].written:
            written[_slot(written, facts[k].storage)] = facts[k].storage


@cached_njit(inline="always")
def _is_its_own(words, grad, storage):
    """Whether nobody else refers to a gradient, or to its storage."""
    return peek(grad) == words.grad_refcount and peek(storage - 8) == words.storage_refcount


@cached_njit()
def _same_tensors(api, words, objects, record, grads, shards):
    """Whether all tensors look as recorded; takes their addresses, and holds gradients and local tensors."""
    params, active, _, _, _, _, _, states, _ = objects
    facts, addresses, kinds, dims, _, written, flags = record
    view, n = np.empty(6, np.int64), facts.size
    for k in range(n):
        row, ahead = facts[k], facts[min(k + AHEAD, n - 1)]
        prefetch(ahead.object)
        prefetch(ahead.autograd_meta)
        prefetch(ahead.storage)
        prefetch(ahead.storage + 48)
        for word in range(2, 24, 7):
            prefetch(ahead.impl + 8 * word)
        object = _object(api, params, active, grads, states, k)
        if object == api.none and k < 2 * active.size:
            return OTHER_GRADS
        if object and row.sharded:
            object = _held(api, call(api.get_attribute, (object, api.local_tensor)), shards, k)
        if object == 0:
            return DIFFERENT
        if row.object != object:  # what nobody writes stays in the caches of all cores
            row.object = object
        address, storage = -1, row.storage
        if row.kind >= 0:
            address = by_words(words, row, kinds, dims, object)
        if address == -1:
            address = by_dlpack(api, words, record, k, view, False)
        if address == -1 or (address == 0 and row.extent):
            return DIFFERENT
        if address != addresses[k]:
            if row.fixed:  # a state that was given other memory through .data
                return DIFFERENT
            addresses[k] = address
            flags[0] |= MOVED | (MAY_OVERLAP if row.written or row.kind < 0 else 0)
        # a gradient in other memory than before, which others know of as well
        if row.storage != storage and not row.written and not _is_its_own(words, object, row.storage):
            flags[0] |= MAY_OVERLAP if written[_slot(written, row.storage)] != 0 else 0
    return SAME


# what Python calls


@cached_njit()
def _take(at):
    """Record all facts of the tensors that are named by their objects; whether DLPack tells them."""
    api, words, _, record = values_at(at)
    view = np.empty(6, np.int64)  # DLTensor: data, device, ndim and dtype, shape *, strides *, byte offset
    for k in range(record.facts.size):
        record.addresses[k] = by_dlpack(api, words, record, k, view, True)
        if record.addresses[k] == -1:
            call(api.clear_error, ())
            return False
    enter_written(record.facts, record.written)
    return True


@cached_njit()
def _scan(at, state, params, states, grads, shards):
    """Whether everything is as recorded: SAME, with the flags, which are lowered; or what differs."""
    api, words, objects, record = values_at(at)
    found = _same_objects(api, objects, state, params, states)
    if found == SAME:
        found = _same_tensors(api, words, objects, record, grads, shards)
    if found != SAME:
        interrupted = call(api.error_matches, (api.keyboard_interrupt,)) & 0xFFFFFFFF
        call(api.clear_error, ())
        if interrupted:  # while a class of the user's gave its attributes: to be raised a little later
            call(api.raise_in, (call(api.thread, ()), api.keyboard_interrupt))
        return found
    raised, record.flags[0] = record.flags[0], 0
    return SAME | raised


@cached_njit()
def _count_versions(at):
    """Count the versions of parameters, which autograd may have saved; inference tensors have no counter.

    They are reached from the objects, which the step holds: another thread may have swapped what is behind these since the scan.
    """
    _, words, objects, record = values_at(at)
    facts, end = record.facts, 2 * objects.active.size
    for k in range(0, end, 2):  # of parameters and gradients in turn
        ahead = facts[min(k + 2 * AHEAD, end - 2)]
        prefetch(ahead.object)
        prefetch(ahead.impl + 8 * words.version)
        prefetch(ahead.version)
        version = peek(peek(facts[k].object + 8 * words.impl) + 8 * words.version)
        if version:
            count(version + 8 * words.number)


class Scan:
    """The loops over the tensors of a snapshot, as machine code: a call through Numba's dispatcher costs as much as 50 parameters.

    Args:
        api, words: what they go by.
        objects, record: what they read and write, in place.
    """

    def __init__(self, api: Api, words: Words, objects: Objects, record: Record):
        packed = self._packed = Packed((api, words, objects, record))
        self.take = partial(_take.compile((packed.type,)), packed.address)
        self.scan = partial(_scan.compile((packed.type, *(nt.int64,) * 5)), packed.address)
        self.count_versions = partial(_count_versions.compile((packed.type,)), packed.address) if words.number > 0 else None
