"""Theano, and what was built on it: Lasagne, Blocks."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_positive
from ..graves import FusedRMSPropGraves
from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSPropGraves, "Theano", "DeepLearningTutorials 11c4651")
def theano_rmsprop(params: ParamsT) -> dict[str, Any]:
    r"""The rmsprop of Theano's tutorial on LSTMs, with its numbers: the rule of Graves 2013.

    $$
    \begin{aligned}
    v &\leftarrow 0.95 \cdot v + 0.05 \cdot g^2 \\
    m &\leftarrow 0.95 \cdot m + 0.05 \cdot g \\
    b &\leftarrow 0.9 \cdot b + \frac{10^{-4} \cdot g}{\sqrt{v - m^2 + 10^{-4}}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.theano_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9995, 0.9995, 0.9995])

    Source: DeepLearningTutorials 11c4651, `code/lstm.py`. Its function takes a learning rate and ignores it: the rate is always 1e-4.
    """
    return dict(lr=1e-4, alpha=0.95, momentum=0.9, eps=1e-4)


@preset(FusedRMSProp, "Lasagne", "0.2.dev1, 5d3c63c")
def lasagne_rmsprop(params: ParamsT, learning_rate: float | Tensor = 1.0, rho: float = 0.9, epsilon: float = 1e-6) -> dict[str, Any]:
    r"""Lasagne's updates.rmsprop: epsilon inside the root, a learning rate of 1 by default.

    $$
    \begin{aligned}
    v &\leftarrow \rho \cdot v + (1 - \rho) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{learning\_rate} \cdot g}{\sqrt{v + \epsilon}}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor. Default 1.0.
        rho: $\rho$, decay of the average of squares $v$, per step. Default 0.9.
        epsilon: $\epsilon$, added to the square average, in the square of the gradient's unit. Default 1e-6.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.lasagne_rmsprop(params, 0.01)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9684, 0.9684, 0.9684])

    Source: Lasagne 0.2.dev1, 5d3c63c, `lasagne/updates.py`.

    Not carried over: `total_norm_constraint`, which is `clip_grad_norm` of a parameter group, to 1e-7 of the norm.
    """
    return dict(lr=learning_rate, alpha=rho, eps=epsilon, eps_placement="inside")


@preset(FusedRMSProp, "Blocks", "c69c2dc")
def blocks_rmsprop(
    params: ParamsT, learning_rate: float | Tensor = 1.0, decay_rate: float = 0.9, max_scaling: float = 1e5
) -> dict[str, Any]:
    r"""Blocks' RMSProp: the root is at least 1 / max_scaling, a learning rate of 1 by default.

    $$
    \begin{aligned}
    v &\leftarrow \text{decay\_rate} \cdot v + (1 - \text{decay\_rate}) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{learning\_rate} \cdot g}{\max\left(\sqrt{v},\ \frac{1}{\text{max\_scaling}}\right)}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor. Default 1.0.
        decay_rate: Decay of the average of squares $v$, per step. Default 0.9.
        max_scaling: The most that a gradient is multiplied by, apart from the learning rate, per unit of the gradient. Default 1e5.

    Raises:
        ValueError: `max_scaling` is not above 0.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.blocks_rmsprop(params, learning_rate=0.01)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9684, 0.9684, 0.9684])

    Source: Blocks c69c2dc, `blocks/algorithms/__init__.py`.

    Not carried over: `StepClipping` before the rule, which is `clip_grad_norm` of a parameter group.
    """
    check_positive(dict(max_scaling=max_scaling), "max_scaling")
    return dict(lr=learning_rate, alpha=decay_rate, eps=1 / max_scaling, eps_placement="floor")
