"""Checks of what users pass, and the wording of errors: the thing, its value, the remedy."""

import math
import sys
from collections.abc import Collection, Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..kernels import devices
from .sharded import is_sharded, locals_of
from .storage import MASTER, SCALE, Precision, is_coded, n_groups

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


# A schedule that ends at 0 may miss it by its last rounding. In a float32 tensor that is 6e-9 of a rate of 0.1, in Python's numbers
# far less; a rate that is negative by mistake, -1e-5 say, is larger.
ROUNDED_ZERO = -1e-8
LARGE = "an integer above 1.8e308"  # instead of its digits


class UserError(Exception):
    """What a command was asked for cannot be done; its text is for the user."""


def plain(value: Any) -> Any:
    """A number of NumPy's as Python's, which torch.load(weights_only=True) takes; anything else as it is."""
    if isinstance(value, np.generic | np.ndarray) and value.size == 1:
        value = value.item()
    return float(value) if isinstance(value, np.floating) else value  # a longdouble's item() is one


def check_at_least_zero(group: dict, **labels: str) -> None:
    """ValueError, in torch's words, unless each named option of the group is a finite number >= 0; a learning rate on a GPU is not read."""
    for option, label in labels.items():
        _check_number(option, f"Invalid {label}", group[option])


def is_scheduled_lr(lr: Any) -> bool:
    """Whether it is a number that a schedule may set, 0 or more but for a rounding error; a fast answer."""
    return isinstance(lr, float) and ROUNDED_ZERO <= lr < math.inf


def check_scheduled_lr(lr: Any, where: str = "") -> None:
    """As check_at_least_zero, of a learning rate that a schedule may have set; where: the beginning of an error."""
    if not is_scheduled_lr(lr):
        _check_number("lr", f"{where}Invalid learning rate", lr, ROUNDED_ZERO)


def _check_number(option: str, label: str, value: Any, least: float = 0.0) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"Tensor {option} must be 1-element, got shape {tuple(value.shape)}; pass a number or torch.tensor(number)")
        if option == "lr" and devices.is_gpu(value.device):  # read there, at each step
            return
    try:
        valid = bool(least <= value < math.inf) and _fits_float(value)
    except (TypeError, RuntimeError, ValueError):
        raise TypeError(f"{label}: {value!r} is a {type(value).__name__}; pass a number >= 0") from None
    if not valid:
        raise ValueError(f"{label}: {value if _fits_float(value) else LARGE}; it must be a finite number >= 0")


def _fits_float(value: Any) -> bool:
    """Whether a number is none of the integers that are too large for a float; these may have more digits than Python prints."""
    return not isinstance(value, int) or abs(value) <= sys.float_info.max


def check_present(g: int, group: dict, defaults: Mapping[str, Any]) -> None:
    """ValueError unless parameter group g has its parameters and every option."""
    for option in ("params", *defaults):
        if option not in group:
            raise ValueError(
                f"parameter group {g} has no {option!r}: set optimizer.param_groups[{g}][{option!r}], whose default is "
                f"{defaults.get(option, [])!r}, or add the group with add_param_group(), which fills in what it lacks"
            )


def check_positive(group: dict, *options: str) -> None:
    """ValueError unless each named option of the group is a finite number > 0."""
    for option in options:
        try:
            valid = bool(0.0 < group[option] < math.inf) and _fits_float(group[option])
        except (TypeError, RuntimeError, ValueError):
            valid = False
        if not valid:
            shown = repr(group[option]) if _fits_float(group[option]) else LARGE
            raise ValueError(f"{option}={shown} is not supported: it must be a finite number > 0")


def check_limits(group: dict, *options: str) -> None:
    """ValueError unless each named option of the group is None or a finite number > 0."""
    for option in options:
        if group[option] is not None:
            try:
                check_positive(group, option)
            except ValueError as error:
                raise ValueError(f"{error}, or None for no limit") from None


def check_flags(group: dict, *options: str) -> None:
    """ValueError unless each named option of the group is True or False: a string, say, would count as True."""
    for option in options:
        if not isinstance(group[option], bool | int | np.bool_) or group[option] not in (0, 1):
            raise ValueError(f"{option}={group[option]!r} is not supported: it must be True or False")


