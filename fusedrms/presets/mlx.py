"""MLX."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "MLX", "0.32.4")
def mlx_rmsprop(params: ParamsT, learning_rate: float | Tensor, alpha: float = 0.99, eps: float = 1e-8) -> dict[str, Any]:
    r"""MLX's RMSprop: epsilon outside the root.

    $$
    \begin{aligned}
    v &\leftarrow \alpha \cdot v + (1 - \alpha) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{learning\_rate} \cdot g}{\sqrt{v} + \text{eps}}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor; for a schedule, use an `LRScheduler`. Required.
        alpha: Decay of the average of squares $v$, per step. Default 0.99.
        eps: Added to the root, in the gradient's unit. Default 1e-8.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.mlx_rmsprop(params, 0.001)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9900, 0.9900, 0.9900])

    Source: MLX 0.32.4, `python/mlx/optimizers/optimizers.py`. It keeps the learning rate in float32, also for wider parameters.

    Not carried over: its `clip_grad_norm`, which is the option of that name of a parameter group. MLX divides by norm + 1e-6, here it is
    the norm.
    """
    return dict(lr=learning_rate, alpha=alpha, eps=eps)
