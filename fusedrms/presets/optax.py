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
    """optax.rmsprop: the rate inside of the momentum.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate, a number; a schedule is an LRScheduler here.
        decay: decay of the averages.
        eps: added to the square average (the variance), or to its root.
        initial_scale: what the square average starts from.
        eps_in_sqrt: eps inside of the root.
        centered: divide by the standard deviation.
        momentum: decay of the momentum buffer; None for none.
        nesterov: look one update ahead; without effect if there is no momentum, as in optax.
        bias_correction: divide the averages by 1 - decay**step.

    Source: optax/_src/alias.py and transform.py.
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
