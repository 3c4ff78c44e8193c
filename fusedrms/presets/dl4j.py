"""Deeplearning4j."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "Deeplearning4j", "1373917")
def dl4j_rmsprop(params: ParamsT, learningRate: float | Tensor = 0.1, rmsDecay: float = 0.95, epsilon: float = 1e-8) -> dict[str, Any]:
    r"""Deeplearning4j's RmsProp: epsilon outside the root; square averages start from epsilon.

    $$
    \begin{aligned}
    v &\leftarrow \text{rmsDecay} \cdot v + (1 - \text{rmsDecay}) \cdot g^2, \qquad v_0 = \epsilon \\
    w &\leftarrow w - \frac{\text{learningRate} \cdot g}{\sqrt{v} + \epsilon}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learningRate: Learning rate, a number or a 1-element tensor; ten times that of most systems. Default 0.1.
        rmsDecay: Decay of the average of squares $v$, per step. Default 0.95.
        epsilon: $\epsilon$, added to the root, in the gradient's unit; the number at which $v$ starts, too. Default 1e-8.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.dl4j_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.5528, 0.5528, 0.5528])

    Source: Deeplearning4j 1373917, nd4j's `RmsProp.java` and `RmsPropUpdater.java`, libnd4j's `updaterRmsProp.cpp`. No documentation says
    that the average starts from epsilon. On GPUs `epsilon=0` counts as 1e-7 there.

    Not carried over: clipping by the norm of a layer. By the norm of each parameter it is `clip_grad_norm` with
    `clip_norm_over="parameter"` of a parameter group; its L2 is `weight_decay`.
    """
    return dict(lr=learningRate, alpha=rmsDecay, eps=epsilon, initial_square_avg=epsilon)
