"""What is kept for each parameter, and how it lies in memory: as a launch reads it, or in full precision, as checkpoints hold it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.parameter import is_lazy as is_uninitialized
from torch.optim import Optimizer

from ..kernels.cpu.count import DTYPES
from ..kernels.quant import GROUP, LEAST_SCALE
from .sharded import is_sharded, local, locals_of, placed
from .ties import Ties, is_remainder

WIDE = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.complex32: torch.complex64}  # full precision of 16 bits
COUNTED = tuple(getattr(torch, name) for name in DTYPES)  # what counters may be; on GPUs the first two
MASTER = "master_param"  # in a state: of a 16-bit parameter what it is rounded from, or the bits that it lacks
AVERAGES = "square_avg", "grad_avg", "momentum_buffer"  # which may be kept in fewer bits
_TOP = {torch.uint8: 255, torch.int8: 127}  # largest code
LEAN = torch.bfloat16, *_TOP
SCALE = "_scale"  # ends the names of scales
LEAST = torch.tensor(LEAST_SCALE, dtype=torch.int32, device="cpu").view(torch.float32).item()  # the scale of a group of zeros


class Precision(NamedTuple):
    """The options of a parameter group that decide how its values are stored."""

    stochastic_rounding: bool = False
    master_weights: str | None = None
    state_dtype: torch.dtype | str = torch.float32
    seed: int = 0

    @property
    def is_noisy(self) -> bool:
        """Whether anything is rounded at random."""
        return self.stochastic_rounding or self.state_dtype != torch.float32


def dense_like(param: Tensor, **kwargs) -> Tensor:
    """Memory for one value per element of param, without gaps, in the order of param's memory."""
    return torch.empty_like(param, memory_format=torch.preserve_format, requires_grad=False, **kwargs)


def order(tensor: Tensor) -> list[int]:
    """The strides that decide an address; those of dimensions of size 1 are arbitrary."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1]


def is_lazy(tensor: Tensor | None) -> bool:
    """Whether the memory holds the conjugate or the negative of the values."""
    return tensor is not None and (tensor.is_conj() or tensor.is_neg())


def n_groups(tensor: Tensor) -> int:
    return -(-tensor.numel() // GROUP)


def _flat(tensor: Tensor) -> Tensor:
    """The elements of a tensor without gaps, in the order of memory."""
    return tensor.as_strided((tensor.numel(),), (1,))


def is_variance(values: dict) -> bool:
    """Whether the square average is kept as the variance about the other average: in fewer bits it could not be had from both."""
    return all(getattr(values.get(key), "dtype", None) in LEAN for key in ("square_avg", "grad_avg"))


def is_coded(values: dict, key: str) -> bool:
    """Whether a state is kept as codes, whose scales are there."""
    return isinstance(values.get(key), Tensor) and values[key].dtype in _TOP and isinstance(values.get(key + SCALE), Tensor)


def decoded(codes: Tensor, scale: Tensor) -> Tensor:
    """float32 values of codes, one scale for each GROUP of consecutive ones."""
    part = _flat(dense_like(codes).copy_(codes)).float() / _TOP[codes.dtype]
    values = dense_like(codes, dtype=torch.float32)
    _flat(values).copy_(part * part.abs() * scale.repeat_interleave(GROUP)[: codes.numel()])
    return values


def encoded(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes and scales of float32 values without gaps, to nearest; of what decoded() gave, those that it was given."""
    x, top = _flat(values), _TOP[dtype]
    scale = pad(x.abs(), (0, -x.numel() % GROUP)).view(-1, GROUP).amax(1).clamp(LEAST)
    level = (x.abs() / scale.repeat_interleave(GROUP)[: x.numel()]).sqrt().mul(top).round().nan_to_num(top)
    level = level.maximum((x != 0).float()) if dtype == torch.uint8 else level.copysign(x)
    codes = dense_like(values, dtype=dtype)
    _flat(codes).copy_(level)
    return codes, scale


