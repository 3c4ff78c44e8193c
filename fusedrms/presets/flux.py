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
    """Flux' RMSProp, which is that of Optimisers.jl: epsilon outside of the root.

    Args:
        params: as of FusedRMSProp.
        eta: learning rate.
        rho: decay of the averages; the docstring there calls it a momentum, which the rule has not.
        epsilon: added to the root.
        centred: divide by the standard deviation.

    Source: Optimisers.jl, src/rules.jl; Flux.Optimise.RMSProp is the same without centred. Where rounding makes a variance negative it
    raises a DomainError. Complex numbers are squared by their magnitude there, here, as in torch, by their parts. ``ClipNorm`` and
    ``WeightDecay`` before it are ``clip_grad_norm`` with ``clip_norm_over="parameter"`` and ``weight_decay`` of a parameter group.
    """
    return dict(lr=eta, alpha=rho, eps=epsilon, centered=centred)
