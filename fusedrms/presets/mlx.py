"""MLX."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "MLX", "0.32.4")
def mlx_rmsprop(params: ParamsT, learning_rate: float | Tensor, alpha: float = 0.99, eps: float = 1e-8) -> dict[str, Any]:
    """MLX's RMSprop: epsilon outside of the root.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate, a number; a schedule is an LRScheduler here.
        alpha: decay of the square average.
        eps: added to the root.

    Source: MLX, python/mlx/optimizers/optimizers.py. It keeps the rate in float32, also for wider parameters. Its ``clip_grad_norm`` is
    the option of that name of a parameter group; it divides by norm + 1e-6.
    """
    return dict(lr=learning_rate, alpha=alpha, eps=eps)