def _split(master: Tensor) -> tuple[Tensor, Tensor]:
    """The bfloat16 and the remainder of a float32 master, as rounding.split has it: ties go away from 0."""
    bits = torch.where(master.isnan(), 0x7FC00000, master.view(torch.int32))
    return (bits + 0x8000 >> 16).to(torch.int16).view(torch.bfloat16), bits.to(torch.int16)


def _kept_or(param: Tensor, master: Tensor) -> Tensor:
    """The master, or the parameter where it is no nearest one to the master, as rounding.master_of has it."""
    wide = param.to(master.dtype)
    if param.dtype == torch.bfloat16:  # a tie may have gone either way
        distance = master.view(torch.int32) - (param.view(torch.int16).int() << 16)
        near = (distance >= -0x8000) & (distance <= 0x8000)
    else:
        near = master.to(param.dtype) == param
    return torch.where(near, master, wide)


def _master(param: Tensor, values: dict) -> Tensor | None:
    """The float32 master, if there is one; where something else has changed the parameter, what that comes to."""
    param = param.detach()
    master = values.get(MASTER)
    if is_remainder(master) and param.dtype == torch.bfloat16:
        upper = param.view(torch.int16).int() << 16
        bits = upper + master.to(param.device).int()
        beyond = bits.view(torch.float32).isnan() | (bits ^ upper < 0)
        return torch.where(beyond, upper, bits).view(torch.float32)
    if master is not None and not is_remainder(master) and param.dtype in WIDE:
        master = master.to(param.device, WIDE[param.dtype])  # torch's optimizers narrow it
        if not param.is_complex():
            return _kept_or(param, master)
        return torch.view_as_complex(_kept_or(torch.view_as_real(param), torch.view_as_real(master)))
    return None


def widened(values: dict) -> dict:
    """The state of a parameter, with averages each in full precision; a tensor that is so already stays the same."""
    scales = {key + SCALE for key in values if is_coded(values, key)}
    known = {key: value for key, value in values.items() if key not in scales}
    for key, value in known.items():
        if is_coded(values, key):
            known[key] = decoded(value, values[key + SCALE])
        elif key in AVERAGES and getattr(value, "dtype", None) == torch.bfloat16:
            known[key] = value.float()
    return known


def _full_averages(values: dict) -> dict:
    """Likewise, a variance as the square average again."""
    known = widened(values)
    if is_variance(values):
        known["square_avg"] = known["square_avg"].double() + known["grad_avg"].double() ** 2
    return known


def parted(values: dict, states: Collection[str]) -> dict:
    """A state whose averages are kept each by itself if one of the two is not wanted any more."""
    return _full_averages(values) if is_variance(values) and "grad_avg" not in states else values


def full(param: Tensor, values: dict) -> dict:
    """The state of a parameter in full precision, by the names that it has in a checkpoint.

    A square average that is kept as a variance comes as float64: in float32 the variance could not be had back from it.
    """
    known = {key: value for key, value in _full_averages(values).items() if key != MASTER}
    master = _master(param, values)
    return known if master is None else {**known, MASTER: master}


def whole(param: Tensor, values: dict, ties: Ties) -> dict:
    """As full(), of a parameter that may be a DTensor, and states that are placed as it is; ties: the optimizer's."""
    here = locals_of(values)
    return {key: placed(param, value) for key, value in full(ties.exported(param, here), here).items()}


def stored(param: Tensor, states: Collection[str], precision: Precision) -> dict[str, torch.dtype]:
    """Names and dtypes of the tensors in the state of a parameter, in the order of the rows that a launch reads."""
    wide = WIDE.get(param.dtype, param.dtype)
    found: dict[str, torch.dtype] = {}
    if precision.master_weights and param.dtype in WIDE:
        found[MASTER] = torch.int16 if precision.master_weights == "split" else wide
    for key in states:
        if precision.state_dtype == torch.float32 or key == "mem":
            found[key] = wide
            continue
        if precision.state_dtype == torch.bfloat16:
            found[key] = torch.bfloat16
        else:
            found.update({key: torch.uint8 if key == "square_avg" else torch.int8, key + SCALE: torch.float32})
    return found


