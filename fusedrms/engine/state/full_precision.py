"""States in full precision, by the names that they have in a checkpoint, however they are stored."""

from collections.abc import Collection

import torch
from torch import Tensor

from ..sharded import as_dtensor, locals_of
from .masters import master_of
from .precision import AVERAGES, DIM_ORDER, LEAN, MASTER, SCALE
from .quantized import code_of, dequantize, is_packed, is_quantized, packed_like
from .ties import Ties


def is_variance(values: dict) -> bool:
    """Whether the square average is stored as the variance about the other average: in fewer bits it could not be had from both."""
    return all(getattr(values.get(key), "dtype", None) in LEAN for key in ("square_avg", "grad_avg"))


def dequantized(param: Tensor, values: dict) -> dict:
    """The state of a parameter, with averages each in full precision; a tensor that is so already stays the same."""
    beside = {key + end for key in values if is_quantized(values, key) for end in (SCALE, DIM_ORDER)}
    known = {key: value for key, value in values.items() if key not in beside}
    for key, value in known.items():
        if is_quantized(values, key):
            like = packed_like(param, values, key) if is_packed(key, value.dtype) else value
            known[key] = dequantize(value, values[key + SCALE], code_of(key, value.dtype), like)
        elif key in AVERAGES and getattr(value, "dtype", None) == torch.bfloat16:
            known[key] = value.float()
    return known


def _without_variance(param: Tensor, values: dict) -> dict:
    """As dequantized(), with the square average in place of a variance."""
    known = dequantized(param, values)
    if is_variance(values):
        known["square_avg"] = known["square_avg"].double() + known["grad_avg"].double() ** 2
    return known


def resolve_variance(param: Tensor, values: dict, states: Collection[str]) -> dict:
    """A state in which no variance is left if the mean that it is about is none of the states wanted."""
    return _without_variance(param, values) if is_variance(values) and "grad_avg" not in states else values


def full_precision(param: Tensor, values: dict) -> dict:
    """The state of a parameter in full precision, by the names that it has in a checkpoint.

    A square average that is stored as a variance comes as float64: in float32 the variance could not be had back from it.
    """
    known = {key: value for key, value in _without_variance(param, values).items() if key != MASTER}
    master = master_of(param, values)
    return known if master is None else {**known, MASTER: master}


def export_state(param: Tensor, values: dict, ties: Ties) -> dict:
    """As full_precision(), of a parameter that may be a DTensor: states are placed as it is; ties: the optimizer's."""
    shards = locals_of(values)
    return {key: as_dtensor(param, value) for key, value in full_precision(ties.exported(param, shards), shards).items()}
