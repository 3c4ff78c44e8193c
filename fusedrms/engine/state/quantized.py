"""States of 8 or 4 bits: codes, and a float32 scale for each group of GROUP consecutive codes."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...kernels.quant import GROUP, LEAST_SCALE, PER_WORD
from ...kernels.storage import TOP
from .precision import DIM_ORDER, PACKED, SCALE, Kinds, is_average
from .strides import dense_like, flat, order

LEAST = torch.tensor(LEAST_SCALE, dtype=torch.int32, device="cpu").view(torch.float32).item()  # the scale of a group of zeros


def n_groups(tensor: Tensor) -> int:
    return -(-tensor.numel() // GROUP)


def n_words(tensor: Tensor) -> int:
    return -(-tensor.numel() // PER_WORD)


def code_of(kinds: Kinds, key: str, dtype: torch.dtype) -> str:
    """What the kernels call the codes that a state of this name and dtype is; empty if it is none."""
    if not is_average(kinds, key):
        return ""
    return {torch.uint8: "uint8", torch.int8: "int8", PACKED: "uint4" if kinds[key].nonnegative else "int4"}.get(dtype, "")


def is_packed(kinds: Kinds, key: str, dtype: torch.dtype | None) -> bool:
    """Whether a state of this name and dtype is codes of 4 bits."""
    return dtype == PACKED and is_average(kinds, key)


def is_quantized(kinds: Kinds, values: dict, key: str) -> bool:
    """Whether a state holds codes and their scales."""
    codes, scale = values.get(key), values.get(key + SCALE)
    return isinstance(codes, Tensor) and code_of(kinds, key, codes.dtype) != "" and isinstance(scale, Tensor)


def pack(codes: Tensor) -> Tensor:
    """Words of four codes, the first in the lowest bits; negative ones as two's complements."""
    nibbles = codes.to(PACKED) & 15
    first, second, third, fourth = pad(nibbles, (0, -codes.numel() % PER_WORD)).view(-1, PER_WORD).unbind(1)
    return first | second << 4 | third << 8 | fourth << 12


def unpack(words: Tensor, n: int, signed: bool) -> Tensor:
    """The n codes that pack() was given, as int16."""
    nibbles = torch.stack([words >> 4 * k & 15 for k in range(PER_WORD)], 1).flatten()[:n]
    return (nibbles ^ 8) - 8 if signed else nibbles


def dim_orders(kinds: Kinds, param: Tensor, tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """What a parameter's state must have beside its tensors, that packed codes tell of which elements they are: they have no strides."""
    dense = dense_like(param, device="meta")
    if order(dense) == order(torch.empty(param.shape, device="meta")):
        return {}
    return {key + DIM_ORDER: tuple(dense.dim_order()) for key, value in tensors.items() if is_packed(kinds, key, value.dtype)}


def packed_like(param: Tensor, values: dict, key: str) -> Tensor:
    """A meta tensor whose elements lie as those that the packed codes in a parameter's state were made of."""
    return torch.empty_permuted(param.shape, tuple(values.get(key + DIM_ORDER, range(param.dim()))), device="meta")


def dequantize(codes: Tensor, scale: Tensor, code: str, like: Tensor) -> Tensor:
    """float32 values of codes, one scale for each GROUP of consecutive ones, to the bit what kernels read.

    Args:
        codes, scale: what quantize() gives.
        code: their name in storage.TOP.
        like: a tensor as the one that was quantized, of any device: the codes themselves where they are not packed.
    """
    values = dense_like(like, dtype=torch.float32, device=codes.device)
    packed = codes.dtype == PACKED
    level = unpack(codes, values.numel(), signed=code == "int4") if packed else flat(dense_like(codes).copy_(codes))
    part = level.float() * (1 / TOP[code])
    flat(values).copy_(part * part.abs() * scale.repeat_interleave(GROUP)[: values.numel()])
    return values


def quantize(values: Tensor, code: str) -> tuple[Tensor, Tensor]:
    """Codes and scales of dense float32 values, to nearest; of what dequantize() gave, those that it was given.

    Args:
        values: of any shape; codes of 8 bits come in the same, words of four codes as a row.
        code: a name in storage.TOP.
    """
    x, top = flat(values), TOP[code]
    scale = pad(x.abs(), (0, -x.numel() % GROUP)).view(-1, GROUP).amax(1).clamp(LEAST)
    shared = scale.repeat_interleave(GROUP)[: x.numel()]
    level = (x.abs() / shared).sqrt().mul(top).round().nan_to_num(top).masked_fill(shared.isinf(), top)  # 0 times infinity is a NaN
    level = level.maximum((x != 0).float()) if code in ("uint8", "uint4") else torch.where(x < 0, -level, level)
    if code in ("uint4", "int4"):
        return pack(level), scale
    codes = dense_like(values, dtype=getattr(torch, code))
    flat(codes).copy_(level)
    return codes, scale