def _fits(param: Tensor, key: str, dtype: torch.dtype, value: Tensor | None) -> bool:
    if value is None or (value.device, value.dtype) != (param.device, dtype):
        return False
    if key.endswith(SCALE):
        return value.shape == (n_groups(param),) and value.is_contiguous()
    return order(value) == order(dense_like(param, device="meta")) and not is_lazy(value)


def is_left(param: Tensor, key: str, value: object) -> bool:
    """Whether a loaded state that is not wanted cannot stay: a master, or an average that is divided otherwise than its parameter."""
    return key == MASTER or (key in AVERAGES and is_sharded(param) != is_sharded(value))


def fitted(param: Tensor, value: Tensor | float, dtype: torch.dtype | None = None) -> Tensor:
    """On param's device, in the order of its memory; dtype: by default that of states in full precision."""
    dtype = dtype or WIDE.get(param.dtype, param.dtype)
    if isinstance(value, Tensor):
        return value if _fits(param, "", dtype, value) else dense_like(param, dtype=dtype).copy_(value)
    like = dense_like(param, dtype=dtype)
    (torch.view_as_real(like) if like.is_complex() else like).fill_(value)
    return like


def _unsettled(param: Tensor, values: dict) -> bool:
    """Whether there is a float32 master of which the parameter is not the bfloat16 of _split(): as yet, if it is still to be loaded."""
    master = values.get(MASTER)
    if master is None or is_remainder(master) or param.dtype != torch.bfloat16:
        return False
    return not torch.equal(_split(fitted(param, master))[0].view(torch.int16), param.detach().view(torch.int16))


def fit(param: Tensor, values: dict, initial: dict[str, float], precision: Precision, loading: bool = False) -> dict[str, Tensor]:
    """The tensors that `stored` names: those in `values`, if they are as they must be, or new ones.

    Args:
        param: a parameter.
        values: its state so far, stored in whatever way.
        initial: of each of the rule's states, what it starts from if `values` do not have it.
        precision: how to store it.
        loading: the parameter may yet be loaded, so it stays as it is; a float32 master that it does not show is not split before a step.
    """
    if loading and precision.master_weights == "split" and _unsettled(param, values):
        precision = precision._replace(master_weights="float32")
    wanted = stored(param, initial, precision)
    if all(_fits(param, key, dtype, values.get(key)) for key, dtype in wanted.items()):
        return {key: values[key] for key in wanted}
    known, found = full(param, values), {}
    master = None if is_remainder(values.get(MASTER)) else values.get(MASTER)
    about_mean = "grad_avg" in known and "grad_avg" in initial
    for key, dtype in wanted.items():
        if key == MASTER and dtype == torch.int16:
            shown, found[key] = _split(fitted(param, known.get(key, param.detach())))
            if master is not None and not loading:
                param.detach().copy_(shown)  # ties may have gone the other way
        elif key == MASTER:  # as it is, for the parameter may yet be loaded
            found[key] = fitted(param, known.get(key, param.detach()) if master is None else master)
        elif not key.endswith(SCALE):
            value = known.get(key, initial[key])
            if key == "square_avg" and dtype in LEAN and key in known and about_mean:
                value = (known[key].double() - known["grad_avg"].double() ** 2).clamp(min=0)
            if dtype in _TOP:
                found[key], found[key + SCALE] = encoded(fitted(param, value, torch.float32), dtype)
            else:
                found[key] = fitted(param, value, dtype)
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
    if not isinstance(value, Tensor) or local(value) is not value or value.layout is not torch.strided or is_lazy(value):
        value = None
    counted = COUNTED if home.type == "cpu" else COUNTED[:2]
    if value is not None and value.numel() == 1 and value.device == home and value.dtype in counted:
        return value
    return torch.tensor(steps, dtype=step_dtype(), device=home)


