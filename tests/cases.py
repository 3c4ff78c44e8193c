"""The tables that tests run over: options, shapes, dtypes, and what one step may be wrong by."""

import numpy as np
import torch

OPTIONS = {
    "plain": {},
    "weight_decay": dict(weight_decay=0.1, alpha=0.9),
    "momentum": dict(momentum=0.9, lr=3e-3),
    "centered": dict(centered=True, eps=1e-4),
    "centered_momentum": dict(centered=True, momentum=0.5, alpha=0.95),
    "everything": dict(centered=True, momentum=0.9, weight_decay=1e-2, maximize=True, lr=0.1, eps=1e-3),
}

# beyond torch: every value of every option, on each rule
FAMILY = {
    "inside": dict(eps_placement="inside", eps=1e-3),
    "both, lr in momentum": dict(eps_placement="both", eps=1e-2, momentum=0.9, lr_in_momentum=True),
    "floor": dict(eps_placement="floor", eps=0.3, alpha=0.9, momentum=0.9),
    "nesterov": dict(momentum=0.9, nesterov=True, initial_square_avg=1.0),
    "centered, nesterov, lr in momentum": dict(centered=True, momentum=0.5, nesterov=True, lr_in_momentum=True, eps=1e-2),
    "decoupled": dict(weight_decay=0.1, decoupled_weight_decay=True, rescale_grad=0.125),
    "corrected": dict(bias_correction=True, eps=1e-4),
    "centered, corrected": dict(centered=True, bias_correction=True, alpha=0.9, eps=1e-2, eps_placement="inside"),
    "clip value": dict(clip_grad_value=0.5, weight_decay=0.1, maximize=True),
    "clip after decay": dict(clip_grad_value=0.5, clip_after_decay=True, weight_decay=1.0, clip_weights=0.75),
    "clip norm": dict(clip_grad_norm=0.1, clip_grad_value=1.0),
    "clip update norm": dict(clip_grad_norm=0.1, clip_norm_on="update", clip_grad_value=1.0, momentum=0.9),
    "average": dict(ema_decay=0.75, momentum=0.9),
    "average, warming up": dict(ema_decay=0.25, ema_warmup=True, centered=True, eps=1e-4, weight_decay=0.1, decoupled_weight_decay=True),
    "cautious": dict(caution=True, momentum=0.9, weight_decay=0.5, clip_grad_value=1.0),
    "cautious, nesterov": dict(caution=True, centered=True, momentum=0.5, nesterov=True, lr_in_momentum=True, eps=1e-2, ema_decay=0.5),
    "corrected decay": dict(weight_decay=0.1, decoupled_weight_decay=True, corrected_weight_decay=True, max_lr_snapshot=0.03),
    "clip each norm": dict(clip_grad_norm=1.0, clip_norm_over="parameter", centered=True, eps=1e-2),
}

# how parameters and states are stored
MODES = {
    "stochastic": dict(stochastic_rounding=True),
    "master": dict(master_weights="float32"),
    "split": dict(master_weights="split"),
    "bfloat16 state": dict(state_dtype=torch.bfloat16),
    "8-bit state": dict(state_dtype="8bit"),
    "stochastic, bfloat16 state": dict(stochastic_rounding=True, state_dtype=torch.bfloat16),
    "stochastic, 8-bit state": dict(stochastic_rounding=True, state_dtype="8bit"),
    "master, 8-bit state": dict(master_weights="float32", state_dtype="8bit"),
    "split, bfloat16 state": dict(master_weights="split", state_dtype=torch.bfloat16),
    "split, 8-bit state": dict(master_weights="split", state_dtype="8bit"),
    "split24": dict(master_weights="split24"),
    "stochastic, 4-bit state": dict(stochastic_rounding=True, state_dtype="4bit"),
    "split24, 4-bit state": dict(master_weights="split24", state_dtype="4bit"),
}
MODES = {name: dict(mode, seed=0) for name, mode in MODES.items()}  # as the first optimizer of a process has it

# 0-d, empty, one element, tails of a vector, of a block, of a chunk
SHAPES = [(), (0,), (1,), (7,), (33, 5), (1024,), (1025,), (3, 1, 5), (16384 + 3,)]

F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
DTYPES = [(param, grad) for param in (F32, BF16, F16) for grad in (F32, BF16, F16)]  # of parameter and gradient
DTYPES += [(F64, F64), (F64, F32), (torch.complex64, torch.complex64), (torch.complex128, torch.complex128)]

EPS32 = 2.0**-24  # half a unit in the last place, relative
_HALF_ULP = {F32: EPS32, BF16: 2.0**-8, F16: 2.0**-11, F64: 2.0**-53, torch.complex64: EPS32, torch.complex128: 2.0**-53}
_SUBNORMAL = {F16: 2.0**-25}  # half the smallest step of float16; that of the others is far below what a test can see
ROUNDINGS = 24  # more than the operations of any rule on one element, square root and division counted twice


def code_error(value: np.ndarray, scale: np.ndarray, top: int) -> np.ndarray:
    """What one step of a code, up or down, may change: roots of shares of the scale are 1 / top apart."""
    return 2 * np.sqrt(np.abs(value) * scale) / top + scale / top**2


def storage_error(dtype: torch.dtype, value: np.ndarray) -> np.ndarray:
    """What rounding a value to its stored dtype may change."""
    return np.maximum(_HALF_ULP[dtype] * np.abs(value), _SUBNORMAL.get(dtype, 0.0))


def compute_error(dtype: torch.dtype) -> float:
    """The relative error of all operations of a step together."""
    return ROUNDINGS * (2.0**-53 if dtype in (F64, torch.complex128) else EPS32)
