"""Checks of options, and the wording of their errors: the thing, its value, the remedy."""

import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ...kernels import devices
from ..sharded import process_groups
from .types import MasterWeights, NormOver

# A schedule that ends at 0 may miss it by its last rounding. In a float32 tensor that is 6e-9 of a rate of 0.1, in Python's numbers
# far less; a rate that is negative by mistake, -1e-5 say, is larger.
ROUNDED_ZERO = -1e-8


def plain(value: Any) -> Any:
    """A number of NumPy's as Python's, which torch.load(weights_only=True) takes; anything else as it is."""
    if isinstance(value, np.generic | np.ndarray) and value.size == 1:
        value = value.item()
    return float(value) if isinstance(value, np.floating) else value  # a longdouble's item() is one


def as_tuple(value: Any) -> Any:
    """A list or tuple, as JSON or NumPy may have made it, as a tuple of Python's numbers; anything else, and such a tuple, as it is."""
    if not isinstance(value, list | tuple):
        return value
    made = tuple(map(plain, value))
    return value if isinstance(value, tuple) and all(a is b for a, b in zip(made, value, strict=True)) else made


def is_live(value: Any) -> bool:
    """Whether an option is a tensor on a GPU, which is read there, at each step and each replay of a graph."""
    return isinstance(value, Tensor) and devices.is_gpu(value.device)


def is_positive(value: Any) -> bool:
    """Whether a number is, or may come to be."""
    return is_live(value) or value > 0


def number(group: dict[str, Any], option: str) -> Any:
    """An option as a number, float64; of one that is live a 0-d tensor; TypeError if it is none."""
    if is_live(group[option]):
        return group[option].detach().reshape(()).double()
    try:
        return float(plain(group[option]))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{option} is {group[option]!r}; set it to a number") from None


def fits_float(value: Any) -> bool:
    """Whether a number is none of the integers that are too large for a float."""
    return not isinstance(value, int) or abs(value) <= sys.float_info.max


def text(value: Any, form: Callable[[Any], str] = repr) -> str:
    """A value in an error; an integer that no float holds may have more digits than Python prints."""
    return form(value) if fits_float(value) else "an integer above 1.8e308"


def check_at_least_zero(group: dict[str, Any], **labels: str) -> None:
    """ValueError, in torch's words, unless each named option of the group is a finite number >= 0; a learning rate on a GPU is not read."""
    for option, label in labels.items():
        _check_number(option, f"Invalid {label}", group[option])


def check_within(group: dict[str, Any], option: str, least: float, most: float) -> None:
    """ValueError unless an option of the group is a finite number in a range; what is on a GPU is not read."""
    label = {"eps": "epsilon"}.get(option, option)  # torch's word
    _check_number(option, f"Invalid {label} value", group[option], least, most)


def is_scheduled_lr(lr: Any) -> bool:
    """Whether it is a number that a schedule may set, 0 or more but for a rounding error; a fast answer."""
    return isinstance(lr, float) and ROUNDED_ZERO <= lr < math.inf


def check_scheduled_lr(lr: Any, where: str = "") -> None:
    """As check_at_least_zero, of a learning rate that a schedule may have set; where: the beginning of an error."""
    if not is_scheduled_lr(lr):
        _check_number("lr", f"{where}Invalid learning rate", lr, ROUNDED_ZERO)


def _check_number(option: str, label: str, value: Any, least: float = 0.0, most: float = math.inf) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"Tensor {option} must be 1-element, got shape {tuple(value.shape)}; pass a number or torch.tensor(number)")
        if is_live(value) and not value.is_complex():
            return
    try:
        valid = bool(least <= value <= most) and bool(-math.inf < value < math.inf) and fits_float(value)
    except (TypeError, RuntimeError, ValueError):
        raise TypeError(f"{label}: {value!r} is a {type(value).__name__}; pass a number{_range(least, most)}") from None
    if not valid:
        raise ValueError(f"{label}: {text(value, format)}; it must be a finite number{_range(least, most)}")


def _range(least: float, most: float) -> str:
    """What a number may be, in an error."""
    least = 0.0 if least == ROUNDED_ZERO else least
    if most < math.inf:
        return f" from {least:g} to {most:g}" if least > -math.inf else f" <= {most:g}"
    return f" >= {least:g}" if least > -math.inf else ""


