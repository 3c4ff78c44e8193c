"""How the elements of a tensor lie in memory: their stride order, gaps and overlaps, and tensors that lie as a parameter does."""

import torch
from torch import Tensor

from .precision import wide_dtype


def dense_like(param: Tensor, **kwargs) -> Tensor:
    """Memory for one value per element of param, without gaps, in the order of param's memory."""
    return torch.empty_like(param, memory_format=torch.preserve_format, requires_grad=False, **kwargs)


def order(tensor: Tensor) -> list[int]:
    """The strides that decide an address; those of dimensions of size 1 are arbitrary."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1]


def overlaps(tensor: Tensor) -> bool:
    """Whether two elements may share an address."""
    reach = 0  # of the dimensions so far, in elements
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return tensor.numel() > 0
        reach += stride * (size - 1)
    return False


def is_conj_or_neg(tensor: Tensor | None) -> bool:
    """Whether the memory holds the conjugate or the negative of the values."""
    return tensor is not None and (tensor.is_conj() or tensor.is_neg())


def flat(tensor: Tensor) -> Tensor:
    """The elements of a dense tensor, in the order of memory."""
    return tensor.as_strided((tensor.numel(),), (1,))


def lies_like(param: Tensor, value: Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor has a dtype, param's device, and the stride order of dense_like(param)."""
    if (value.device, value.dtype) != (param.device, dtype):
        return False
    return order(value) == order(dense_like(param, device="meta")) and not is_conj_or_neg(value)


def state_like(param: Tensor, value: Tensor | float, dtype: torch.dtype | None = None) -> Tensor:
    """A value per element of param, on its device, in its stride order: `value` itself if it lies so, else a new tensor.

    Args:
        param: a parameter.
        value: a tensor of its shape, or one number for all elements.
        dtype: by default that of states in full precision.
    """
    dtype = dtype or wide_dtype(param)
    if isinstance(value, Tensor):
        return value if lies_like(param, value, dtype) else dense_like(param, dtype=dtype).copy_(value)
    like = dense_like(param, dtype=dtype)
    (torch.view_as_real(like) if like.is_complex() else like).fill_(value)
    return like
