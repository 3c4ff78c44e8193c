"""A model in shards and whole, gradients for both, and what they must agree in."""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from fusedrms.engine.sharded import local

STEPS = 3
DEVICE = "cpu"  # of this rank


def mesh_of(*shape: int, names: tuple[str, ...] | None = None) -> DeviceMesh:
    return init_device_mesh(DEVICE, shape, mesh_dim_names=names)


def layers(dtype=torch.float32) -> nn.Sequential:
    """Of 13, 5 and 1 rows: uneven shards, and empty ones."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 13), nn.Tanh(), nn.Linear(13, 5), nn.Tanh(), nn.Linear(5, 1)).to(DEVICE, dtype)


def even_layers(dtype=torch.float32) -> nn.Sequential:
    """What tensor parallel can divide."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8)).to(DEVICE, dtype)


def sharded(mesh: DeviceMesh, dtype=torch.float32, **options) -> nn.Sequential:
    model = layers(dtype)
    for layer in model[::2]:
        fully_shard(layer, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def tensor_parallel(mesh: DeviceMesh, dtype=torch.float32) -> nn.Sequential:
    """By columns, then by rows, along the last dimension of the mesh; in shards along the first of two."""
    model = even_layers(dtype)
    parallelize_module(model, mesh["tensor"] if mesh.ndim > 1 else mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    if mesh.ndim > 1:
        for layer in model[::2]:
            fully_shard(layer, mesh=mesh["data"])
        fully_shard(model, mesh=mesh["data"])
    return model


def part(whole: Tensor, param: Tensor) -> Tensor:
    """What lies in this process of a tensor that is placed as the parameter is."""
    if not isinstance(param, DTensor):
        return whole
    shape, offset = compute_local_shape_and_global_offset(param.shape, param.device_mesh, param.placements)
    return whole[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]


def give_gradients(step: int, *models: nn.Module) -> None:
    """The same to all, placed as their parameters are."""
    for k, params in enumerate(zip(*(model.parameters() for model in models), strict=True)):
        grad = torch.randn(params[0].shape, generator=torch.Generator().manual_seed(100 * step + k)).to(DEVICE, params[0].dtype)
        for param in params:
            here = part(grad, param).clone()
            if isinstance(param, DTensor):
                here = DTensor.from_local(here, param.device_mesh, param.placements, shape=param.shape, stride=param.stride())
            param.grad = here


def agree(model: nn.Module, plain: nn.Module, exact: bool = True) -> None:
    pairs = zip(model.parameters(), plain.parameters(), strict=True)
    check([local(param) for param in model.parameters()], [part(local(other), param) for param, other in pairs], exact)


def check(params, expected, exact: bool = True) -> None:
    for param, other in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), other.detach(), rtol=0 if exact else 1e-6, atol=0 if exact else 1e-6)
