"""Chainer."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_flags
from ..graves import FusedRMSPropGraves
from ..rmsprop import FusedRMSProp
from ..smorms3 import FusedSMORMS3
from .preset import preset


@preset(FusedRMSProp, "Chainer", "7.8.1")
def chainer_rmsprop(
    params: ParamsT, lr: float | Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-8, eps_inside_sqrt: bool = False
) -> dict[str, Any]:
    r"""Chainer's RMSprop: epsilon outside the root, or inside on request.

    $$
    \begin{aligned}
    v &\leftarrow \alpha \cdot v + (1 - \alpha) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{lr} \cdot g}{\sqrt{v} + \text{eps}}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        lr: Learning rate, a number or a 1-element tensor. Default 0.01.
        alpha: Decay of the average of squares $v$, per step. Default 0.99.
        eps: Added to the root, in the gradient's unit, or to $v$, in its square. Default 1e-8.
        eps_inside_sqrt: True: divide by $\sqrt{v + \text{eps}}$. Default False.

    Raises:
        ValueError: `eps_inside_sqrt` is neither True nor False.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.chainer_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9000, 0.9000, 0.9000])

    Source: Chainer 7.8.1, `chainer/optimizers/rmsprop.py`.

    Not carried over: hooks, which are options of a parameter group here. `WeightDecay` is `weight_decay`, `GradientClipping` is
    `clip_grad_norm` (here always before the decay, there in the order of the hooks), `GradientHardClipping` is `clip_grad_value`. Nor is
    the error that Chainer raises where eps underflows in float16: states are float32 here.
    """
    check_flags(dict(eps_inside_sqrt=eps_inside_sqrt), "eps_inside_sqrt")
    return dict(lr=lr, alpha=alpha, eps=eps, eps_placement="inside" if eps_inside_sqrt else "outside")


@preset(FusedRMSPropGraves, "Chainer", "7.8.1")
def chainer_rmsprop_graves(
    params: ParamsT, lr: float | Tensor = 1e-4, alpha: float = 0.95, momentum: float = 0.9, eps: float = 1e-4
) -> dict[str, Any]:
    r"""Chainer's RMSpropGraves: centered, epsilon inside the root, the learning rate inside the momentum.

    $$
    \begin{aligned}
    v &\leftarrow \alpha \cdot v + (1 - \alpha) \cdot g^2 \\
    m &\leftarrow \alpha \cdot m + (1 - \alpha) \cdot g \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{lr} \cdot g}{\sqrt{v - m^2 + \text{eps}}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        lr: Learning rate, a number or a 1-element tensor. Default 1e-4.
        alpha: Decay of the averages $v$ and $m$, per step. Default 0.95.
        momentum: Decay of the momentum buffer $b$, per step. Default 0.9.
        eps: Added to the variance $v - m^2$, in the square of the gradient's unit. Default 1e-4.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.chainer_rmsprop_graves(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9995, 0.9995, 0.9995])

    Source: Chainer 7.8.1, `chainer/optimizers/rmsprop_graves.py`. Its `delta` is $-b$: it has the opposite sign of `momentum_buffer`.

    Not carried over: hooks, which are options of a parameter group here. `WeightDecay` is `weight_decay`, `GradientClipping` is
    `clip_grad_norm` (here always before the decay, there in the order of the hooks), `GradientHardClipping` is `clip_grad_value`.
    """
    return dict(lr=lr, alpha=alpha, momentum=momentum, eps=eps)


@preset(FusedSMORMS3, "Chainer", "7.8.1")
def chainer_smorms3(params: ParamsT, lr: float | Tensor = 0.001, eps: float = 1e-16) -> dict[str, Any]:
    r"""Chainer's SMORMS3: it chooses its own step sizes, up to `lr`.

    $$
    \begin{aligned}
    r &= \frac{1}{\text{mem} + 1}, \qquad \text{mem}_0 = 1 \\
    m &\leftarrow (1 - r) \cdot m + r \cdot g \\
    v &\leftarrow (1 - r) \cdot v + r \cdot g^2 \\
    x &= \frac{m^2}{v + \text{eps}} \\
    w &\leftarrow w - \frac{\min(\text{lr},\ x) \cdot g}{\sqrt{v} + \text{eps}} \\
    \text{mem} &\leftarrow 1 + \text{mem} \cdot (1 - x)
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        lr: The largest learning rate, a number or a 1-element tensor. Default 0.001.
        eps: Added to $v$, in the square of the gradient's unit, and to its root, in the gradient's unit. Default 1e-16.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.chainer_smorms3(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9986, 0.9986, 0.9986])

    Source: Chainer 7.8.1, `chainer/optimizers/smorms3.py`.

    Not carried over: hooks, which are options of a parameter group here. `WeightDecay` is `weight_decay`, `GradientClipping` is
    `clip_grad_norm` (here always before the decay, there in the order of the hooks), `GradientHardClipping` is `clip_grad_value`.
    """
    return dict(lr=lr, eps=eps)