def check_choice(group: dict, option: str, values: Collection[str]) -> None:
    """ValueError unless the named option of the group is one of some words."""
    value = group[option]
    if not isinstance(value, str) or value not in values:
        raise ValueError(f"{option}={value!r} is not supported: it must be {' or '.join(map(repr, values))}")


def check_precision_options(group: dict) -> None:
    """ValueError unless the options that decide how values are stored have values that go together."""
    check_flags(group, "stochastic_rounding")
    if group["master_weights"] is not None:
        try:
            check_choice(group, "master_weights", ("float32", "split"))
        except ValueError as error:
            raise ValueError(f"{error}, or None for none") from None
        if group["stochastic_rounding"]:
            raise ValueError(
                f"stochastic_rounding=True with master_weights={group['master_weights']!r} is not supported: "
                "the parameter is the nearest to its master; leave one of them out"
            )
    state_dtype, seed = group["state_dtype"], group["seed"]
    if not isinstance(state_dtype, torch.dtype | str) or state_dtype not in (torch.float32, torch.bfloat16, "8bit"):
        raise ValueError(f"state_dtype={state_dtype!r} is not supported: it must be torch.float32, torch.bfloat16 or '8bit'")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"seed={seed!r} is not supported: it must be a whole number from 0 to 2**64 - 1")


def check_off(group: dict, **reasons: str) -> None:
    """ValueError if any of the named options is on; its value here says what to do instead."""
    for option, reason in reasons.items():
        if group[option]:
            raise ValueError(f"{option}={group[option]!r} is not supported: {reason}")


def overlaps(tensor: Tensor) -> bool:
    """Whether two elements may share an address."""
    reach = 0  # of the dimensions so far, in elements
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return tensor.numel() > 0
        reach += stride * (size - 1)
    return False


def number(group: dict, option: str) -> float:
    """An option as a number; TypeError if it is none."""
    try:
        return float(plain(group[option]))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{option} is {group[option]!r}; set it to a number") from None


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
        raise RuntimeError(f"{name} is a {type(param).__name__}, which makes up its grad; {optimizer} reads that of torch.Tensor")


def check_placement(name: str, param: Tensor, grad: Tensor) -> None:
    """RuntimeError unless this process holds as much of the gradient as of the parameter, or can."""
    if is_sharded(param) != is_sharded(grad):
        which = "a DTensor but its gradient is not" if is_sharded(param) else "no DTensor but its gradient is one"
        raise RuntimeError(f"{name} is {which}: distribute both alike, or make the gradient by a backward through the parameter")
    if is_sharded(param) and any(placement.is_partial() for placement in param.placements):  # pyright: ignore[reportAttributeAccessIssue]
        raise RuntimeError(f"{name} is a DTensor of partial sums: redistribute it to Shard or Replicate before the optimizer is made")


def check_precision(name: str, param: Tensor, precision: Precision) -> None:
    """RuntimeError unless the parameter can be stored so."""
    if precision.master_weights == "split" and param.dtype in (torch.float16, torch.complex32):
        raise RuntimeError(
            f"{name} is {param.dtype}, but master_weights='split' is for bfloat16, whose bits are half of a float32's: "
            "use master_weights='float32', or a parameter group of its own"
        )
    if precision.state_dtype != torch.float32 and (param.is_complex() or param.dtype == torch.float64):
        raise RuntimeError(
            f"{name} is {param.dtype}, but state_dtype={precision.state_dtype!r} is for real parameters of up to 32 bits: "
            "use state_dtype=torch.float32, or a parameter group of its own"
        )


def check_owners(params: Iterable[Tensor], state: Mapping[Any, Any]) -> None:
    """ValueError if there is a state of a tensor that is none of the parameters: a checkpoint has no place for it."""
    for owner in {key for key in list(state) if isinstance(key, Tensor)}.difference(params):
        raise ValueError(
            f"optimizer.state has the state of a tensor of shape {tuple(owner.shape)} that is in no parameter group: "
            "drop it, optimizer.state.pop(tensor), when you take a parameter out of its group"
        )


