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
    r"""PyTorch's torch.optim.RMSprop: epsilon outside the root, the learning rate outside the momentum.

    $$
    \begin{aligned}
    g &\leftarrow g + \text{weight\_decay} \cdot w \\
    v &\leftarrow \alpha \cdot v + (1 - \alpha) \cdot g^2 \\
    m &\leftarrow \alpha \cdot m + (1 - \alpha) \cdot g \qquad \text{if centered, else } m = 0 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{g}{\sqrt{v - m^2} + \text{eps}} \\
    w &\leftarrow w - \text{lr} \cdot b
    \end{aligned}
    $$

    [`FusedRMSProp`][fusedrms.FusedRMSProp] with no option beyond torch's is the same.

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        lr: Learning rate, a number or a 1-element tensor. Default 1e-2.
        alpha: Decay of the averages $v$ and $m$, per step. Default 0.99.
        eps: Added to the root, in the gradient's unit. Default 1e-8.
        weight_decay: L2 penalty added to the gradient. Default 0.
        momentum: Decay of the momentum buffer $b$, per step; 0 for no buffer. Default 0.
        centered: Divide by the standard deviation of the gradient instead of its root mean square. Default False.
        capturable: CUDA graphs may capture `step()`, as of [`FusedRMSProp`][fusedrms.FusedRMSProp]. Default False.
        foreach: Without effect, every step is fused. Default None.
        maximize: Ascend instead of descend: $g \leftarrow -g$ at first. Default False.
        differentiable: Must be False. Default False.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.torch_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9000, 0.9000, 0.9000])

    Source: PyTorch 2.13.0, `torch/optim/rmsprop.py`. It does not keep a centered variance from becoming negative, where it makes NaN.
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
    r"""Torch7's optim.rmsprop: epsilon outside the root.

    $$
    \begin{aligned}
    g &\leftarrow g + \text{weightDecay} \cdot w \\
    v &\leftarrow \alpha \cdot v + (1 - \alpha) \cdot g^2, \qquad v_0 = \text{initialMean} \\
    w &\leftarrow w - \frac{\text{learningRate} \cdot g}{\sqrt{v} + \epsilon}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learningRate: Learning rate, a number or a 1-element tensor. Default 1e-2.
        alpha: Decay of the average of squares $v$, per step. Default 0.99.
        epsilon: $\epsilon$, added to the root, in the gradient's unit. Default 1e-8.
        weightDecay: L2 penalty added to the gradient. Default 0.0.
        initialMean: The number at which $v$ starts, in the square of the gradient's unit. Default 0.0.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.torch7_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9000, 0.9000, 0.9000])

    Source: Torch7 a5ceed7 (2017), `optim/rmsprop.lua`. Its documentation takes epsilon for what the average starts from, and does not
    know `initialMean`.
    """
    return dict(lr=learningRate, alpha=alpha, eps=epsilon, weight_decay=weightDecay, initial_square_avg=initialMean)
