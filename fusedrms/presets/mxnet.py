"""MXNet 1 and 2."""

import inspect
from typing import Any

from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_flags
from ..rmsprop import FusedRMSProp
from .preset import positive_or_none, preset


@preset(FusedRMSProp, "MXNet 1", "1.x")
def mxnet_rmsprop(
    params: ParamsT,
    learning_rate: float = 0.001,
    gamma1: float = 0.9,
    gamma2: float = 0.9,
    epsilon: float = 1e-8,
    centered: bool = False,
    clip_weights: float | None = None,
    *,
    wd: float = 0.0,
    rescale_grad: float = 1.0,
    clip_gradient: float | None = None,
    multi_precision: bool = False,
) -> dict[str, Any]:
    r"""MXNet 1's RMSProp: epsilon inside the root; if centered, the rule of Graves, with momentum.

    By default:

    $$
    \begin{aligned}
    g &\leftarrow \text{rescale\_grad} \cdot g + \text{wd} \cdot w \\
    g &\leftarrow \operatorname{clip}(g,\ \pm \text{clip\_gradient}) \\
    v &\leftarrow \gamma_1 \cdot v + (1 - \gamma_1) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{learning\_rate} \cdot g}{\sqrt{v + \epsilon}} \\
    w &\leftarrow \operatorname{clip}(w,\ \pm \text{clip\_weights})
    \end{aligned}
    $$

    and with `centered=True`

    $$
    \begin{aligned}
    g &\leftarrow \text{rescale\_grad} \cdot g + \text{wd} \cdot w \\
    g &\leftarrow \operatorname{clip}(g,\ \pm \text{clip\_gradient}) \\
    v &\leftarrow \gamma_1 \cdot v + (1 - \gamma_1) \cdot g^2 \\
    m &\leftarrow \gamma_1 \cdot m + (1 - \gamma_1) \cdot g \\
    b &\leftarrow \gamma_2 \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2 + \epsilon}} \\
    w &\leftarrow w - b \\
    w &\leftarrow \operatorname{clip}(w,\ \pm \text{clip\_weights})
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number. Default 0.001.
        gamma1: $\gamma_1$, decay of the averages $v$ and $m$, per step. Default 0.9.
        gamma2: $\gamma_2$, decay of the momentum buffer $b$, per step; without effect unless centered. Default 0.9.
        epsilon: $\epsilon$, added to the square average, or to the variance, in the square of the gradient's unit. Default 1e-8.
        centered: The rule of Graves: divide by the standard deviation of the gradient, with momentum. Default False.
        clip_weights: Limit of the parameters' magnitude after the step, in their unit; None, 0 or less for none. Default None.
        wd: L2 penalty added to the gradient. Default 0.0.
        rescale_grad: The gradient is multiplied by it first; MXNet's Trainer sets it to 1 / batch size. Default 1.0.
        clip_gradient: Limit of each element's magnitude in the gradient with `wd * w` already in it, in the gradient's unit; None, 0 or
            less for none. Default None.
        multi_precision: Keep a float32 master of 16-bit parameters, as `master_weights="float32"`. Default False.

    Raises:
        ValueError: `multi_precision` is neither True nor False.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.mxnet_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9968, 0.9968, 0.9968])

    Source: MXNet 1.x, `src/operator/optimizer_op-inl.h`.

    Not carried over: `wd_mult`, by which MXNet takes wd to be 0 for parameters whose names end in neither `_weight` nor `_gamma`; use a
    parameter group with `weight_decay=0` for them.
    """
    check_flags(dict(multi_precision=multi_precision), "multi_precision")
    return dict(
        lr=learning_rate,
        alpha=gamma1,
        eps=epsilon,
        weight_decay=wd,
        momentum=gamma2 if centered else 0.0,
        centered=centered,
        eps_placement="inside",
        lr_in_momentum=True,
        rescale_grad=rescale_grad,
        clip_grad_value=positive_or_none(clip_gradient),
        clip_after_decay=True,
        clip_weights=positive_or_none(clip_weights),
        master_weights="float32" if multi_precision else None,
    )


@preset(FusedRMSProp, "MXNet 2", "2.x, 29e946a")
def mxnet2_rmsprop(
    params: ParamsT,
    learning_rate: float = 0.001,
    rho: float = 0.9,
    momentum: float = 0.9,
    epsilon: float = 1e-8,
    centered: bool = False,
    clip_weights: float | None = None,
    *,
    wd: float = 0.0,
    rescale_grad: float = 1.0,
    clip_gradient: float | None = None,
    multi_precision: bool = False,
) -> dict[str, Any]:
    r"""MXNet 2's RMSProp: epsilon outside the root; if centered, the rule of Graves, epsilon inside and with momentum.

    By default:

    $$
    \begin{aligned}
    g &\leftarrow \operatorname{clip}(\text{rescale\_grad} \cdot g,\ \pm \text{clip\_gradient}) + \text{wd} \cdot w \\
    v &\leftarrow \rho \cdot v + (1 - \rho) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{learning\_rate} \cdot g}{\sqrt{v} + \epsilon} \\
    w &\leftarrow \operatorname{clip}(w,\ \pm \text{clip\_weights})
    \end{aligned}
    $$

    and with `centered=True`

    $$
    \begin{aligned}
    g &\leftarrow \operatorname{clip}(\text{rescale\_grad} \cdot g,\ \pm \text{clip\_gradient}) + \text{wd} \cdot w \\
    v &\leftarrow \rho \cdot v + (1 - \rho) \cdot g^2 \\
    m &\leftarrow \rho \cdot m + (1 - \rho) \cdot g \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2 + \epsilon}} \\
    w &\leftarrow w - b \\
    w &\leftarrow \operatorname{clip}(w,\ \pm \text{clip\_weights})
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number. Default 0.001.
        rho: $\rho$, decay of the averages $v$ and $m$, per step. Default 0.9.
        momentum: Decay of the momentum buffer $b$, per step; without effect unless centered. Default 0.9.
        epsilon: $\epsilon$, added to the root, in the gradient's unit, or to the variance, in its square, if centered. Default 1e-8.
        centered: The rule of Graves: divide by the standard deviation of the gradient, with momentum. Default False.
        clip_weights: Limit of the parameters' magnitude after the step, in their unit; None, 0 or less for none. Default None.
        wd: L2 penalty added to the gradient. Default 0.0.
        rescale_grad: The gradient is multiplied by it first. Default 1.0.
        clip_gradient: Limit of each element's magnitude in the gradient before `wd * w` is added, unlike MXNet 1, in the gradient's unit;
            None, 0 or less for none. Default None.
        multi_precision: Keep a float32 master of 16-bit parameters, as `master_weights="float32"`. Default False.

    Raises:
        ValueError: `multi_precision` is neither True nor False.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.mxnet2_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9968, 0.9968, 0.9968])

    Source: MXNet 2.x, 29e946a, `python/mxnet/optimizer/rmsprop.py`.

    Not carried over: `use_fused_step`; `wd_mult`, by which MXNet takes wd to be 0 for parameters whose names end in neither `_weight` nor
    `_gamma`; use a parameter group with `weight_decay=0` for them.
    """
    limits = dict(clip_weights=clip_weights, clip_gradient=clip_gradient)
    others = dict(wd=wd, rescale_grad=rescale_grad, multi_precision=multi_precision)
    options = inspect.unwrap(mxnet_rmsprop)(None, learning_rate, rho, momentum, epsilon, centered, **limits, **others)
    return options | dict(eps_placement="inside" if centered else "outside", clip_after_decay=False)
