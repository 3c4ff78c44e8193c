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
    """Caffe's RMSProp solver: epsilon outside of the root.

    Args:
        params: as of FusedRMSProp.
        base_lr: learning rate.
        rms_decay: decay of the square average.
        delta: added to the root.
        weight_decay: L2 penalty, added after clipping.
        clip_gradients: limit of the L2 norm of all gradients, of their sum over iter_size batches; None or less than 0 for none.
        iter_size: batches whose gradients are added up in a step, and divided by their number.

    Source: Caffe, src/caffe/solvers/rmsprop_solver.cpp and sgd_solver.cpp. The solver's page calls rms_decay by the letter of delta, and
    has no delta in its formula. Not carried over: momentum, which must be 0 there; regularization_type "L1"; ``lr_mult`` and
    ``decay_mult``, for which write lr=base_lr * lr_mult and weight_decay of a parameter group; ``lr_policy`` is an LRScheduler.
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
