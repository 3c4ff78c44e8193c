"""The options that every declared rule has beside its own, with their defaults: those of FusedRMSProp that are not about its equations."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

SHARED: dict[str, Any] = dict(
    weight_decay=0.0,
    capturable=False,
    foreach=None,
    maximize=False,
    differentiable=False,
    decoupled_weight_decay=False,
    corrected_weight_decay=False,
    max_lr_snapshot=None,
    rescale_grad=1.0,
    clip_grad_value=None,
    clip_after_decay=False,
    clip_grad_norm=None,
    clip_norm_on="gradient",
    clip_norm_over="optimizer",
    clip_weights=None,
    caution=False,
    stochastic_rounding=False,
    master_weights=None,
    state_dtype=torch.float32,
    seed=None,
    skip_nonfinite=False,
    ema_decay=None,
    ema_warmup=False,
    stats=False,
    skip_above=None,
    model_parallel_group=None,
)
LR = 1e-3


def signature(own: Mapping[str, Any], changed: Mapping[str, Any]) -> inspect.Signature:
    """What an optimizer takes: params, lr, the rule's own numbers and weight_decay in this order; flags and other shared options by name.

    Args:
        own: the rule's options with their defaults, in their order.
        changed: other defaults of lr and shared options.
    """
    by_position, by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    numbers = {name: default for name, default in own.items() if not isinstance(default, bool)}
    first = {"lr": LR, **numbers, "weight_decay": SHARED["weight_decay"]}
    options = {**first, **own, **SHARED, **changed}
    named = [inspect.Parameter(name, by_position if name in first else by_name, default=value) for name, value in options.items()]
    return inspect.Signature([inspect.Parameter("self", by_position), inspect.Parameter("params", by_position), *named])
