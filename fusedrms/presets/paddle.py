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
    r"""PaddlePaddle's RMSProp: epsilon inside the root, the learning rate inside the momentum.

    $$
    \begin{aligned}
    g &\leftarrow g + \text{weight\_decay} \cdot w \\
    v &\leftarrow \rho \cdot v + (1 - \rho) \cdot g^2 \\
    m &\leftarrow \rho \cdot m + (1 - \rho) \cdot g \qquad \text{if centered, else } m = 0 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2 + \epsilon}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor. Required.
        rho: $\rho$, decay of the averages $v$ and $m$, per step. Default 0.95.
        epsilon: $\epsilon$, added to the square average, or to the variance, in the square of the gradient's unit. Default 1e-6.
        momentum: Decay of the momentum buffer $b$, per step; 0 for no buffer. Default 0.0.
        centered: Divide by the standard deviation of the gradient instead of its root mean square. Default False.
        weight_decay: L2 penalty added to the gradient after clipping; None for none. Default None.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.paddle_rmsprop(params, 0.001)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9955, 0.9955, 0.9955])

    Source: PaddlePaddle 3.3.1, `python/paddle/optimizer/rmsprop.py`, phi's `rmsprop_kernel_impl.h`. The docstring there speaks of
    Nesterov's momentum; the code has plain momentum. rho, epsilon and momentum are float32 there, also for wider parameters. `params` is
    called `parameters` there and stands after `centered`.

    Not carried over: `L1Decay`; `grad_clip`, which is an option of a parameter group: `ClipGradByGlobalNorm` is `clip_grad_norm`,
    `ClipGradByNorm` is the same with `clip_norm_over="parameter"`, `ClipGradByValue` is `clip_grad_value`. `learning_rate` of a group is
    a factor there, and a learning rate here.
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