def rows(tensors: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...]]:
    """Of what fit() gave: what lies beside the parameter, and each state, or its codes and their scales."""
    beside = (tensors[MASTER],) if MASTER in tensors else ()
    states = {key: value for key, value in tensors.items() if key != MASTER and not key.endswith(SCALE)}
    return beside, tuple((value, tensors[key + SCALE]) if key + SCALE in tensors else (value,) for key, value in states.items())


def obsolete(values: dict, states: Collection[str], kept: Collection[str]) -> list[str]:
    """Names in a state that stored one of `kept` in another way."""
    others = {MASTER, *(key + end for key in states for end in ("", SCALE))}
    return [key for key in values if key in others and key not in kept]


def fit_in_place(param: Tensor, values: dict, initial: dict[str, float], precision: Precision) -> dict[str, Tensor]:
    """Let the state of a parameter, which may be a DTensor, hold what fit() makes of it, and nothing stored in another way.

    Returns:
        What fit() does: what is here of its tensors.
    """
    here = parted(locals_of(values), initial)
    tensors = fit(local(param), here, initial, precision)
    kept = {**{key: value for key, value in here.items() if key not in obsolete(here, initial, tensors)}, **tensors}
    for key in values.keys() - kept.keys():
        del values[key]
    values.update((key, placed(param, value)) for key, value in kept.items() if value is not local(values.get(key)))
    assert all(local(values[key]) is tensor for key, tensor in tensors.items())  # else nobody would keep its memory
    return tensors


@dataclass(frozen=True)
class Memory:
    """Bytes of what an optimizer holds in this process; states come with a parameter's first step, tables with the optimizer's."""

    numel: int  # numbers in all parameters, those of a complex one counted once
    parameters: int
    gradients: int
    states: dict[str, int]  # by name; masters and scales among them
    tables: int  # that the launches read

    @classmethod
    def of(cls, optimizer: Optimizer, tables: int) -> "Memory":
        params = [param for group in optimizer.param_groups for param in group["params"] if not is_uninitialized(param)]
        states: dict[str, int] = {}
        for values in optimizer.state.values():
            for key, value in values.items() if isinstance(values, dict) else ():
                if isinstance(value, Tensor):
                    states[key] = states.get(key, 0) + local(value).nbytes
        numel, n_bytes = (sum(of(local(param)) for param in params) for of in (Tensor.numel, lambda tensor: tensor.nbytes))
        return cls(numel, n_bytes, sum(local(param.grad).nbytes for param in params if param.grad is not None), states, tables)

    @property
    def total(self) -> int:
        """All of it, gradients included."""
        return self.parameters + self.gradients + sum(self.states.values()) + self.tables

    @property
    def per_parameter(self) -> dict[str, float]:
        """The same, divided by the number of parameters, by name: "parameters", "gradients", each state, "tables", "total"."""
        parts = dict(parameters=self.parameters, gradients=self.gradients, **self.states, tables=self.tables, total=self.total)
        return {name: n_bytes / max(1, self.numel) for name, n_bytes in parts.items()}


def export_master(optimizer: Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parameter of an optimizer and its value in full precision: of 16-bit parameters the float32 master, if they have one.

    Args:
        optimizer: one of this package's.

    Yields:
        (parameter, value): the value a copy of its shape, placement and on its device, float32 for 16-bit parameters and else of its dtype;
        copied as it is asked for, so that the memory for one is enough.

    Example: ``masters = {param: value.cpu() for param, value in export_master(optimizer)}``
    """
    run: Any = getattr(optimizer, "_run", None)
    ties = run.ties if run else Ties()
    for group in optimizer.param_groups:
        for param in group["params"]:
            values = locals_of(optimizer.state.get(param, {}))
            shown = ties.exported(param, values)
            master = _master(shown, values)
            value = (shown if master is None else master).to(WIDE.get(param.dtype, param.dtype), copy=True)
            yield param, placed(param, value)
