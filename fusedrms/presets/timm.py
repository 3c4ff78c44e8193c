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
    r"""timm's RMSpropTF: epsilon inside the root, square averages start from 1.

    $$
    \begin{aligned}
    g &\leftarrow g + \text{weight\_decay} \cdot w \\
    v &\leftarrow \alpha \cdot v + (1 - \alpha) \cdot g^2, \qquad v_0 = 1 \\
    m &\leftarrow \alpha \cdot m + (1 - \alpha) \cdot g \qquad \text{if centered, else } m = 0 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{lr} \cdot g}{\sqrt{v - m^2 + \text{eps}}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    With `lr_in_momentum=False` the last two lines are $b \leftarrow \text{momentum} \cdot b + \frac{g}{\sqrt{v - m^2 + \text{eps}}}$ and
    $w \leftarrow w - \text{lr} \cdot b$.

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        lr: Learning rate, a number or a 1-element tensor. Default 1e-2.
        alpha: Decay of the averages $v$ and $m$, per step. Default 0.9.
        eps: Added to the square average, or to the variance, in the square of the gradient's unit. Default 1e-10.
        weight_decay: L2 penalty added to the gradient, or decoupled decay. Default 0.0.
        momentum: Decay of the momentum buffer $b$, per step; 0 for no buffer. Default 0.0.
        centered: Divide by the standard deviation of the gradient instead of its root mean square. Default False.
        decoupled_decay: $w \leftarrow w \cdot (1 - \text{lr} \cdot \text{weight\_decay})$ before the step, instead of the penalty. Default
            False.
        corrected_weight_decay: $w \leftarrow w \cdot (1 - \frac{\text{lr}^2}{\text{max\_lr}} \cdot \text{weight\_decay})$ in its place,
            where max_lr is the lr given here; without effect unless `decoupled_decay`, as in timm. Default False.
        lr_in_momentum: The learning rate stands inside the buffer; False: outside, as in torch. Default True.
        caution: Leave out updates against their gradient's sign, and make the others as much larger; without effect if there is no
            momentum, as in timm. Default False.
        foreach: Without effect, every step is fused. Default None.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.timm_rmsprop_tf(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9948, 0.9948, 0.9948])

    Source: timm 1.0.31, `timm/optim/rmsprop_tf.py`; what EfficientNet, MobileNet and stable-baselines3 train with.
    """
    return tensorflow_options(lr, alpha, momentum, eps, centered) | dict(
        weight_decay=weight_decay,
        lr_in_momentum=lr_in_momentum,
        decoupled_weight_decay=decoupled_decay,
        corrected_weight_decay=corrected_weight_decay if decoupled_decay else False,
        caution=caution if momentum else False,
        foreach=foreach,
    )
