"""Shards: what this process holds of a DTensor, and a DTensor of what it holds."""

import sys
from typing import Any

import torch
from torch import Tensor


def _module() -> Any:
    """torch.distributed.tensor, if anyone has imported it: else there is no DTensor, and importing it takes a second."""
    return sys.modules.get("torch.distributed.tensor")


def is_sharded(tensor: object) -> bool:
    module = _module()
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> Any:
    """What this process holds of a DTensor, sharing its memory; anything else as it is."""
    return tensor._local_tensor if is_sharded(tensor) else tensor


def locals_of(values: dict) -> dict:
    return {key: local(value) for key, value in values.items()}


def placed(param: Tensor, tensor: Any) -> Any:
    """A DTensor placed as the parameter is, of what this process holds of it; what has another shape stays as it is."""
    if not is_sharded(param) or not isinstance(tensor, Tensor) or is_sharded(tensor):
        return tensor
    if tensor.shape != local(param).shape or not tensor.dim():
        return tensor
    mesh: Any = param
    return _module().DTensor.from_local(
        tensor, mesh.device_mesh, mesh.placements, run_check=False, shape=param.shape, stride=param.stride()
    )


def same_placement(param: Any, grad: Any) -> bool:
    if not is_sharded(param):
        return not is_sharded(grad)
    return is_sharded(grad) and (grad.device_mesh, grad.placements) == (param.device_mesh, param.placements)


def local_grad(param: Any) -> Tensor:
    """What this process holds of the gradient, placed as the parameter is; shares its memory unless it was placed otherwise."""
    grad = param.grad
    if is_sharded(grad) and not same_placement(param, grad):
        grad = grad.redistribute(param.device_mesh, param.placements)
    shown = local(grad)
    return shown.wait() if hasattr(shown, "wait") else shown


def summed_over(param: Any) -> tuple[Any, ...]:
    """The process groups over which a sum over the parameter's elements must be added up."""
    if not is_sharded(param):
        return ()
    return tuple(param.device_mesh.get_group(dim) for dim, placement in enumerate(param.placements) if not placement.is_replicate())


def first_element(param: Any) -> int:
    """The place in the whole parameter of the first element that is here, if all here lie in a row there; else a place beyond it.

    By the places of elements random bits are drawn: they are those of the whole parameter, or shared with no other part of it.
    """
    if not is_sharded(param) or not local(param).numel():
        return 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(param.shape, param.device_mesh, param.placements)
    strides = torch.empty(param.shape, device="meta").stride()
    first = sum(start * stride for start, stride in zip(offset, strides, strict=True))
    split = [dim for dim in range(param.dim()) if shape[dim] != param.shape[dim]]
    in_a_row = param.is_contiguous() and all(param.shape[dim] == 1 for last in split[-1:] for dim in range(last))
    if in_a_row:
        return first
    part = 0  # its number among all parts
    for place, size, placement in zip(param.device_mesh.get_coordinate(), param.device_mesh.shape, param.placements, strict=True):
        part = part if placement.is_replicate() else part * size + place
    return (1 + part) * param.numel()