_ANEW = "load a checkpoint of this model, or start anew with optimizer.state.clear()"


def _check_kept(name: str, values: object) -> None:
    """ValueError unless what the optimizer has as the state of a parameter is a dict whose "step", if it has one, is a number."""
    if not isinstance(values, dict):
        raise ValueError(f"the state of {name} is {values!r}, no dict of its tensors; {_ANEW}")
    step = values.get("step", 0)
    if isinstance(step, Tensor) and (step.numel() != 1 or step.is_complex() or step.is_meta):
        what = f"shape {tuple(step.shape)}, {step.dtype}, on {step.device}"
        raise ValueError(f"the step of {name} has {what}; it is one real number; {_ANEW}")
    if not isinstance(step, Real | Tensor):
        raise ValueError(f"the step of {name} has the value {step!r}; it is one real number; {_ANEW}")


def check_steps(name: str, steps: float) -> None:
    """ValueError unless a parameter can have made so many steps."""
    if not 0 <= steps < math.inf:
        raise ValueError(f"the step of {name} has the value {steps}; it is a finite number >= 0; {_ANEW}")


def check_state(name: str, param: Tensor, state: dict, keys: Collection[str]) -> None:
    """ValueError unless those states that are there fit what is here of the parameter, and its steps are a number."""
    _check_kept(name, state)
    state = locals_of(state)
    for key in (key for key in (*keys, MASTER) if key in state):
        value = state[key]
        if not isinstance(value, Tensor) or value.shape != param.shape:
            _refuse_state(name, param, key, value)
        if value.layout is not torch.strided or (value.is_meta and not param.is_meta):
            raise ValueError(f"the {key} of {name} is {value.layout} on {value.device}, of which a step can write nothing; {_ANEW}")
        if value.dtype in (torch.uint8, torch.int8) and key + SCALE not in state:
            what = f"the {key + SCALE} of {name} has no value, which the {value.dtype} codes of {key} need"
            raise ValueError(f"{what}: load them dequantized, as float32; {_ANEW}")
        if value.dtype in (torch.uint8, torch.int8) and getattr(state.get(key + SCALE), "shape", None) != (n_groups(param),):
            _refuse_state(name, param, key + SCALE, state.get(key + SCALE), (n_groups(param),))


def check_codes(name: str, param: Tensor, state: dict) -> None:
    """ValueError unless codes, and masters, are as many as the parameter's elements, and scales as these need."""
    check_state(name, param, state, [key for key in state if is_coded(state, key)])


def _refuse_state(name: str, param: Tensor, key: str, value: object, expected: tuple | None = None) -> None:
    shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"the value {value!r}"
    raise ValueError(
        f"the {key} of {name} has {shape} but {name} the shape {tuple(param.shape)}"
        f"{f', for which it must be {expected}' if expected else ''}; {_ANEW}"
    )


def check_shards(name: str, param: Tensor, state: dict, keys: Collection[str]) -> None:
    """ValueError unless a loaded state is divided where its parameter is: alike on all processes, which else would wait for each other."""
    for key in keys:
        value = state.get(key)
        if isinstance(value, Tensor) and value.dim() and is_sharded(value) != is_sharded(param):
            which = ("a DTensor", "no DTensor") if is_sharded(param) else ("no DTensor", "one")
            raise ValueError(
                f"{name} is {which[0]}, but the {key} in the checkpoint is {which[1]}: load it with set_optimizer_state_dict of "
                "torch.distributed.checkpoint.state_dict, which divides states as parameters are"
            )


def check_complete(optimizer: str, name: str, state: dict, keys: Collection[str]) -> None:
    """ValueError unless a loaded state is of this optimizer's rule: another one's would silently start from zeros, or go on wrongly."""
    if "mem" in state and "mem" not in keys:
        raise ValueError(f"the state of {name} has 'mem', it is that of SMORMS3; load the checkpoint into FusedSMORMS3")
    for key in keys:
        if key not in state:
            raise ValueError(
                f"the state of {name} has {sorted(state)} but no {key!r}; "
                f"load a checkpoint of {optimizer}, or of an optimizer with the same states; docs/migrating.md has the way from some others"
            )
