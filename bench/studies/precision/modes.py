"""How parameters and states are stored, by name."""

from typing import Any, NamedTuple

import torch

BASELINE = "float32"


class Mode(NamedTuple):
    dtype: torch.dtype  # of parameters and gradients
    options: dict[str, Any]


_FLOAT32: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "float32 + 8-bit": dict(state_dtype="8bit"),
    "float32 + 4-bit": dict(state_dtype="4bit"),
}
_BFLOAT16: dict[str, dict[str, Any]] = {
    "split": dict(master_weights="split"),
    "split24": dict(master_weights="split24"),
    "split + 8-bit": dict(master_weights="split", state_dtype="8bit"),
    "split24 + 8-bit": dict(master_weights="split24", state_dtype="8bit"),
    "split24 + 4-bit": dict(master_weights="split24", state_dtype="4bit"),
    "stochastic + 8-bit": dict(stochastic_rounding=True, state_dtype="8bit"),
    "stochastic + 4-bit": dict(stochastic_rounding=True, state_dtype="4bit"),
    "plain bfloat16": {},
}
STATES, USUAL = tuple(_FLOAT32), (BASELINE, *_BFLOAT16)
MODES = {
    **{name: Mode(torch.float32, options) for name, options in _FLOAT32.items()},
    **{name: Mode(torch.bfloat16, options) for name, options in _BFLOAT16.items()},
}
