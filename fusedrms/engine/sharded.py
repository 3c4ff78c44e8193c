"""DTensors: the local shard of one, and one made of a local shard."""

import dataclasses
import gc
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from ..kernels import devices

GROUPS = (torch.distributed.ProcessGroup, DeviceMesh) if torch.distributed.is_available() else ()


def _module() -> Any:
    """torch.distributed.tensor, if anyone has imported it: else there is no DTensor, and importing it takes a second."""
    return sys.modules.get("torch.distributed.tensor")


def is_sharded(tensor: object) -> bool:
    module = _module()
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> Any:
    """The local shard of a DTensor, sharing its memory; anything else as it is."""
    return tensor._local_tensor if is_sharded(tensor) else tensor


def locals_of(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: local(value) for key, value in list(values.items())}  # a list, since another thread may begin a state


def as_dtensor(param: Any, tensor: Any) -> Any:
    """A DTensor placed as the parameter is, whose local shard the tensor is; one of another shape stays as it is."""
    if not is_sharded(param) or not isinstance(tensor, Tensor) or is_sharded(tensor):
        return tensor
    if tensor.shape != local(param).shape or not tensor.dim():
        return tensor
    # not from_local(), which copies to the device of the mesh: parameters that FSDP2 offloads are on a CPU
    meta = param._spec.tensor_meta._replace(dtype=tensor.dtype)
    return _module().DTensor(tensor, dataclasses.replace(param._spec, tensor_meta=meta), requires_grad=False)


def reshard(params: Iterable[Any]) -> None:
    """Let FSDP2 gather parameters anew where it has kept whole ones, after a forward without a backward say."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and sharded(params):
        for module in gc.get_objects():  # parameters do not know their modules
            if issubclass(type(module), fsdp.FSDPModule):
                module.reshard()


def wait_for_grads(params: Iterable[Any]) -> None:
    """Wait for gradients that are still under way: their memory is not theirs before."""
    for param in params:
        if hasattr(grad := param.grad, "wait"):
            param.grad = grad.wait()
        elif is_sharded(grad) and hasattr(grad._local_tensor, "wait"):
            grad._local_tensor = grad._local_tensor.wait()


def sharded(params: Iterable[Any]) -> list[Any]:
    return [param for param in params if is_sharded(param)]


def placed_grads(params: list[Any]) -> dict[Any, Tensor]:
    """Of the gradients that are placed otherwise than their parameters the local shards once they are redistributed alike.

    Args:
        params: DTensors.

    That takes collectives: every process calls this once a step, for the same parameters in the same order, whatever tables it has.

    Raises:
        RuntimeError: a gradient on a mesh from which torch cannot bring it to the parameter's.
    """
    found = {}
    for param in params:
        if (grad := param.grad) is None or not hasattr(grad, "_spec"):
            continue
        here, there = grad._spec, param._spec  # of FSDP2 the same object
        if here is there or (here.placements == there.placements and (here.mesh is there.mesh or here.mesh == there.mesh)):
            continue
        try:
            found[param] = local(grad.redistribute(param.device_mesh, param.placements))
        except NotImplementedError:
            raise RuntimeError(
                f"the gradient of a parameter of shape {tuple(param.shape)} is on {grad.device_mesh}, the parameter on "
                f"{param.device_mesh}: redistribute the gradient to that mesh before step()"
            ) from None
    return found


class ProcessGroups(tuple):
    """Process groups as an option: copies have the same ones; a pickle, which can hold none, has an empty set in their place."""

    def __copy__(self) -> "ProcessGroups":
        return self

    def __deepcopy__(self, _: dict) -> "ProcessGroups":
        return self

    def __reduce__(self) -> tuple:
        return set, ()  # which torch.load(weights_only=True) takes


def process_groups(value: Any) -> ProcessGroups:
    """The process groups that a ProcessGroup, a DeviceMesh (one for each dimension), or a list of these stands for, each once; None: none.

    Raises:
        TypeError: it is another thing, or a group that this process is not in.
    """
    if isinstance(value, ProcessGroups):
        return value
    if value is None or (isinstance(value, set) and not value):
        return ProcessGroups()
    if isinstance(value, list | tuple):
        return ProcessGroups(dict.fromkeys(group for each in value for group in process_groups(each)))
    if isinstance(value, GROUPS):
        if not isinstance(value, DeviceMesh):
            return ProcessGroups([value])
        if value.get_coordinate() is not None:
            return ProcessGroups(value.get_all_groups())
    raise TypeError(
        f"model_parallel_group={value!r} is not supported: it must be a ProcessGroup or DeviceMesh that this process is in (torch has -100 "
        "for another), a list of these, or None"
    )


def rank_in(groups: Iterable[Any]) -> int:
    """The rank of this process in several process groups together, from 0."""
    rank = 0
    for group in groups:
        rank = rank * torch.distributed.get_world_size(group) + torch.distributed.get_rank(group)
    return rank


def device_of(group: Any) -> torch.device:
    """Where a process without tensors takes part in the collectives of a group: on its GPU, if the group has a backend for it."""
    backends = torch.distributed.get_backend_config(group)
    gpu = next((gpu for gpu in devices.gpus() if gpu.type in backends), None)
    return torch.device(gpu.type, devices.module(gpu).current_device()) if gpu else torch.device("cpu")


def summed_over(param: Any) -> tuple[Any, ...]:
    """The process groups over which a sum over the parameter's elements must be added up."""
    if not is_sharded(param) or param.device_mesh.get_coordinate() is None:  # this process has no shard of it
        return ()
    return tuple(param.device_mesh.get_group(dim) for dim, placement in enumerate(param.placements) if not placement.is_replicate())


def shard_offset(param: Any) -> int:
    """The offset in the whole parameter of the local shard, if that is contiguous there; else one beyond it.

    By the offsets of elements random bits are drawn: they are those of the whole parameter, or shared with no other shard of it.
    """
    if not is_sharded(param) or not local(param).numel():
        return 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(param.shape, param.device_mesh, param.placements)
    strides = torch.empty(param.shape, device="meta").stride()
    first = sum(start * stride for start, stride in zip(offset, strides, strict=True))
    split = [dim for dim in range(param.dim()) if shape[dim] != param.shape[dim]]
    contiguous = param.is_contiguous() and all(param.shape[dim] == 1 for last in split[-1:] for dim in range(last))
    if contiguous:
        return first
    shard = 0  # its number among all shards
    for rank, size, placement in zip(param.device_mesh.get_coordinate(), param.device_mesh.shape, param.placements, strict=True):
        shard = shard if placement.is_replicate() else shard * size + rank
    return (1 + shard) * param.numel()