def check_present(g: int, group: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """ValueError unless parameter group g has its parameters and every option."""
    for option in ("params", *defaults):
        if option not in group:
            raise ValueError(
                f"parameter group {g} has no {option!r}: set optimizer.param_groups[{g}][{option!r}], whose default is "
                f"{defaults.get(option, [])!r}, or add the group with add_param_group(), which fills in what it lacks"
            )


def check_positive(group: dict[str, Any], *options: str) -> None:
    """ValueError unless each named option of the group is a finite number > 0."""
    for option in options:
        if is_live(group[option]):
            _check_number(option, option, group[option])
            continue
        try:
            valid = bool(0.0 < group[option] < math.inf) and fits_float(group[option])
        except (TypeError, RuntimeError, ValueError):
            valid = False
        if not valid:
            raise ValueError(f"{option}={text(group[option])} is not supported: it must be a finite number > 0")


def check_limits(group: dict[str, Any], *options: str) -> None:
    """ValueError unless each named option of the group is None or a finite number > 0."""
    for option in options:
        if group[option] is not None:
            try:
                check_positive(group, option)
            except ValueError as error:
                raise ValueError(f"{error}, or None for no limit") from None


def limits_norm(group: Mapping[str, Any]) -> bool:
    """Whether clip_grad_norm limits anything; one that is infinite measures alone."""
    if is_live(group["clip_grad_norm"]):
        return True
    try:
        return group["clip_grad_norm"] is not None and bool(group["clip_grad_norm"] != math.inf)
    except (TypeError, RuntimeError, ValueError):  # no number: refused
        return True


def check_flags(group: dict[str, Any], *options: str) -> None:
    """ValueError unless each named option of the group is True or False: a string, say, would count as True."""
    for option in options:
        if not isinstance(group[option], bool | int | np.bool_ | np.integer) or group[option] not in (0, 1):
            raise ValueError(f"{option}={text(group[option])} is not supported: it must be True or False")


def check_choice(group: dict[str, Any], option: str, values: Collection[str]) -> None:
    """ValueError unless the named option of the group is one of some words."""
    value = group[option]
    if not isinstance(value, str) or value not in values:
        raise ValueError(f"{option}={text(value)} is not supported: it must be {' or '.join(map(repr, values))}")


def check_precision_options(group: dict[str, Any]) -> None:
    """ValueError unless the options that decide how values are stored have values that go together."""
    check_flags(group, "stochastic_rounding")
    if group["master_weights"] is not None:
        try:
            check_choice(group, "master_weights", get_args(MasterWeights))
        except ValueError as error:
            raise ValueError(f"{error}, or None for none") from None
        if group["stochastic_rounding"]:
            raise ValueError(
                f"stochastic_rounding=True with master_weights={group['master_weights']!r} is not supported: "
                "a parameter with a master is rounded to nearest; leave one of the two out"
            )
    state_dtype, seed = group["state_dtype"], group["seed"]
    if not isinstance(state_dtype, torch.dtype | str) or state_dtype not in (torch.float32, torch.bfloat16, "8bit", "4bit"):
        known = "torch.float32, torch.bfloat16, '8bit' or '4bit'"
        raise ValueError(f"state_dtype={text(state_dtype)} is not supported: it must be {known}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"seed={text(seed)} is not supported: it must be a whole number from 0 to 2**64 - 1")


def check_off(group: dict[str, Any], **reasons: str) -> None:
    """ValueError if any of the named options is on; its value here says what to do instead."""
    for option, reason in reasons.items():
        if group[option]:
            raise ValueError(f"{option}={text(group[option])} is not supported: {reason}")


def _check_corrected(group: dict[str, Any]) -> None:
    check_flags(group, "corrected_weight_decay")
    if group["corrected_weight_decay"]:
        if not group["decoupled_weight_decay"]:
            raise ValueError("corrected_weight_decay=True needs decoupled_weight_decay=True: set it, or leave corrected_weight_decay out")
        try:
            check_positive(group, "max_lr_snapshot")
        except ValueError as error:
            raise ValueError(f"{error}, the highest lr of the schedule, which corrected_weight_decay=True divides by") from None


def _check_stats(group: dict[str, Any]) -> None:
    every = group["stats"]
    if not isinstance(every, bool | int | np.bool_ | np.integer) or not 0 <= every < 2**63:
        raise ValueError(
            f"stats={text(every)} is not supported: it must be True, False, or a number of steps: with 100, every hundredth is measured"
        )


def _check_ema(group: dict[str, Any]) -> None:
    check_flags(group, "ema_warmup")
    decay = group["ema_decay"]
    if decay is not None:
        check_at_least_zero(group, ema_decay="ema_decay value")
        if not is_live(decay) and decay > 1:
            raise ValueError(f"ema_decay={text(decay)} is not supported: it must be a number from 0 to 1, or None for no average")
    elif group["ema_warmup"]:
        raise ValueError("ema_warmup=True needs an average, but ema_decay=None: set ema_decay to 0.9999, say, or ema_warmup=False")


def check_infinities_show(groups: Sequence[Mapping[str, Any]]) -> None:
    """ValueError if skip_nonfinite, of any parameter group, would look at a norm of clipped gradients; a norm is of all groups together."""
    limits = next((group["clip_grad_norm"] for group in groups if limits_norm(group)), None)
    clips = next((group["clip_grad_value"] for group in groups if group["clip_grad_value"] is not None), None)
    if limits is not None and clips is not None and any(group["skip_nonfinite"] for group in groups):
        raise ValueError(
            f"skip_nonfinite=True with clip_grad_norm={limits} and clip_grad_value={clips} is not "
            "supported, because an infinity does not show in the norm of clipped gradients: leave one of the three out"
        )


def check_common(group: dict[str, Any]) -> None:
    """ValueError or TypeError for a wrong value of an option that all rules have."""
    check_scheduled_lr(group["lr"])
    check_at_least_zero(group, weight_decay="weight_decay value")
    _check_corrected(group)
    check_positive(group, "rescale_grad")
    check_limits(group, "clip_grad_value", "clip_weights")
    if limits_norm(group):
        try:
            check_limits(group, "clip_grad_norm")
        except ValueError as error:
            raise ValueError(f"{error}, or math.inf only to measure the norm") from None
    check_flags(group, "capturable", "maximize", "decoupled_weight_decay", "clip_after_decay", "skip_nonfinite")
    _check_ema(group)
    _check_stats(group)
    check_choice(group, "clip_norm_over", get_args(NormOver))
    check_precision_options(group)
    process_groups(group["model_parallel_group"])
    if isinstance(group["foreach"], str):
        raise ValueError(
            f"foreach={group['foreach']!r} is not supported. In a checkpoint it carries the options that torch lacks: pass the "
            "checkpoint to load_state_dict(), or the options by their names"
        )
    check_infinities_show([group])
    check_off(
        group,
        differentiable="a fused step has no gradient; use torch.optim.RMSprop",
    )
