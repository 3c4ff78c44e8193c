"""The state of a parameter as a launch reads it."""

from collections.abc import Collection

import torch
from torch import Tensor

from ...kernels.cpu.count import DTYPES
from ..sharded import as_dtensor, is_sharded, local, locals_of
from .full_precision import full_precision, resolve_variance
from .masters import is_split_of, master_of, split
from .precision import DIM_ORDER, LEAN, MASTER, REMAINDERS, SCALE, Kinds, Precision, is_average, stored, wide_dtype
from .quantized import code_of, dim_orders, is_packed, n_groups, n_words, packed_like, quantize
from .strides import dense_like, is_conj_or_neg, lies_like, order, state_like
from .ties import is_remainder

COUNTED = tuple(getattr(torch, name) for name in DTYPES)  # what counters may be; on GPUs the first two


def _fits(kinds: Kinds, param: Tensor, values: dict, key: str, dtype: torch.dtype) -> bool:
    """Whether a launch can read a tensor of the state as it is."""
    value, packed = values.get(key), is_packed(kinds, key, dtype)
    if value is None or not (packed or key.endswith(SCALE)):
        return value is not None and lies_like(param, value, dtype)
    shape = ((n_words if packed else n_groups)(param),)
    if packed and order(packed_like(param, values, key)) != order(dense_like(param, device="meta")):
        return False
    return (value.device, value.dtype, value.shape) == (param.device, dtype, shape) and value.is_contiguous()


def must_drop(kinds: Kinds, param: Tensor, key: str, value: object) -> bool:
    """Whether a loaded state that is not wanted cannot stay: a master, or an average that is sharded otherwise than its parameter."""
    averages = is_average(kinds, key) and not is_packed(
        kinds, key, getattr(value, "dtype", None)
    )  # packed codes are of a shard, and no DTensor
    return key == MASTER or (averages and is_sharded(param) != is_sharded(value))


def _master_differs(param: Tensor, values: dict, dtype: torch.dtype) -> bool:
    """Whether there is a master that has no such remainder beyond the bfloat16 parameter: as yet, if that is still to be loaded."""
    master = values.get(MASTER)
    if master is None or master.dtype == dtype or param.dtype != torch.bfloat16:
        return False
    master = master_of(param, values) if is_remainder(master) else master
    return master is not None and not is_split_of(param, master, dtype)


def _make_master(param: Tensor, master: Tensor, previous: Tensor | None, dtype: torch.dtype, loading: bool) -> Tensor:
    """The master or remainder of a parameter as fit() stores it.

    Args:
        param: a parameter, to which a master that is split here is rounded.
        master: its value in full precision.
        previous: the master or remainder of its state so far, which may not fit the parameter; None: there was none.
        dtype: that of a remainder, or another one for a master.
        loading: the parameter may yet be loaded, so it and `previous` stay as they are.
    """
    if dtype not in REMAINDERS.values():
        return state_like(param, master if previous is None or is_remainder(previous) else previous)
    rounded, remainder = split(state_like(param, master), dtype)
    if previous is not None and not loading:
        param.detach().copy_(rounded)  # ties may have gone the other way, and of 24 bits there may be one more
    return remainder


def beginning(param: Tensor, values: dict, first: float | None) -> Tensor | float:
    """What a state starts from that `values` do not have: a number, or, None, a copy of the parameter in full precision."""
    if first is not None:
        return first
    return dense_like(param, dtype=wide_dtype(param)).copy_(values.get(MASTER, param.detach()))


def _make_average(
    param: Tensor, key: str, known: dict, initial: dict[str, float | None], dtype: torch.dtype, mean: str | None
) -> Tensor | float:
    """A state in full precision, or what it starts from; the variance about its mean where that is what is stored of it."""
    value = known[key] if key in known else beginning(param, known, initial[key])
    if mean and dtype in LEAN and key in known and mean in known and mean in initial:
        return (known[key].double() - known[mean].double() ** 2).clamp(min=0)
    return value


