"""Compiled: whether one tensor looks as recorded, and where it lies now; torch's own words first, then DLPack, which takes longer."""

from ...kernels.caches import cached_njit
from .c_api import call, peek
from .facts import LOOKED_UP, UNSURE
from .torch_words import DTYPE_DEVICE, INLINE


@cached_njit(inline="always")
def by_words(words, row, kinds, dims, object):
    """The address of the data if torch's own words say that all else is as it was; else -1."""
    kind = kinds[row.kind]
    if peek(object + 8) != kind.type:
        return -1
    impl = peek(object + 8 * words.impl)
    at, ndim, start = impl + 8 * words.ndim, row.ndim, row.dims
    if peek(at) != ndim:
        return -1
    for d in range(ndim):
        if peek(at + 8 * (1 + d)) != dims[start + d] or peek(at + 8 * (1 + INLINE + d)) != dims[start + ndim + d]:
            return -1
    at = impl + 8 * words.dtype_device
    if peek(at) & DTYPE_DEVICE != kind.dtype_device or peek(at + 8) != kind.dispatch_keys:
        return -1
    storage = peek(impl + 8 * words.storage) + 8 * words.data_ptr
    if row.written and peek(storage + 8) != kind.deleter:
        return -1
    if row.impl != impl or row.storage != storage or row.version != peek(impl + 8 * words.version):
        row.impl, row.storage, row.version = impl, storage, peek(impl + 8 * words.version)
        row.autograd_meta = peek(impl + 8 * (words.storage + 1))
    if row.extent == 0:
        return 0
    offset = row.itemsize * peek(impl + 8 * words.storage_offset)
    if peek(storage) == 0 or offset + row.extent > peek(storage + 8 * words.nbytes):
        return -1
    return peek(storage) + offset


@cached_njit()
def _kind_of(words, kinds, object, known):
    """The row of kinds that a tensor belongs to, a new one if there is none; -1 if there is no more room, or its class is not known."""
    impl = peek(object + 8 * words.impl)
    dtype_device, dispatch_keys = peek(impl + 8 * words.dtype_device) & DTYPE_DEVICE, peek(impl + 8 * words.dtype_device + 8)
    deleter = peek(peek(impl + 8 * words.storage) + 8 * words.data_ptr + 8)
    for n in range(kinds.size):
        kind = kinds[n]
        known |= kind.type == peek(object + 8)  # only of classes that live on is the address their own
        if kind.type == 0:
            if not known:
                return -1
            kind.type, kind.dtype_device, kind.dispatch_keys, kind.deleter = peek(object + 8), dtype_device, dispatch_keys, deleter
        same = kind.type == peek(object + 8) and kind.dtype_device == dtype_device
        if same and kind.dispatch_keys == dispatch_keys and kind.deleter == deleter:
            return n
    return -1


@cached_njit()
def by_dlpack(api, words, record, k, view, first):
    """The address of the data if DLPack says that all else is as it was, or the first time whatever it says; else -1."""
    facts, _, kinds, dims, dlpack, _, flags = record
    row = facts[k]
    if call(api.exchange, (row.object, view.ctypes.data)) & 0xFFFFFFFF:  # not a tensor, or a sparse one
        return -1
    if first:
        dlpack[k, 0], dlpack[k, 1] = view[1], view[2]
    elif view[1] != dlpack[k, 0] or view[2] != dlpack[k, 1]:
        return -1
    ndim, start = view[2] & 0xFFFFFFFF, row.dims
    for d in range(2 * ndim):
        dim = peek(view[3] + 8 * d) if d < ndim else peek(view[4] + 8 * (d - ndim))
        if first:
            dims[start + d] = dim
        elif dim != dims[start + d]:
            return -1
    address = view[0] + view[5] if row.extent else 0
    if words.impl > 0:
        row.impl = peek(row.object + 8 * words.impl)
        row.version = peek(row.impl + 8 * words.version)
        if ndim <= INLINE:
            row.ndim, row.kind = ndim, _kind_of(words, kinds, row.object, first)
            if row.kind >= 0 and by_words(words, row, kinds, dims, row.object) != address:
                row.kind = -1
    flags[0] |= LOOKED_UP | (UNSURE if row.kind < 0 else 0)
    return address
