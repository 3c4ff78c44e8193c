"""JAX's example libraries."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "JAX", "0.10.2")
def jax_rmsprop(params: ParamsT, step_size: float | Tensor, gamma: float = 0.9, eps: float = 1e-8) -> dict[str, Any]:
    """jax.example_libraries.optimizers.rmsprop: epsilon inside of the root.

    Args:
        params: as of FusedRMSProp.
        step_size: learning rate, a number; a schedule is an LRScheduler here.
        gamma: decay of the square average.
        eps: added to the square average.

    Source: JAX, jax/example_libraries/optimizers.py. Its ``clip_grads`` is ``clip_grad_norm`` of a parameter group.
    """
    return dict(lr=step_size, alpha=gamma, eps=eps, eps_placement="inside")


@preset(FusedRMSProp, "JAX", "0.10.2")
def jax_rmsprop_momentum(
    params: ParamsT, step_size: float | Tensor, gamma: float = 0.9, eps: float = 1e-8, momentum: float = 0.9
) -> dict[str, Any]:
    """jax.example_libraries.optimizers.rmsprop_momentum: the rate inside of the momentum.

    Args:
        params: as of FusedRMSProp.
        step_size, gamma, eps: as of :func:`jax_rmsprop`.
        momentum: decay of the momentum buffer.

    Source: as of :func:`jax_rmsprop`.
    """
    return dict(lr=step_size, alpha=gamma, eps=eps, momentum=momentum, eps_placement="inside", lr_in_momentum=True)
