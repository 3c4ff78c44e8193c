"""What launches read: one definition for both drivers. Kernels take each table by its name here."""

from typing import Any, NamedTuple

# Where in the scalars of a step, float64, its numbers are.
SKIP = 0  # not 0 if nothing may change; ABOVE if that is since the norm is a spike
UNSCALE = 1  # what gradients are multiplied by first
FIRST_NORM = 2  # from here on L2 norms of gradients, 0 where none is limited

ABOVE = -1.0

UNIT = 1 << 14  # elements whose statistics are added up in a fixed order, whatever blocks or chunks they are in
# What is added up: squares of gradients, of changes, of parameters and of each state, then these of gradients.
UNIT_SUMS = ("grad", "update", "param")
UNIT_COUNTS = ("zeros", "nonfinite", "largest")


# Of each table, and of what else kernels read and write at pointers, the dtype (None: the compute type) and the number of dimensions.
TYPES: dict[str, tuple[str | None, int]] = {
    "addresses": ("int64", 2),
    "numels": ("int64", 1),
    "groups": ("int32", 1),
    "chunk_tensor": ("int32", 1),
    "chunk_start": ("int64", 1),
    "hyper": (None, 2),
    "norm_index": ("int32", 1),
    "random_key": ("int32", 2),
    "shard_offset": ("int64", 1),
    "boosts": ("float64", 1),
    "first_unit": ("int64", 1),
    "unit_sums": (None, 2),
    "first_sum": ("int64", 1),
    "scalars": ("float64", 1),
    "sums": ("float64", 1),
    "spans": ("int64", 2),
    "norms": ("float64", 1),
    "counters": ("int64", 1),
    "double": ("int32", 1),
    "counted": ("float64", 1),
    "agreed": ("float64", 1),
}


def dtype_of(name: str, compute: str) -> str:
    """The dtype of a table, as torch names it."""
    return TYPES[name][0] or compute


class Tables(NamedTuple):
    """Of the launch that updates a bucket: NumPy arrays on the host, tensors on a GPU."""

    addresses: Any  # int64 [n_rows, n_tensors]: of grad, param, state 0, ..., each in one row or two
    numels: Any  # int64 [n_tensors], elements
    groups: Any  # int32 [n_tensors]: row of hyper
    chunk_tensor: Any  # int32 [n_chunks]
    chunk_start: Any  # int64 [n_chunks], elements, multiples of the chunk size
    hyper: Any  # compute type [n_groups, n_hyper]: rules.Common, then the rule's arguments
    norm_index: Any  # int32 [n_tensors]: where among the scalars the norm is that limits this gradient
    random_key: Any  # int32 [n_tensors, 3]: two words that no other parameter or seed has, the steps with this one
    shard_offset: Any  # int64 [n_tensors], elements: where in its parameter the tensor begins, if it is a shard
    boosts: Any  # float64 [n_tensors]: what updates that agree with their gradients are multiplied by; [0] where the launch is not cautious
    first_unit: Any  # int64 [n_tensors]: where the units of each tensor begin; [0] where nothing is measured, as the next
    unit_sums: Any  # compute type [n_units, n_columns], on a GPU [n_units * UNIT / BLOCK, n_columns]: written by the launch


class AgreementTables(NamedTuple):
    """Of the launch that counts the elements whose updates agree with their gradients: as in Tables, and scalars."""

    addresses: Any
    numels: Any
    groups: Any
    chunk_tensor: Any
    chunk_start: Any
    hyper: Any
    norm_index: Any
    scalars: Any  # float64: those of the step


class NormTables(NamedTuple):
    """Of the launch that adds up squares of gradients; its chunks have norm_chunk_size() elements. The first six as in Tables."""

    addresses: Any
    numels: Any
    groups: Any
    chunk_tensor: Any
    chunk_start: Any
    hyper: Any
    first_sum: Any  # int64 [n_tensors]: where the sums of each tensor begin
    scalars: Any  # float64: those of the step
