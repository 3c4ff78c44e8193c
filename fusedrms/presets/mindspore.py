"""MindSpore."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_positive
from ..rmsprop import FusedRMSProp
from .preset import preset
from .tensorflow import tensorflow_options


@preset(FusedRMSProp, "MindSpore", "2.10.0")
def mindspore_rmsprop(
    params: ParamsT,
    learning_rate: float | Tensor = 0.1,
    decay: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-10,
    centered: bool = False,
    loss_scale: float = 1.0,
    weight_decay: float = 0.0,
) -> dict[str, Any]:
    r"""MindSpore's nn.RMSProp: epsilon inside the root, the learning rate inside the momentum, square averages start from 1.

    $$
    \begin{aligned}
    g &\leftarrow \frac{g}{\text{loss\_scale}} + \text{weight\_decay} \cdot w \\
    v &\leftarrow \text{decay} \cdot v + (1 - \text{decay}) \cdot g^2, \qquad v_0 = 1 \\
    m &\leftarrow \text{decay} \cdot m + (1 - \text{decay}) \cdot g \qquad \text{if centered, else } m = 0 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2 + \epsilon}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor; ten times that of most systems. Default 0.1.
        decay: Decay of the averages $v$ and $m$, per step. Default 0.9.
        momentum: Decay of the momentum buffer $b$, per step; 0 for no buffer. Default 0.0.
        epsilon: $\epsilon$, added to the square average, or to the variance, in the square of the gradient's unit. Default 1e-10.
        centered: Divide by the standard deviation of the gradient instead of its root mean square. Default False.
        loss_scale: Gradients are divided by it first. Default 1.0.
        weight_decay: L2 penalty added to the gradient. Default 0.0.

    Raises:
        ValueError: `loss_scale` is not above 0.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.mindspore_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9480, 0.9480, 0.9480])

    Source: MindSpore 2.10.0, `python/mindspore/nn/optim/rmsprop.py`, the kernels for CPUs and GPUs. No documentation says that averages
    start from 1. The kernel for CPUs differs in two things. Unless centered, it has epsilon outside the root for each 8 elements of a
    parameter, which AVX takes at once, and inside for the up to 7 that remain; here it is inside for all. Centered, it leaves an element
    out where the variance is not positive.

    Not carried over: `use_locking`, which stands before `centered`. There `weight_decay` does not count for names with "beta" or "gamma":
    use a parameter group with `weight_decay=0`.
    """
    check_positive(dict(loss_scale=loss_scale), "loss_scale")
    options = tensorflow_options(learning_rate, decay, momentum, epsilon, centered)
    return options | dict(rescale_grad=1 / loss_scale, weight_decay=weight_decay)
