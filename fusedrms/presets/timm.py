"""timm."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset
from .tensorflow import tensorflow_options


@preset(FusedRMSProp, "timm", "1.0.31")
def timm_rmsprop_tf(
    params: ParamsT,
    lr: float | Tensor = 1e-2,
    alpha: float = 0.9,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    decoupled_decay: bool = False,
    corrected_weight_decay: bool = False,
    lr_in_momentum: bool = True,
    caution: bool = False,
    foreach: bool | None = None,
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
        corrected_weight_decay: w = w * (1 - lr**2 / max_lr * weight_decay) in its place, max_lr being the lr given here; without effect
            unless decoupled_decay, as in timm.
        lr_in_momentum: the buffer holds updates already multiplied by lr.
        caution: leave out updates against their gradient's sign, and make the others as much larger; without effect if there is no
            momentum, as in timm.
        foreach: without effect, every step is fused.

    Source: timm, timm/optim/rmsprop_tf.py of timm 1.0.31; what EfficientNet, MobileNet and stable-baselines3 train with.
    """
    return tensorflow_options(lr, alpha, momentum, eps, centered) | dict(
        weight_decay=weight_decay,
        lr_in_momentum=lr_in_momentum,
        decoupled_weight_decay=decoupled_decay,
        corrected_weight_decay=corrected_weight_decay if decoupled_decay else False,
        caution=caution if momentum else False,
        foreach=foreach,
    )
