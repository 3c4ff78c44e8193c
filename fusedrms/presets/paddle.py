"""PaddlePaddle."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "PaddlePaddle", "3.3.1")
def paddle_rmsprop(
    params: ParamsT,
    learning_rate: float | Tensor,
    rho: float = 0.95,
    epsilon: float = 1e-6,
    momentum: float = 0.0,
    centered: bool = False,
    *,
    weight_decay: float | None = None,
) -> dict[str, Any]:
    """PaddlePaddle's RMSProp: epsilon inside of the root, the rate inside of the momentum.

    Args:
        params: as of FusedRMSProp; ``parameters`` there, after centered.
        learning_rate: learning rate.
        rho: decay of the averages.
        epsilon: added to the square average, or to the variance.
        momentum: decay of the momentum buffer.
        centered: divide by the standard deviation.
        weight_decay: L2 penalty, added after clipping; None for none.

    Source: PaddlePaddle, python/paddle/optimizer/rmsprop.py, phi's rmsprop_kernel_impl.h. The docstring there speaks of Nesterov's
    momentum; the code has plain momentum. rho, epsilon and momentum are float32 there, also for wider parameters. Not carried over:
    L1Decay; ``grad_clip``, which is an option of a parameter group: ClipGradByGlobalNorm is ``clip_grad_norm``, ClipGradByNorm the
    same with ``clip_norm_over="parameter"``, ClipGradByValue ``clip_grad_value``; ``learning_rate`` of a group, a factor there, is a
    rate here.
    """
    return dict(
        lr=learning_rate,
        alpha=rho,
        eps=epsilon,
        weight_decay=0.0 if weight_decay is None else weight_decay,
        momentum=momentum,
        centered=centered,
        eps_placement="inside",
        lr_in_momentum=True,
    )
