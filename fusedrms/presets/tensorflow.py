"""TensorFlow 1."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSProp)
def tensorflow_rmsprop(
    params: ParamsT,
    learning_rate: float | Tensor,
    decay: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-10,
    centered: bool = False,
) -> dict[str, Any]:
    """TensorFlow 1's RMSPropOptimizer: epsilon inside of the root, the rate inside of the momentum, square averages from 1.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        decay: decay of the averages.
        momentum: decay of the momentum buffer.
        epsilon: added to the square average, or to the variance.
        centered: divide by the standard deviation.

    Source: tf.compat.v1.train.RMSPropOptimizer, core/kernels/training_ops.cc. Reinforcement learning papers (IMPALA: decay .99,
    epsilon .1) owe their epsilon to its place here. Not carried over: use_locking, which stands before centered there; sparse
    updates, which leave the averages of other rows as they are.
    """
    return dict(
        lr=learning_rate,
        alpha=decay,
        eps=epsilon,
        momentum=momentum,
        centered=centered,
        eps_placement="inside",
        lr_in_momentum=True,
        initial_square_avg=1.0,
    )
