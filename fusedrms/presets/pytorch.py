"""PyTorch and its ancestor."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "PyTorch", "2.13.0")
def torch_rmsprop(
    params: ParamsT,
    lr: float | Tensor = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0,
    momentum: float = 0,
    centered: bool = False,
    capturable: bool = False,
    foreach: bool | None = None,
    maximize: bool = False,
    differentiable: bool = False,
) -> dict[str, Any]:
    """torch.optim.RMSprop: epsilon outside of the root, the rate outside of the momentum.

    Args:
        params: as of FusedRMSProp, and so are the others; FusedRMSProp with no option beyond torch's is the same.

    Source: PyTorch, torch/optim/rmsprop.py. Its variance is not kept from becoming negative, where it makes NaN.
    """
    return dict(
        lr=lr,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
        centered=centered,
        capturable=capturable,
        foreach=foreach,
        maximize=maximize,
        differentiable=differentiable,
    )


@preset(FusedRMSProp, "Torch7", "a5ceed7 (2017)")
def torch7_rmsprop(
    params: ParamsT,
    learningRate: float | Tensor = 1e-2,
    alpha: float = 0.99,
    epsilon: float = 1e-8,
    weightDecay: float = 0.0,
    initialMean: float = 0.0,
) -> dict[str, Any]:
    """Torch7's optim.rmsprop: epsilon outside of the root.

    Args:
        params: as of FusedRMSProp.
        learningRate: learning rate.
        alpha: decay of the square average.
        epsilon: added to the root.
        weightDecay: L2 penalty.
        initialMean: what the square average starts from.

    Source: Torch7, optim/rmsprop.lua. Its documentation takes epsilon for what the average starts from, and does not know initialMean.
    """
    return dict(lr=learningRate, alpha=alpha, eps=epsilon, weight_decay=weightDecay, initial_square_avg=initialMean)
