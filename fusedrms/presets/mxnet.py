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
    """MXNet 1's RMSProp: epsilon inside of the root; Graves' rule, with momentum, if centered.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        gamma1: decay of the averages.
        gamma2: decay of the momentum buffer, if centered; else without effect.
        epsilon: added to the square average, or to the variance.
        centered: Graves' rule.
        clip_weights: limit of the parameters' magnitude after the step; None, 0 or less for none.
        wd: L2 penalty.
        rescale_grad: the gradient is multiplied by it first; MXNet's Trainer sets it to 1 / batch size.
        clip_gradient: limit of the gradient with wd * w already in it; None, 0 or less for none.
        multi_precision: keep a float32 master of 16-bit parameters, as ``master_weights="float32"``.

    Source: MXNet 1.x, src/operator/optimizer_op-inl.h. Not carried over: wd_mult, by which MXNet takes wd to be 0 for
    parameters whose names end in neither _weight nor _gamma; use a parameter group with weight_decay=0 for them.
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
    """MXNet 2's RMSProp: epsilon outside of the root; Graves' rule, epsilon inside and with momentum, if centered.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        rho: decay of the averages.
        momentum: decay of the momentum buffer, if centered; else without effect.
        epsilon: added to the root, or to the variance if centered.
        centered: Graves' rule.
        clip_weights: limit of the parameters' magnitude after the step; None, 0 or less for none.
        wd: L2 penalty.
        rescale_grad: the gradient is multiplied by it first.
        clip_gradient: limit of the gradient before wd * w is added, unlike MXNet 1; None, 0 or less for none.
        multi_precision: as of :func:`mxnet_rmsprop`.

    Source: MXNet 2.x, python/mxnet/optimizer/rmsprop.py. Not carried over: use_fused_step; wd_mult, as in :func:`mxnet_rmsprop`.
    """
    limits = dict(clip_weights=clip_weights, clip_gradient=clip_gradient)
    others = dict(wd=wd, rescale_grad=rescale_grad, multi_precision=multi_precision)
    options = inspect.unwrap(mxnet_rmsprop)(None, learning_rate, rho, momentum, epsilon, centered, **limits, **others)
    return options | dict(eps_placement="inside" if centered else "outside", clip_after_decay=False)
