"""How values are stored: the options that decide it, and the names and dtypes of the tensors in a parameter's state."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

WIDE = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.complex32: torch.complex64}  # full precision of 16 bits
MASTER = "master_param"  # in a state: what a 16-bit parameter is rounded from, or its remainder: the bits that it lacks
PARAM_EMA = "param_ema"  # likewise: the average of the parameter, in full precision
AVERAGES = "square_avg", "grad_avg", "momentum_buffer"  # which may be stored in fewer bits; every other state is in full precision
UNSIGNED = ("square_avg",)  # of these: never negative; their codes are unsigned, and no value above 0 becomes 0
REMAINDERS = {"split": torch.int16, "split24": torch.int8}  # by master_weights: what a bfloat16 lacks of 32 bits, or of 24
SCALE = "_scale"  # ends the names of scales
PACKED = torch.int16  # dtype of averages of 4 bits: words of four codes; not uint16, of which pickle.loads() makes no tensor
DIM_ORDER = "_dim_order"  # ends the names of what packed codes were made of: its dimensions, the innermost last, unless they are in order
LEAN = torch.bfloat16, torch.uint8, torch.int8, PACKED  # dtypes of averages in fewer bits


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


def stored(param: Tensor, states: Collection[str], precision: Precision) -> dict[str, torch.dtype]:
    """Names and dtypes of the tensors in the state of a parameter, in the order of the rows that a launch reads."""
    found: dict[str, torch.dtype] = {}
    if precision.master_weights and param.dtype in WIDE:
        found[MASTER] = REMAINDERS.get(precision.master_weights, wide_dtype(param))
    for key in states:
        if precision.state_dtype == torch.float32 or key not in AVERAGES:
            found[key] = wide_dtype(param)
        elif precision.state_dtype == torch.bfloat16:
            found[key] = torch.bfloat16
        else:
            whole = torch.uint8 if key in UNSIGNED else torch.int8
            found.update({key: PACKED if precision.state_dtype == "4bit" else whole, key + SCALE: torch.float32})
    return found
