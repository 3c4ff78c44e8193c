"""8-bit states: codes, and a float32 scale for each group of GROUP consecutive codes."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...kernels.quant import GROUP, LEAST_SCALE
from .precision import SCALE
from .strides import dense_like, flat

LARGEST_CODE = {torch.uint8: 255, torch.int8: 127}
LEAST = torch.tensor(LEAST_SCALE, dtype=torch.int32, device="cpu").view(torch.float32).item()  # the scale of a group of zeros


def n_groups(tensor: Tensor) -> int:
    return -(-tensor.numel() // GROUP)


def is_quantized(values: dict, key: str) -> bool:
    """Whether a state holds codes and their scales."""
    return isinstance(values.get(key), Tensor) and values[key].dtype in LARGEST_CODE and isinstance(values.get(key + SCALE), Tensor)


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """float32 values of codes, one scale for each GROUP of consecutive ones."""
    part = flat(dense_like(codes).copy_(codes)).float() / LARGEST_CODE[codes.dtype]
    values = dense_like(codes, dtype=torch.float32)
    flat(values).copy_(part * part.abs() * scale.repeat_interleave(GROUP)[: codes.numel()])
    return values


def quantize(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes and scales of dense float32 values, to nearest; of what dequantize() gave, those that it was given."""
    x, largest = flat(values), LARGEST_CODE[dtype]
    scale = pad(x.abs(), (0, -x.numel() % GROUP)).view(-1, GROUP).amax(1).clamp(LEAST)
    level = (x.abs() / scale.repeat_interleave(GROUP)[: x.numel()]).sqrt().mul(largest).round().nan_to_num(largest)
    level = level.maximum((x != 0).float()) if dtype == torch.uint8 else level.copysign(x)
    codes = dense_like(values, dtype=dtype)
    flat(codes).copy_(level)
    return codes, scale
