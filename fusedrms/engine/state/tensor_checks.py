"""Checks of what a step updates: that a parameter, its gradient and the options go together."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...kernels import devices
from ..sharded import is_sharded
from .precision import REMAINDERS, Precision
from .strides import overlaps

# how the elements of a parameter are stored; complex ones as pairs, as torch.view_as_real shows them
STORED = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float64: "float64",
    torch.complex32: "float16",
    torch.complex64: "float32",
    torch.complex128: "float64",
}


def check_tensors(optimizer: str, name: str, param: Tensor, grad: Tensor) -> None:
    """RuntimeError unless the optimizer can update this parameter with this gradient."""
    for what, tensor in ((name, param), (f"{name}.grad", grad)):
        if tensor.layout is not torch.strided:
            remedy = "use sparse=False in nn.Embedding" if tensor is grad else "call to_dense() first"
            raise RuntimeError(f"{what} is {tensor.layout}; {optimizer} takes dense parameters and gradients: {remedy}")
        if tensor.device.type == "meta":
            raise RuntimeError(f"{what} is a meta tensor; give it memory with module.to_empty(device=...) before step()")
        if is_fake(tensor):
            raise RuntimeError(f"{what} is a FakeTensor, which has no memory; make the model outside of FakeTensorMode to update it")
        if is_traceable_wrapper_subclass(tensor):
            raise RuntimeError(f"{what} is a {type(tensor).__name__}; {optimizer} updates plain tensors: pass the local ones")
        if tensor.dtype not in STORED:
            raise RuntimeError(f"{what} has dtype {tensor.dtype}; {optimizer} takes {', '.join(map(str, STORED))}: convert it with to()")
    if param.device.type != "cpu" and not devices.is_gpu(param.device):
        raise RuntimeError(f"{name} is on {param.device}; {optimizer} runs on {devices.supported()}: move the model there")
    if grad.device != param.device:
        raise RuntimeError(f"{name}.grad is on {grad.device} but {name} on {param.device}; move the gradient to the parameter's device")
    if grad.shape != param.shape:
        raise RuntimeError(f"{name}.grad has shape {tuple(grad.shape)} but {name} {tuple(param.shape)}; give it the parameter's shape")
    if grad.is_complex() != param.is_complex():
        raise RuntimeError(f"{name}.grad is {grad.dtype} but {name} {param.dtype}; both must be complex or neither")
    if grad.dtype.itemsize > 4 * (1 + grad.is_complex()) and grad.dtype != param.dtype:
        raise RuntimeError(f"{name}.grad is {grad.dtype} but {name} {param.dtype}; convert the gradient with to({param.dtype})")
    if param.is_conj() or param.is_neg():
        raise RuntimeError(f"{name} is a lazily conjugated or negated view; call resolve_conj() or resolve_neg() first")
    if overlaps(param):
        raise RuntimeError(f"{name} is expanded: several elements share one address, strides {param.stride()}; call contiguous() first")
    if type(param).grad is not Tensor.grad:
        raise RuntimeError(
            f"{name} is a {type(param).__name__}, whose class has its own grad; {optimizer} reads that of torch.Tensor: pass plain tensors"
        )


def check_placement(name: str, param: Tensor, grad: Tensor) -> None:
    """RuntimeError unless this process holds as much of the gradient as of the parameter, or can."""
    if is_sharded(param) != is_sharded(grad):
        which = "a DTensor but its gradient is not" if is_sharded(param) else "no DTensor but its gradient is one"
        raise RuntimeError(f"{name} is {which}: distribute both alike, or make the gradient by a backward through the parameter")
    if is_sharded(param) and any(placement.is_partial() for placement in param.placements):  # pyright: ignore[reportAttributeAccessIssue]
        raise RuntimeError(f"{name} is a DTensor of partial sums: redistribute it to Shard or Replicate before the optimizer is made")


def check_precision(name: str, param: Tensor, precision: Precision) -> None:
    """RuntimeError unless the parameter can be stored so."""
    if precision.master_weights in REMAINDERS and param.dtype in (torch.float16, torch.complex32):
        raise RuntimeError(
            f"{name} is {param.dtype}, but master_weights={precision.master_weights!r} is for bfloat16 alone: "
            "use master_weights='float32', or a parameter group of its own"
        )
    if precision.state_dtype != torch.float32 and (param.is_complex() or param.dtype == torch.float64):
        raise RuntimeError(
            f"{name} is {param.dtype}, but state_dtype={precision.state_dtype!r} is for real parameters of up to 32 bits: "
            "use state_dtype=torch.float32, or a parameter group of its own"
        )
