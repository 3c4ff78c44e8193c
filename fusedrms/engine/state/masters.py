"""Masters of 16-bit parameters: a float32 tensor, or a remainder, the 16 or 8 bits that a bfloat16 parameter lacks of a float32.

The float32 of 8 bits ends in 8 zeros.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..sharded import as_dtensor, locals_of
from .precision import MASTER, WIDE, wide_dtype
from .strides import state_like
from .ties import Ties, is_remainder


def _shift(dtype: torch.dtype) -> int:
    """How many bits a float32 has below those of a remainder."""
    return 16 - 8 * dtype.itemsize


def split(master: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The bfloat16 parameter and the remainder of a float32 master, as rounding.split_master has it: ties go away from 0.

    To int8 the master is first rounded to 24 bits: to nearest, ties likewise.
    """
    shift = _shift(dtype)
    bits = torch.where(master.isnan(), 0x7FC00000, master.view(torch.int32)) + (1 << shift >> 1)
    bits = bits >> shift << shift
    return (bits + 0x8000 >> 16).to(torch.int16).view(torch.bfloat16), (bits >> shift).to(dtype)


def is_split_of(param: Tensor, master: Tensor, dtype: torch.dtype) -> bool:
    """Whether a bfloat16 parameter is that of split(), bit for bit."""
    return torch.equal(split(state_like(param, master), dtype)[0].view(torch.int16), param.detach().view(torch.int16))


def _nearest_master(param: Tensor, master: Tensor) -> Tensor:
    """The master, or the parameter where it is no nearest one to the master, as rounding.master_or_param has it."""
    wide = param.to(master.dtype)
    if param.dtype == torch.bfloat16:  # a tie may have gone either way
        distance = master.view(torch.int32) - (param.view(torch.int16).int() << 16)
        near = (distance >= -0x8000) & (distance <= 0x8000)
    else:
        near = master.to(param.dtype) == param
    return torch.where(near, master, wide)


def _from_remainder(param: Tensor, remainder: Tensor) -> Tensor:
    """The float32 whose split() the two are; the parameter itself where they are none's: beyond 0 and beyond infinity there are NaNs."""
    upper = param.view(torch.int16).int() << 16
    bits = upper + (remainder.to(param.device).int() << _shift(remainder.dtype))
    return torch.where(bits.view(torch.float32).isnan(), upper, bits).view(torch.float32)


def master_of(param: Tensor, values: Mapping[str, Any]) -> Tensor | None:
    """The float32 master, if there is one; where something else has changed the parameter, what that comes to."""
    param = param.detach()
    master = values.get(MASTER)
    if is_remainder(master):
        return _from_remainder(param, master) if param.dtype == torch.bfloat16 else None
    if master is None or param.dtype not in WIDE:
        return None
    master = master.to(param.device, WIDE[param.dtype])  # torch's optimizers narrow it
    if not param.is_complex():
        return _nearest_master(param, master)
    return torch.view_as_complex(_nearest_master(torch.view_as_real(param), torch.view_as_real(master)))


def export_master(optimizer: Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parameter of an optimizer with its value in full precision: a 16-bit parameter's float32 master, if it has one.

    Args:
        optimizer: An optimizer of this package.

    Yields:
        `(parameter, value)`: the value is a copy with the parameter's shape, device and placement, float32 for 16-bit parameters, else of
            the parameter's dtype. It is copied when it is asked for, so memory for one value is enough.

    Raises:
        RuntimeError: Within `averaged()`.

    Examples:
        >>> model = torch.nn.Linear(4, 2).to(torch.bfloat16)
        >>> optimizer = FusedRMSProp(model.parameters(), master_weights="split")
        >>> model(torch.ones(8, 4, dtype=torch.bfloat16)).sum().backward()
        >>> optimizer.step()
        >>> masters = {parameter: value.cpu() for parameter, value in export_master(optimizer)}
        >>> masters[model.weight].dtype
        torch.float32
    """
    run: Any = getattr(optimizer, "_run", None)
    if run:
        run.check_not_averaged("export_master()")
    ties = run.ties if run else Ties()
    for group in optimizer.param_groups:
        for param in group["params"]:
            values = locals_of(optimizer.state.get(param, {}))
            rounded = ties.exported(param, values)
            master = master_of(rounded, values)
            value = (rounded if master is None else master).to(wide_dtype(param), copy=True)
            yield param, as_dtensor(param, value)
