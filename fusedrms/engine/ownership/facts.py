"""What a scan compares: facts of tensors as recorded, and the Python objects through which they are reached."""

from typing import NamedTuple

import numpy as np


class Owned(NamedTuple):
    """References to all that a launch reads: as long as they last, nobody's memory is given away."""

    params: list  # of all parameter groups, one after the other
    states: list  # the tensors of the state that a step writes, then the step counters
    grads: list  # of the parameters that have one
    shards: list  # the local tensors of DTensors, else None


# facts of a tensor; addresses as int64
FACTS = np.dtype(
    [
        ("object", np.int64),  # the Python object, when last seen
        ("impl", np.int64),  # likewise its TensorImpl,
        ("storage", np.int64),  # and where its StorageImpl keeps the address of the data
        ("extent", np.int64),  # bytes from the first to the last element, for which there must be memory
        ("version", np.int64),  # its version counter
        ("autograd_meta", np.int64),  # what knows its gradient; to be asked for in time only
        ("dims", np.int32),  # where in a list of dims its sizes and strides begin
        ("kind", np.int16),  # row of KINDS; -1 if torch keeps it otherwise than WORDS says
        ("itemsize", np.int8),  # bytes
        ("ndim", np.int8),
        ("sharded", np.bool_),  # it is the local tensor of a DTensor
        ("written", np.bool_),  # by a step: memory that is shared until it is written (copy on write) must become its own
        ("fixed", np.bool_),  # other memory takes other tables
    ],
    align=True,
)
# what most tensors have in common, as torch keeps it
KINDS = np.dtype(
    [
        ("type", np.int64),  # the class of the Python object
        ("dtype_device", np.int64),
        ("dispatch_keys", np.int64),
        ("deleter", np.int64),  # how memory is given back, another one while it is shared until it is written
    ],
    align=True,
)
MOST_KINDS = 64  # the tensors of others are asked about by DLPack

# in Record.flags, as bits: an address has changed; what is written may overlap; memory must be asked for; torch's words have changed
MOVED, MAY_OVERLAP, UNSURE, LOOKED_UP = 4, 8, 16, 32


class Record(NamedTuple):
    """What is recorded of all tensors: of each active parameter and its gradient in turn, then of states and counters."""

    facts: np.ndarray  # FACTS [n]
    addresses: np.ndarray  # int64 [n], of the data
    kinds: np.ndarray  # KINDS [MOST_KINDS], type 0 where there is none yet
    dims: np.ndarray  # int64: sizes, then strides, of each tensor
    dlpack: np.ndarray  # int64 [n, 2]: device; ndim and dtype, as DLPack tells them
    written: np.ndarray  # int64 [2**m], a hash table: the storages of what a step writes
    flags: np.ndarray  # int64 [1], raised until a scan has found all else as it was


class Objects(NamedTuple):
    """Addresses of Python objects, and how tensors are reached through them; all int64."""

    params: np.ndarray  # what the parameter groups' lists hold, one after the other
    active: np.ndarray  # indices among them: those that have a gradient,
    idle: np.ndarray  # and those that have none
    keys: np.ndarray  # keys and
    values: np.ndarray  # values of the optimizer's state, in its order
    dicts: np.ndarray  # of the states and counters: the dict,
    names: np.ndarray  # the key in it,
    states: np.ndarray  # and the tensor
    by_dict: np.ndarray  # the order in which these are looked up: those of a dict one after the other
