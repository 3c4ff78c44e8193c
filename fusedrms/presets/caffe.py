"""Caffe."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_positive
from ..rmsprop import FusedRMSProp
from .preset import preset


def _limit(clip_gradients: float | None, iter_size: int) -> float | None:
    """Of the mean over iter_size batches; the class checks what is no number."""
    if isinstance(clip_gradients, int | float):
        return None if clip_gradients < 0 else clip_gradients / iter_size
    return clip_gradients


@preset(FusedRMSProp, "Caffe", "1.0")
def caffe_rmsprop(
    params: ParamsT,
    base_lr: float | Tensor,
    rms_decay: float = 0.99,
    delta: float = 1e-8,
    weight_decay: float = 0.0,
    clip_gradients: float | None = -1.0,
    iter_size: int = 1,
) -> dict[str, Any]:
    r"""Caffe's RMSProp solver: epsilon outside the root; the gradients of `iter_size` batches are averaged.

    $$
    \begin{aligned}
    g &\leftarrow g \cdot \min\left(1,\ \frac{\text{clip\_gradients}}{\lVert g \rVert_2}\right) \\
    g &\leftarrow \frac{g}{\text{iter\_size}} + \text{weight\_decay} \cdot w \\
    v &\leftarrow \text{rms\_decay} \cdot v + (1 - \text{rms\_decay}) \cdot g^2 \\
    w &\leftarrow w - \frac{\text{base\_lr} \cdot g}{\sqrt{v} + \delta}
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        base_lr: Learning rate, a number or a 1-element tensor. Required.
        rms_decay: Decay of the average of squares $v$, per step. Default 0.99.
        delta: $\delta$, added to the root, in the gradient's unit. Default 1e-8.
        weight_decay: L2 penalty added to the gradient after clipping. Default 0.0.
        clip_gradients: Limit of the L2 norm of all gradients, of their sum over `iter_size` batches, in the gradient's unit; None or less
            than 0 for none. Default -1.0.
        iter_size: Batches whose gradients are added up in a step, and divided by their number; call `backward()` so many times before
            each step. Default 1.

    Raises:
        ValueError: `iter_size` is not above 0, or `clip_gradients` is 0.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.caffe_rmsprop(params, base_lr=0.01, rms_decay=0.98)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9293, 0.9293, 0.9293])

    Source: Caffe 1.0, `src/caffe/solvers/rmsprop_solver.cpp` and `sgd_solver.cpp`. The solver's page is wrong: it calls `rms_decay` by
    the letter of delta, and its formula has no delta.

    Not carried over: `momentum`, which must be 0 there; `regularization_type` "L1"; `lr_mult` and `decay_mult`, for which you write
    `lr=base_lr * lr_mult` and `weight_decay` of a parameter group; `lr_policy`, for which you use an `LRScheduler`.
    """
    check_positive(dict(iter_size=iter_size), "iter_size")
    return dict(
        lr=base_lr,
        alpha=rms_decay,
        eps=delta,
        weight_decay=weight_decay,
        rescale_grad=1 / iter_size,
        clip_grad_norm=_limit(clip_gradients, iter_size),
    )
