"""JAX's example libraries."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "JAX", "0.10.2")
def jax_rmsprop(params: ParamsT, step_size: float | Tensor, gamma: float = 0.9, eps: float = 1e-8) -> dict[str, Any]:
    r"""JAX's example_libraries.optimizers.rmsprop: epsilon inside the root.

    $$
    \begin{aligned}
    v &\leftarrow \gamma \cdot v + (1 - \gamma) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{step\_size} \cdot g}{\sqrt{v + \text{eps}}}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        step_size: Learning rate, a number or a 1-element tensor; for a schedule, use an `LRScheduler`. Required.
        gamma: $\gamma$, decay of the average of squares $v$, per step. Default 0.9.
        eps: Added to $v$, in the square of the gradient's unit. Default 1e-8.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.jax_rmsprop(params, step_size=0.001)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9968, 0.9968, 0.9968])

    Source: JAX 0.10.2, `jax/example_libraries/optimizers.py`.

    Not carried over: `clip_grads`, which is `clip_grad_norm` of a parameter group.
    """
    return dict(lr=step_size, alpha=gamma, eps=eps, eps_placement="inside")


@preset(FusedRMSProp, "JAX", "0.10.2")
def jax_rmsprop_momentum(
    params: ParamsT, step_size: float | Tensor, gamma: float = 0.9, eps: float = 1e-8, momentum: float = 0.9
) -> dict[str, Any]:
    r"""JAX's example_libraries.optimizers.rmsprop_momentum: epsilon inside the root, the learning rate inside the momentum.

    $$
    \begin{aligned}
    v &\leftarrow \gamma \cdot v + (1 - \gamma) \cdot g^2 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{step\_size} \cdot g}{\sqrt{v + \text{eps}}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        step_size: Learning rate, a number or a 1-element tensor; for a schedule, use an `LRScheduler`. Required.
        gamma: $\gamma$, decay of the average of squares $v$, per step. Default 0.9.
        eps: Added to $v$, in the square of the gradient's unit. Default 1e-8.
        momentum: Decay of the momentum buffer $b$, per step. Default 0.9.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.jax_rmsprop_momentum(params, step_size=0.001)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9968, 0.9968, 0.9968])

    Source: JAX 0.10.2, `jax/example_libraries/optimizers.py`.

    Not carried over: `clip_grads`, which is `clip_grad_norm` of a parameter group.
    """
    return dict(lr=step_size, alpha=gamma, eps=eps, momentum=momentum, eps_placement="inside", lr_in_momentum=True)
