"""Checks of the states of parameters, as a step or a checkpoint brings them."""

import math
from collections.abc import Collection, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..sharded import is_sharded, locals_of
from .precision import DIM_ORDER, MASTER, SCALE, Kinds
from .quantized import code_of, is_packed, is_quantized, n_groups, n_words

_ANEW = "load a checkpoint of this model, or start anew with optimizer.state.clear()"


def check_owners(params: Iterable[Tensor], state: Mapping[Any, Any]) -> None:
    """ValueError if there is a state of a tensor that is none of the parameters: a checkpoint has no place for it."""
    for owner in {key for key in list(state) if isinstance(key, Tensor)}.difference(params):
        raise ValueError(
            f"optimizer.state has the state of a tensor of shape {tuple(owner.shape)} that is in no parameter group: "
            "drop it, optimizer.state.pop(tensor), when you take a parameter out of its group"
        )


def _check_step(name: str, values: object) -> None:
    """ValueError unless the state of a parameter is a dict whose "step", if it has one, is a number."""
    if not isinstance(values, dict):
        raise ValueError(f"the state of {name} is {values!r}, not a dict of tensors; {_ANEW}")
    step = values.get("step", 0)
    if isinstance(step, Tensor) and (step.numel() != 1 or step.is_complex() or step.is_meta):
        what = f"shape {tuple(step.shape)}, {step.dtype}, on {step.device}"
        raise ValueError(f"the step of {name} has {what}; it must be one real number; {_ANEW}")
    if not isinstance(step, Real | Tensor):
        raise ValueError(f"the step of {name} has the value {step!r}; it must be one real number; {_ANEW}")


def check_steps(name: str, steps: float) -> None:
    """ValueError unless a parameter can have made so many steps."""
    if not 0 <= steps < math.inf:
        raise ValueError(f"the step of {name} has the value {steps}; it must be a finite number >= 0; {_ANEW}")


def check_state(name: str, param: Tensor, state: dict, keys: Collection[str], kinds: Kinds) -> None:
    """ValueError unless those states that are there fit the local part of the parameter, and its steps are a number."""
    _check_step(name, state)
    state = locals_of(state)
    for key in (key for key in (*keys, MASTER) if key in state):
        value = state[key]
        packed = isinstance(value, Tensor) and is_packed(kinds, key, value.dtype)
        shape = (n_words(param),) if packed else param.shape
        if not isinstance(value, Tensor) or value.shape != shape:
            _refuse_state(name, param, key, value, shape if packed else None)
        if value.layout is not torch.strided or (value.is_meta and not param.is_meta):
            raise ValueError(f"the {key} of {name} is {value.layout} on {value.device}, which a step cannot write; {_ANEW}")
        if not code_of(kinds, key, value.dtype):
            continue
        if key + SCALE not in state:
            what = f"the {key + SCALE} of {name} is missing, without which the {value.dtype} codes of {key} mean nothing"
            raise ValueError(f"{what}: load them dequantized, as float32; {_ANEW}")
        _check_beside_codes(name, param, state, key)


def _check_beside_codes(name: str, param: Tensor, state: dict, key: str) -> None:
    """ValueError unless what stands beside a state's codes can be read with them."""
    scale, dims = state[key + SCALE], state.get(key + DIM_ORDER)
    if getattr(scale, "shape", None) != (n_groups(param),):
        _refuse_state(name, param, key + SCALE, scale, (n_groups(param),))
    if scale.is_meta and not param.is_meta:
        raise ValueError(f"the {key + SCALE} of {name} is a {scale.device} tensor without values; {_ANEW}")
    is_order = isinstance(dims, tuple | list) and len(dims) == param.dim() and all(dim in dims for dim in range(param.dim()))
    if key + DIM_ORDER in state and not is_order:
        what = f"the {key + DIM_ORDER} of {name} has the value {dims!r}, which is not an order of its {param.dim()} dimensions"
        raise ValueError(f"{what}; {_ANEW}")


def check_codes(name: str, param: Tensor, state: dict, kinds: Kinds) -> None:
    """ValueError unless codes, and masters, are as many as the parameter's elements, and scales as these need."""
    state = dict(state)  # a copy, since another thread may begin a state
    check_state(name, param, state, [key for key in state if is_quantized(kinds, state, key)], kinds)


def _refuse_state(name: str, param: Tensor, key: str, value: object, expected: tuple | None = None) -> None:
    shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"the value {value!r}"
    raise ValueError(
        f"the {key} of {name} has {shape} but {name} the shape {tuple(param.shape)}"
        f"{f', for which it must be {expected}' if expected else ''}; {_ANEW}"
    )


def check_shards(name: str, param: Tensor, state: dict, keys: Collection[str]) -> None:
    """ValueError unless a loaded state is sharded where its parameter is: alike on all processes, which else would wait for each other."""
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
        raise ValueError(f"the state of {name} has 'mem', so it is from SMORMS3: load the checkpoint into FusedSMORMS3")
    for key in keys:
        if key not in state:
            raise ValueError(
                f"the state of {name} has {sorted(state)} but no {key!r}; "
                f"load a checkpoint of {optimizer}, or of an optimizer with the same states; "
                "the documentation's page Migrating has the way from some others"
            )
