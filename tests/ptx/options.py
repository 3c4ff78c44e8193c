"""Hyperparameters of launches: options of the parameter groups, beside the rule's own."""

import numpy as np
import torch

from fusedrms.tools.variants import RULES, parse_mode

# options of the parameter groups, beside the rule's own
GROUPS = (
    dict(lr=1e-2),
    dict(lr=3e-3, weight_decay=0.1, clip_grad_value=2.0, clip_grad_norm=1.0, rescale_grad=0.5),
    dict(
        lr=0.5, weight_decay=0.05, decoupled_weight_decay=True, clip_weights=1.5, maximize=True, clip_grad_value=1.0, clip_after_decay=True
    ),
)
FURTHER = (
    dict(),
    dict(eps_placement="both", eps=1e-3, alpha=0.9),
    dict(eps_placement="inside", eps=1e-4, clip_grad_norm=1.0, clip_norm_on="update"),
)
MOMENTUM = (dict(), dict(nesterov=True, lr_in_momentum=True, momentum=0.5), dict(lr_in_momentum=True))


def hyperparameters(rule: str, mode: str, kind: str, group: int, eps: float | None) -> list:
    """The row of a group; arguments as of Launch."""
    options = dict(RULES[rule][1])
    known = RULES[rule][0]._class_defaults()
    if kind == "exact":
        # nothing enters the averages, and the parameter shrinks by a power of two
        options |= dict(lr=2.0**-9, weight_decay=1.0, decoupled_weight_decay=True)
        options |= dict(alpha=1.0)
        options |= dict(momentum=1.0) if "momentum" in rule else {}
    else:
        options |= GROUPS[group]
        options |= FURTHER[group] if "eps_placement" in known else {}
        options |= MOMENTUM[group] if "momentum" in rule else {}
    options = {name: value for name, value in options.items() if name in known}
    options |= {} if eps is None else dict(eps=eps)
    dtype, storage = parse_mode(mode)
    if "ema_decay" in storage:
        storage = storage | dict(ema_decay=1.0 if kind == "exact" else 0.75)
    param = torch.nn.Parameter(torch.zeros(1, dtype=dtype))
    optimizer = RULES[rule][0]([param], **options, **storage)
    recipe = optimizer.recipe(optimizer.param_groups[0])
    assert recipe.rule == rule
    with np.errstate(over="ignore"):
        return [*recipe.common, *recipe.args]
