"""States in full precision, by the names that they have in a checkpoint, however they are stored."""

from collections.abc import Collection

import torch
from torch import Tensor

from ..sharded import as_dtensor, locals_of
from .masters import master_of
from .precision import AVERAGES, LEAN, MASTER, SCALE
from .quantized import dequantize, is_quantized
from .ties import Ties


def is_variance(values: dict) -> bool:
    """Whether the square average is stored as the variance about the other average: in fewer bits it could not be had from both."""
    return all(getattr(values.get(key), "dtype", None) in LEAN for key in ("square_avg", "grad_avg"))


def dequantized(values: dict) -> dict:
    """The state of a parameter, with averages each in full precision; a tensor that is so already stays the same."""
    scales = {key + SCALE for key in values if is_quantized(values, key)}
    known = {key: value for key, value in values.items() if key not in scales}
    for key, value in known.items():
        if is_quantized(values, key):
            known[key] = dequantize(value, values[key + SCALE])
        elif key in AVERAGES and getattr(value, "dtype", None) == torch.bfloat16:
            known[key] = value.float()
    return known


def _without_variance(values: dict) -> dict:
    """As dequantized(), with the square average in place of a variance."""
    known = dequantized(values)
    if is_variance(values):
        known["square_avg"] = known["square_avg"].double() + known["grad_avg"].double() ** 2
    return known


def resolve_variance(values: dict, states: Collection[str]) -> dict:
    """A state in which no variance is left if the mean that it is about is none of the states wanted."""
    return _without_variance(values) if is_variance(values) and "grad_avg" not in states else values


def full_precision(param: Tensor, values: dict) -> dict:
    """The state of a parameter in full precision, by the names that it has in a checkpoint.

    A square average that is stored as a variance comes as float64: in float32 the variance could not be had back from it.
    """
    known = {key: value for key, value in _without_variance(values).items() if key != MASTER}
    master = master_of(param, values)
    return known if master is None else {**known, MASTER: master}


def export_state(param: Tensor, values: dict, ties: Ties) -> dict:
    """As full_precision(), of a parameter that may be a DTensor: states are placed as it is; ties: the optimizer's."""
    shards = locals_of(values)
    return {key: as_dtensor(param, value) for key, value in full_precision(ties.exported(param, shards), shards).items()}
