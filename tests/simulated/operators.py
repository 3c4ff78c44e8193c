"""Every operator of torch on the simulated GPUs: put on the current stream, and run there on the CPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from . import NAME
from .memory import Block, alias, block_of, device_bytes, pinned_bytes
from .streams import Stream, current_stream, forbidden_in_capture, index_of, state, stream_of, synchronized

_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
aten = torch.ops.aten


def is_here(tensor: object) -> bool:
    return isinstance(tensor, Tensor) and tensor.device.type == NAME


def empty_strided(size, stride, dtype: torch.dtype, device: int) -> Tensor:
    reach = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else 0
    flat = device_bytes(max(reach, 1) * dtype.itemsize, device)  # as many as a kernel's mask may touch, never none
    typed = flat if dtype == torch.uint8 else aten.view.dtype.redispatch(_CPU, flat, dtype)
    return aten.as_strided.default.redispatch(_CPU, typed, size, stride, 0)


def empty_like(made: Tensor, device: int) -> Tensor:
    return empty_strided(made.shape, made.stride(), made.dtype, device)


def _strides(size) -> list[int]:
    return torch.empty(tuple(size), device="meta").stride()  # type: ignore[return-value]


def _dtype(dtype: torch.dtype | None) -> torch.dtype:
    return dtype or torch.get_default_dtype()


def _empty(size, *, dtype=None, device=None, memory_format=None, **_) -> Tensor:
    like = torch.empty(size, dtype=_dtype(dtype), device="meta", memory_format=memory_format or torch.contiguous_format)
    return empty_like(like, index_of(device))


def _empty_strided(size, stride, *, dtype=None, device=None, **_) -> Tensor:
    return empty_strided(size, stride, _dtype(dtype), index_of(device))


def _resize(tensor: Tensor, size, memory_format=None) -> Tensor:
    stride = _strides(size)
    n_bytes = tensor.dtype.itemsize * (tensor.storage_offset() + torch.Size(size).numel())
    if n_bytes > tensor.untyped_storage().nbytes():
        new = empty_strided(size, stride, tensor.dtype, tensor.device.index)
        return aten.set_.source_Storage_storage_offset.redispatch(_CPU, tensor, new.untyped_storage(), 0, size, stride)
    return aten.as_strided_.default.redispatch(_CPU, tensor, size, stride, None)


def _record_stream(tensor: Tensor, stream: torch.Stream) -> None:
    block = block_of(tensor)
    assert block is not None
    block.used_by.add(stream_of(stream.stream_id))


def _read(stream: Stream) -> None:
    """The host needs what a stream makes."""
    synchronized()
    stream.run()


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """_copy_from: between host and GPU, or within GPUs."""
    stream = current_stream(target.device if is_here(target) else source.device)
    to, of = alias(target), alias(source)
    if is_here(source) and is_here(target):
        other, position = current_stream(source.device), current_stream(source.device).n_put
        stream.put(lambda: (other is stream or other.run(position), to.copy_(of)))
        return target
    state.n_uploads += is_here(target)
    pinned = _pinned_block(source if is_here(target) else target)
    if pinned is not None and non_blocking:
        if state.graph is None:  # a replay that reads the memory later is no business of the allocator
            pinned.used_by.add(stream)
        stream.put(lambda: to.copy_(of))
        return target
    forbidden_in_capture("a copy from or to memory that is not pinned")
    if is_here(target):
        of = of.clone()
        stream.put(lambda: to.copy_(of))
    if not is_here(target) or not non_blocking:
        _read(stream)
    return target if is_here(target) else target.copy_(of)


def _scalar_tensor(value, *, dtype=None, device=None, **_) -> Tensor:
    """What torch makes of a number that is assigned by an index; for CUDA on the host, to be copied from there."""
    return _copy(torch.scalar_tensor(value, dtype=_dtype(dtype)), _empty((), dtype=dtype, device=device))


def _pinned_block(tensor: Tensor) -> Block | None:
    block = block_of(tensor) if tensor.device.type == "cpu" and tensor.numel() else None
    return block if block and block.device < 0 else None


def _is_pinned(tensor: Tensor, device=None) -> bool:
    return _pinned_block(tensor) is not None


def _pin_memory(tensor: Tensor, device=None) -> Tensor:
    forbidden_in_capture("pinning memory")
    flat = pinned_bytes(max(1, tensor.numel()) * tensor.dtype.itemsize).view(tensor.dtype)
    return flat[: tensor.numel()].view(tensor.shape).copy_(tensor)


TAKE_NUMBERS = {"aten::fill_.Tensor", "aten::index_put_", "aten::_index_put_impl_", "aten::_foreach_mul_.Tensor"}  # also the host's
SPECIAL: dict[str, Callable] = {
    "aten::empty.memory_format": _empty,
    "aten::empty_strided": _empty_strided,
    "aten::resize_": _resize,
    "aten::record_stream": _record_stream,
    "aten::_copy_from": _copy,
}


def _memory_of(argument: Any) -> str | None:
    """What a schema calls the memory of an argument or a return that is written; None if it is not."""
    alias_info = argument.alias_info
    return next(iter(alias_info.before_set), argument.name) if alias_info is not None and alias_info.is_write else None


def _written(op: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments that an operator writes, by their memory."""
    found = {}
    for k, argument in enumerate(op._schema.arguments):
        if (name := _memory_of(argument)) is not None:
            found[name] = args[k] if k < len(args) else kwargs.get(argument.name)
    return found