def fit(
    param: Tensor, values: dict, initial: dict[str, float | None], precision: Precision, kinds: Kinds, loading: bool = False
) -> dict[str, Tensor]:
    """The tensors that stored() names: those in `values`, if they are as they must be, or new ones.

    Args:
        param: a parameter.
        values: its state so far, stored in whatever way.
        initial: of each state, what it starts from if `values` do not have it, as in Recipe.states.
        precision: how to store it.
        kinds: of all states that the optimizer may have, as in Recipe.
        loading: the parameter may yet be loaded, so it stays as it is; a float32 master that it is not rounded from is not split
            before a step.
    """
    remainder = REMAINDERS.get(precision.master_weights or "")
    if loading and remainder and _master_differs(param, values, remainder):
        precision = precision._replace(master_weights="float32")
    wanted = stored(param, initial, precision, kinds)
    if all(_fits(kinds, param, values, key, dtype) for key, dtype in wanted.items()):
        return {key: values[key] for key in wanted}
    known, found = full_precision(kinds, param, values), {}
    for key, dtype in wanted.items():
        if key == MASTER:
            found[key] = _make_master(param, known.get(key, param.detach()), values.get(MASTER), dtype, loading)
        elif not key.endswith(SCALE):
            value = _make_average(param, key, known, initial, dtype, mean=kinds[key].mean if key in kinds else None)
            if code := code_of(kinds, key, dtype):
                found[key], found[key + SCALE] = quantize(state_like(param, value, torch.float32), code)
            else:
                found[key] = state_like(param, value, dtype)
    return found


def step_dtype() -> torch.dtype:
    """What torch counts steps in."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def counter(value: object, steps: float, device: torch.device | None = None) -> Tensor:
    """What counts the steps of a parameter, in place: value, if it is a tensor that can, else a new one of so many.

    Args:
        value: what its state has as "step".
        steps: how many that is.
        device: where they are counted; None: on the CPU.
    """
    home = device or torch.device("cpu")
    if not isinstance(value, Tensor) or local(value) is not value or value.layout is not torch.strided or is_conj_or_neg(value):
        value = None
    counted = COUNTED if home.type == "cpu" else COUNTED[:2]
    if value is not None and value.numel() == 1 and value.device == home and value.dtype in counted:
        return value
    return torch.tensor(steps, dtype=step_dtype(), device=home)


def rows(tensors: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], dict[str, tuple[Tensor, ...]]]:
    """Of what fit() gave: the master or remainder, if there is one, and by name each state, or its codes and their scales."""
    master = (tensors[MASTER],) if MASTER in tensors else ()
    states = {key: value for key, value in tensors.items() if key != MASTER and not key.endswith(SCALE)}
    return master, {key: (value, tensors[key + SCALE]) if key + SCALE in tensors else (value,) for key, value in states.items()}


def obsolete(values: dict, states: Collection[str], kept: Collection[str]) -> list[str]:
    """Names in a state that stored one of `kept` in another way."""
    others = {MASTER, *(key + end for key in states for end in ("", SCALE, DIM_ORDER))}
    return [key for key in values if key in others and key not in kept]


def fit_in_place(param: Tensor, values: dict, initial: dict[str, float | None], precision: Precision, kinds: Kinds) -> dict[str, Tensor]:
    """Let the state of a parameter, which may be a DTensor, hold what fit() makes of it, and nothing stored in another way.

    Returns:
        What fit() does, the local tensors of it.
    """
    shards = resolve_variance(kinds, local(param), locals_of(values), initial)
    tensors = fit(local(param), shards, initial, precision, kinds)
    kept = {**{key: value for key, value in shards.items() if key not in obsolete(shards, initial, tensors)}, **tensors}
    kept |= dim_orders(kinds, local(param), tensors)
    for key in values.keys() - kept.keys():
        del values[key]
    values.update((key, as_dtensor(param, value)) for key, value in kept.items() if value is not local(values.get(key)))
    assert all(local(values[key]) is tensor for key, tensor in tensors.items())  # else nobody would keep its memory
    return tensors
