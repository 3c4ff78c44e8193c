"""timm."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp)
def timm_rmsprop_tf(
    params: ParamsT,
    lr: float | Tensor = 1e-2,
    alpha: float = 0.9,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    decoupled_decay: bool = False,
    lr_in_momentum: bool = True,
) -> dict[str, Any]:
    """timm's RMSpropTF: epsilon inside of the root, square averages from 1.

    Args:
        params: as of FusedRMSProp.
        lr: learning rate.
        alpha: decay of the averages.
        eps: added to the square average, or to the variance.
        weight_decay: L2 penalty, or decoupled.
        momentum: decay of the momentum buffer.
        centered: divide by the standard deviation.
        decoupled_decay: w = w * (1 - lr * weight_decay) before the step.
        lr_in_momentum: the buffer holds updates already multiplied by lr.

    Source: timm, timm/optim/rmsprop_tf.py; what EfficientNet, MobileNet and stable-baselines3 train with. Not carried over:
    caution and corrected_weight_decay, which later versions have.
    """
    return dict(
        lr=lr,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
        centered=centered,
        eps_placement="inside",
        lr_in_momentum=lr_in_momentum,
        decoupled_weight_decay=decoupled_decay,
        initial_square_avg=1.0,
    )