def _host(value: Any) -> Any:
    """An argument for the CPU's operator, as it is now."""
    if is_here(value):
        return alias(value)
    if isinstance(value, Tensor):
        return value.detach().clone()
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _meta(value: Any, device: str = "meta") -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
    return torch.device(device) if isinstance(value, torch.device) else value


def _trial(value: Any) -> Any:
    """Of normalisations on meta tensors the statistics have another dtype than on a CPU, which takes no other in the backward."""
    return _meta(value, "cpu")


def _mapped(what: Callable, op: Any, args: tuple, kwargs: dict) -> tuple[list, dict]:
    """Arguments, of which numbers that stand for tensors become tensors again."""
    kinds = [str(argument.type) for argument in op._schema.arguments]
    wanted = [
        torch.tensor(value, device="cpu") if kind == "Tensor" and isinstance(value, int | float | complex) else value
        for kind, value in zip(kinds, args, strict=False)
    ]
    return tree_map(what, wanted), tree_map(what, kwargs)


def _check_devices(op: Any, tensors: list[Tensor], index: int) -> None:
    numbers = op.name() != "aten::equal" and (torch.Tag.pointwise in op.tags or op.name() in TAKE_NUMBERS)
    for tensor in tensors:
        elsewhere = tensor.device.index != index if is_here(tensor) else tensor.dim() > 0 or not numbers
        if elsewhere:
            raise RuntimeError(f"{op.name()}: all tensors must be on the same device, but one is on {tensor.device}")


def _outputs(op: Any, kwargs: dict, device: str) -> dict[str, Tensor]:
    """New tensors in the place of those arguments that an operator only writes, for it to give them a size."""
    names = [argument.name for argument in op._schema.arguments if argument.kwarg_only and _memory_of(argument)]
    return {name: torch.empty(0, dtype=kwargs[name].dtype, device=device) for name in names if isinstance(kwargs.get(name), Tensor)}


def _write(op: Any, args: list, kwargs: dict) -> None:
    made = _outputs(op, kwargs, "cpu")
    op(*args, **{**kwargs, **made})
    for name, value in made.items():
        kwargs[name].copy_(value)


def _sized(op: Any, args: tuple, kwargs: dict, stream: Stream) -> None:
    """Give outputs, the arguments that have names only, the size that the operator wants."""
    empty = _outputs(op, kwargs, "meta")
    if not empty:
        return
    try:
        meta_args, meta_kwargs = _mapped(_meta, op, args, kwargs)
        op(*meta_args, **{**meta_kwargs, **empty})
    except Exception:  # the size depends on the data
        _read(stream)
        empty = _outputs(op, kwargs, "cpu")
        host_args, host_kwargs = _mapped(_host, op, args, kwargs)
        op(*host_args, **{**host_kwargs, **empty})
    for name, made in empty.items():
        if kwargs[name].shape != made.shape:
            _resize(kwargs[name], made.shape)


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """The fallback of the device."""
    if op.name() in SPECIAL:
        return SPECIAL[op.name()](*args, **kwargs)
    if op.is_view or torch.Tag.inplace_view in op.tags or op.name().startswith("aten::set_"):
        return op.redispatch(_CPU, *args, **kwargs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    index = next((tensor.device.index for tensor in tensors if is_here(tensor)), None)
    index = index_of(kwargs.get("device")) if index is None else index
    _check_devices(op, tensors, index)
    stream, written = current_stream(index), _written(op, args, kwargs)
    _sized(op, args, kwargs, stream)
    host_args, host_kwargs = _mapped(_host, op, args, kwargs)
    if written:
        _put(op, stream, host_args, host_kwargs, [alias(tensor) for tensor in tree_leaves(list(written.values())) if is_here(tensor)])
        returned = [written[_memory_of(ret) or ""] for ret in op._schema.returns]
        return returned[0] if len(returned) == 1 else tuple(returned) or None
    if not all(str(ret.type) in ("Tensor", "List[Tensor]") for ret in op._schema.returns):
        _read(stream)
        return op(*host_args, **host_kwargs)
    try:
        meta_args, meta_kwargs = _mapped(_trial if op.name().startswith("aten::native_") else _meta, op, args, kwargs)
        made = op(*meta_args, **meta_kwargs)
    except Exception:  # its shape depends on the data
        _read(stream)
        made = op(*host_args, **host_kwargs)
    outputs = tree_map_only(Tensor, lambda tensor: empty_like(tensor, index), made)
    targets = [alias(tensor) for tensor in tree_leaves(outputs)]

    def work() -> None:
        for target, value in zip(targets, tree_leaves(op(*host_args, **host_kwargs)), strict=True):
            target.copy_(value)

    stream.put(work)
    return outputs


def _put(op: Any, stream: Stream, args: list, kwargs: dict, targets: list[Tensor]) -> None:
    """What writes its arguments; random numbers are drawn in the order of the calls."""
    if torch.Tag.nondeterministic_seeded not in op.tags:
        stream.put(lambda: _write(op, args, kwargs))
        return
    drawn = op(*(value.clone() if isinstance(value, Tensor) else value for value in args), **kwargs)
    stream.put(lambda: targets[0].copy_(drawn))


def register() -> list[torch.library.Library]:
    """What must be kept for as long as the device is to work."""
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(run, "PrivateUse1")
    own = torch.library.Library("aten", "IMPL")
    own.impl("_pin_memory", _pin_memory, "CPU")
    own.impl("is_pinned", _is_pinned, "CPU")
    own.impl("scalar_tensor", _scalar_tensor, "PrivateUse1")
    for key in ("Conjugate", "Negative"):  # else a copy resolves its source, by a copy
        own.impl("_copy_from", torch.library.fallthrough_kernel, key)
    return [fallback, own]
