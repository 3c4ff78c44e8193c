"""Where torch keeps what it knows of a tensor, so that compiled code sees in a few loads that nothing has changed.

DLPack's C interface tells the same, whatever the version of torch, but takes 25 ns a tensor, and 40 more if Python alone owns it.
So these offsets are found by experiments at import. They are used to compare with what DLPack has told, and to count a version, which
takes torch 60 to 140 ns; where an experiment comes out otherwise than expected, not at all.
"""

import ctypes
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .c_api import API, sizes_address

INLINE = 5  # dimensions; the sizes of more lie elsewhere
DTYPE_DEVICE = (1 << 40) - 1  # the bits of dtype and device, beyond which are flags, some of them never set


class Words(NamedTuple):
    """Offsets in words of 8 bytes into the objects of c10, torch's core library; the first one is -1 if they are not known."""

    impl: int = -1  # in a Python object: the address of its TensorImpl
    storage: int = 0  # in a TensorImpl: the address of its StorageImpl,
    version: int = 0  # that of its version counter,
    ndim: int = 0  # the number of its dimensions, after which come INLINE sizes and as many strides,
    storage_offset: int = 0  # its first element in the storage,
    dtype_device: int = 0  # its dtype and device, after which come its dispatch keys
    data_ptr: int = 0  # in a StorageImpl: the address of its data, after which come the deleter and what that is given
    nbytes: int = 0  # from there on: how many bytes it has
    number: int = -1  # in a version counter: its number, uint32, which a step counts up itself; -1 if that is not known
    # not offsets, but what a word holds; -1 if that is not known
    storage_refcount: int = -1  # the word before data_ptr, where a single tensor has the storage
    grad_refcount: int = -1  # the first word of a gradient that only its parameter and a list refer to


def _read(address: int, count: int) -> list[int]:
    return np.ctypeslib.as_array((ctypes.c_int64 * count).from_address(address)).tolist()


def _facts(tensor: Tensor, words: Words) -> tuple:
    """All that decides what a launch would make of it, but for its address."""
    head = _read(tensor._cdata, words.dtype_device + 2)
    ndim, sizes, strides = head[words.ndim], words.ndim + 1, words.ndim + 1 + INLINE
    dtype_device, dispatch_keys = head[words.dtype_device] & DTYPE_DEVICE, head[words.dtype_device + 1]
    return ndim, *head[sizes : sizes + ndim], *head[strides : strides + ndim], dtype_device, dispatch_keys


def _address(tensor: Tensor, words: Words) -> int:
    head = _read(tensor._cdata, words.storage_offset + 1)
    return _read(head[words.storage], words.data_ptr + 1)[words.data_ptr] + head[words.storage_offset] * tensor.itemsize


def _guess() -> Words:
    tensor = torch.zeros(100, device="cpu")[7:].view(31, 3)
    storage = tensor.untyped_storage()
    ndim = (sizes_address(tensor) - tensor._cdata) // 8 - 1
    if not 3 < ndim < 16:
        return Words()
    head, alias, other = (_read(each._cdata, ndim) for each in (tensor, tensor.detach(), torch.zeros(93, device="cpu")))
    storage_word = head.index(storage._cdata)
    (version,) = [k for k in range(ndim) if head[k] == alias[k] != other[k] and k != storage_word]
    storage_offset = ndim + 1 + 2 * INLINE
    storage_words = _read(storage._cdata, 8)
    data_ptr = storage_words.index(storage.data_ptr())
    return Words(
        impl=_read(id(tensor), 6).index(tensor._cdata),
        storage=storage_word,
        version=version,
        ndim=ndim,
        storage_offset=storage_offset,
        dtype_device=storage_offset + 2,  # the number of elements lies between them
        data_ptr=data_ptr,
        nbytes=storage_words.index(storage.nbytes()) - data_ptr,
    )


def _refcount(tensor: Tensor, words: Words) -> int:
    return _read(_read(tensor._cdata, words.storage_offset)[words.storage], words.data_ptr)[-1]


def _storage_refcount(words: Words) -> int:
    a, b, *shared = (torch.zeros(6, device="cpu") for _ in range(5))
    aliases = shared[0].detach(), shared[1][2:], torch.nn.Parameter(shared[2])
    single = _refcount(a, words)
    others = [_refcount(tensor, words) for tensor in (*shared, *aliases)]
    return single if single == _refcount(b, words) and single not in others else -1


def _grad_refcount() -> int:
    param = torch.nn.Parameter(torch.zeros(6, device="cpu"))
    param.grad = torch.zeros(6, device="cpu")
    grads = [param.grad]
    (refcount,) = _read(id(grads[0]), 1)
    grads += grads
    return refcount if _read(id(grads[0]), 1) != [refcount] else -1


def _number(words: Words) -> int:
    """Where a version counter has its number: a word that counts what torch counts, and by which torch sees what was counted there."""
    tensor, other = (torch.zeros(6, device="cpu") for _ in range(2))
    (counter,), (apart,) = (_read(each._cdata + 8 * words.version, 1) for each in (tensor, other))
    before = _read(counter, 4)
    for _ in range(3):
        tensor.zero_()
    (word,) = [k for k, (now, then) in enumerate(zip(_read(counter, 4), before, strict=True)) if now != then]
    number = ctypes.c_uint32.from_address(counter + 8 * word)
    if counter == apart or number.value != tensor._version or before[word] + 3 != _read(counter, 4)[word]:
        return -1
    number.value += 1
    return word if (tensor._version, tensor.detach()._version, other._version) == (4, 4, 0) else -1


def find() -> Words:
    """By experiments; Words() if one of them fails, or torch has no C interface of DLPack to compare with."""
    if not API.exchange:
        return Words()
    try:
        words = _guess()
        x = torch.zeros(6, 4, dtype=torch.complex64, device="cpu")
        real = torch.zeros(6, 4, device="cpu")
        others = [
            torch.zeros(6, 4, device="meta"),
            real.double(),
            real.int(),
            real.view(4, 6),
            real.view(6, 4, 1),
            real.t().contiguous().t(),
            real[:, :2],
            x,
            x.conj(),
            x.imag,
            x.conj().imag,  # negative
        ]
        facts = [_facts(tensor, words) for tensor in (real, *others)]
        ones = torch.ones(6, 4, device="cpu")
        alike = [ones, torch.zeros(8, 4, device="cpu")[1:7], torch.nn.Parameter(ones).detach()]
        known = len(set(facts)) == len(facts) and all(_facts(tensor, words) == facts[0] for tensor in alike)
        known &= all(_address(tensor, words) == tensor.data_ptr() for tensor in (real, *others[1:], *alike))
        if not known or words.impl <= 0:
            return Words()
        return words._replace(number=_number(words), storage_refcount=_storage_refcount(words), grad_refcount=_grad_refcount())
    except Exception:  # whatever goes wrong, DLPack is there
        return Words()


WORDS = find()
