"""optax."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_flags
from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "optax", "0.2.8")
def optax_rmsprop(
    params: ParamsT,
    learning_rate: float | Tensor,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> dict[str, Any]:
    r"""optax.rmsprop: epsilon inside the root by default, the learning rate inside the momentum.

    $$
    \begin{aligned}
    v &\leftarrow \text{decay} \cdot v + (1 - \text{decay}) \cdot g^2, \qquad v_0 = \text{initial\_scale} \\
    m &\leftarrow \text{decay} \cdot m + (1 - \text{decay}) \cdot g \qquad \text{if centered, else } m = 0 \\
    c &= 1 - \text{decay}^t \qquad \text{if bias\_correction, else } c = 1 \\
    u &= \frac{\text{learning\_rate} \cdot g}{\sqrt{\frac{v}{c} - \left(\frac{m}{c}\right)^2 + \text{eps}}} \\
    b &\leftarrow \text{momentum} \cdot b + u \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    With `nesterov=True` the last line is $w \leftarrow w - (\text{momentum} \cdot b + u)$. With `eps_in_sqrt=False` eps stands outside
    the root.

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor; for a schedule, use an `LRScheduler`. Required.
        decay: Decay of the averages $v$ and $m$, per step. Default 0.9.
        eps: Added to what is below the root, in the square of the gradient's unit, or to the root, in the gradient's unit. Default 1e-8.
        initial_scale: The number at which $v$ starts, in the square of the gradient's unit. Default 0.0.
        eps_in_sqrt: False: eps is added to the root instead. Default True.
        centered: Divide by the standard deviation of the gradient instead of its root mean square. Default False.
        momentum: Decay of the momentum buffer $b$, per step; None for no buffer. Default None.
        nesterov: Look one update ahead; without effect if there is no momentum, as in optax. Default False.
        bias_correction: Divide the averages by $1 - \text{decay}^t$ at step $t$. Default False.

    Raises:
        ValueError: `eps_in_sqrt` is neither True nor False; or `bias_correction` with a decay of 1 or more.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.optax_rmsprop(params, 0.001)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9968, 0.9968, 0.9968])

    Source: optax 0.2.8, `optax/_src/alias.py` and `transform.py`.
    """
    check_flags(dict(eps_in_sqrt=eps_in_sqrt), "eps_in_sqrt")
    return dict(
        lr=learning_rate,
        alpha=decay,
        eps=eps,
        momentum=0.0 if momentum is None else momentum,
        centered=centered,
        eps_placement="inside" if eps_in_sqrt else "outside",
        lr_in_momentum=True,
        nesterov=nesterov if momentum else False,
        initial_square_avg=initial_scale,
        bias_correction=bias_correction,
    )
