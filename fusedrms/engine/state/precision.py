"""How values are stored: the options that decide it, and the names and dtypes of the tensors in a parameter's state."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.rule import State

WIDE = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.complex32: torch.complex64}  # full precision of 16 bits
MASTER = "master_param"  # in a state: what a 16-bit parameter is rounded from, or its remainder: the bits that it lacks
PARAM_EMA = "param_ema"  # likewise: the average of the parameter, in full precision
REMAINDERS = {"split": torch.int16, "split24": torch.int8}  # by master_weights: what a bfloat16 lacks of 32 bits, or of 24
SCALE = "_scale"  # ends the names of scales
PACKED = torch.int16  # dtype of averages of 4 bits: words of four codes; not uint16, of which pickle.loads() makes no tensor
DIM_ORDER = "_dim_order"  # ends the names of what packed codes were made of: its dimensions, the innermost last, unless they are in order
LEAN = torch.bfloat16, torch.uint8, torch.int8, PACKED  # dtypes of averages in fewer bits


Kinds = Mapping[str, State]  # what the states are that an optimizer's rules have, by name; any other one is none of theirs


class Precision(NamedTuple):
    """The options of a parameter group that decide how its values are stored."""

    stochastic_rounding: bool = False
    master_weights: str | None = None
    state_dtype: torch.dtype | str = torch.float32
    seed: int = 0

    @property
    def is_stochastic(self) -> bool:
        """Whether anything is rounded at random."""
        return self.stochastic_rounding or self.master_weights == "split24" or self.state_dtype != torch.float32


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of its values in full precision."""
    return WIDE.get(tensor.dtype, tensor.dtype)


def is_average(kinds: Kinds, key: str) -> bool:
    """Whether a state may be stored in fewer bits; every other one is in full precision."""
    return key in kinds and not kinds[key].full_precision


def stored(param: Tensor, states: Collection[str], precision: Precision, kinds: Kinds) -> dict[str, torch.dtype]:
    """Names and dtypes of the tensors in the state of a parameter, in the order of the rows that a launch reads."""
    found: dict[str, torch.dtype] = {}
    if precision.master_weights and param.dtype in WIDE:
        found[MASTER] = REMAINDERS.get(precision.master_weights, wide_dtype(param))
    for key in states:
        if precision.state_dtype == torch.float32 or not is_average(kinds, key):
            found[key] = wide_dtype(param)
        elif precision.state_dtype == torch.bfloat16:
            found[key] = torch.bfloat16
        else:
            whole = torch.uint8 if kinds[key].nonnegative else torch.int8
            found.update({key: PACKED if precision.state_dtype == "4bit" else whole, key + SCALE: torch.float32})
    return found
