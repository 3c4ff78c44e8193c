"""States in full precision, by the names that they have in a checkpoint, however they are stored."""

from collections.abc import Collection

import torch
from torch import Tensor

from ..sharded import as_dtensor, locals_of
from .masters import master_of
from .precision import DIM_ORDER, LEAN, MASTER, SCALE, Kinds, is_average
from .quantized import code_of, dequantize, is_packed, is_quantized, packed_like
from .ties import Ties


def variance_of(kinds: Kinds, values: dict) -> tuple[str, str] | None:
    """A second moment that is stored as the variance about its mean, and that: in fewer bits it could not be had from both."""
    pairs = ((key, state.mean) for key, state in kinds.items() if state.mean)
    return next((pair for pair in pairs if all(getattr(values.get(key), "dtype", None) in LEAN for key in pair)), None)


def dequantized(kinds: Kinds, param: Tensor, values: dict) -> dict:
    """The state of a parameter, with averages each in full precision; a tensor that is so already stays the same."""
    beside = {key + end for key in values if is_quantized(kinds, values, key) for end in (SCALE, DIM_ORDER)}
    known = {key: value for key, value in values.items() if key not in beside}
    for key, value in known.items():
        if is_quantized(kinds, values, key):
            like = packed_like(param, values, key) if is_packed(kinds, key, value.dtype) else value
            known[key] = dequantize(value, values[key + SCALE], code_of(kinds, key, value.dtype), like)
        elif is_average(kinds, key) and getattr(value, "dtype", None) == torch.bfloat16:
            known[key] = value.float()
    return known


def _without_variance(kinds: Kinds, param: Tensor, values: dict) -> dict:
    """As dequantized(), with the second moment in place of a variance."""
    known = dequantized(kinds, param, values)
    if pair := variance_of(kinds, values):
        variance, mean = pair
        known[variance] = known[variance].double() + known[mean].double() ** 2
    return known


def resolve_variance(kinds: Kinds, param: Tensor, values: dict, states: Collection[str]) -> dict:
    """A state in which no variance is left if the mean that it is about is none of the states wanted."""
    pair = variance_of(kinds, values)
    return _without_variance(kinds, param, values) if pair and pair[1] not in states else values


def full_precision(kinds: Kinds, param: Tensor, values: dict) -> dict:
    """The state of a parameter in full precision, by the names that it has in a checkpoint.

    A second moment that is stored as a variance comes as float64: in float32 the variance could not be had back from it.
    """
    known = {key: value for key, value in _without_variance(kinds, param, values).items() if key != MASTER}
    master = master_of(param, values)
    return known if master is None else {**known, MASTER: master}


def export_state(kinds: Kinds, param: Tensor, values: dict, ties: Ties) -> dict:
    """As full_precision(), of a parameter that may be a DTensor: states are placed as it is; ties: the optimizer's."""
    shards = locals_of(values)
    return {key: as_dtensor(param, value) for key, value in full_precision(kinds, ties.exported(param, shards), shards).items()}
