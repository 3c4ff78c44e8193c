"""Deeplearning4j."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp, "Deeplearning4j", "1373917")
def dl4j_rmsprop(params: ParamsT, learningRate: float | Tensor = 0.1, rmsDecay: float = 0.95, epsilon: float = 1e-8) -> dict[str, Any]:
    """Deeplearning4j's RmsProp: epsilon outside of the root, square averages from epsilon.

    Args:
        params: as of FusedRMSProp.
        learningRate: learning rate, ten times that of most.
        rmsDecay: decay of the square average.
        epsilon: added to the root, and what the square average starts from.

    Source: Deeplearning4j, nd4j's RmsProp.java and RmsPropUpdater.java, libnd4j's updaterRmsProp.cpp; that the average starts from
    epsilon is in no documentation. On GPUs epsilon=0 counts as 1e-7 there. Not carried over: clipping by the norm of a layer; of
    each parameter it is ``clip_grad_norm`` with ``clip_norm_over="parameter"`` of a parameter group, and L2 is ``weight_decay``.
    """
    return dict(lr=learningRate, alpha=rmsDecay, eps=epsilon, initial_square_avg=epsilon)
