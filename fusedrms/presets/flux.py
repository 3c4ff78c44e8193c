"""Flux and Optimisers.jl."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "Flux, Optimisers.jl", "0.4.8")
def flux_rmsprop(
    params: ParamsT, eta: float | Tensor = 0.001, rho: float = 0.9, epsilon: float = 1e-8, *, centred: bool = False
) -> dict[str, Any]:
    r"""Flux' RMSProp, which is that of Optimisers.jl: epsilon outside the root.

    $$
    \begin{aligned}
    v &\leftarrow \rho \cdot v + (1 - \rho) \cdot g^2 \\
    m &\leftarrow \rho \cdot m + (1 - \rho) \cdot g \qquad \text{if centred, else } m = 0 \\
    w &\leftarrow w - \frac{\eta \cdot g}{\sqrt{v - m^2} + \epsilon}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        eta: $\eta$, learning rate, a number or a 1-element tensor. Default 0.001.
        rho: $\rho$, decay of the averages $v$ and $m$, per step; the docstring there calls it a momentum, which the rule does not have.
            Default 0.9.
        epsilon: $\epsilon$, added to the root, in the gradient's unit. Default 1e-8.
        centred: Divide by the standard deviation of the gradient instead of its root mean square. Default False.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.flux_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9968, 0.9968, 0.9968])

    Source: Optimisers.jl 0.4.8, `src/rules.jl`. `Flux.Optimise.RMSProp` is the same without `centred`. Where rounding makes a variance
    negative, it raises a DomainError; here the variance counts as 0. Complex numbers are squared by their magnitude there; here, as in
    torch, by their parts.

    Not carried over: `ClipNorm` and `WeightDecay` before the rule. They are `clip_grad_norm` with `clip_norm_over="parameter"`, and
    `weight_decay`, of a parameter group.
    """
    return dict(lr=eta, alpha=rho, eps=epsilon, centered=centred)
