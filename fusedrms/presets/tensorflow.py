"""TensorFlow 1, and TF-Slim's trainer of image classifiers."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import preset


def tensorflow_options(lr: float | Tensor, decay: float, momentum: float, epsilon: float, centered: bool = False) -> dict[str, Any]:
    """TensorFlow's rule."""
    return dict(
        lr=lr,
        alpha=decay,
        eps=epsilon,
        momentum=momentum,
        centered=centered,
        eps_placement="inside",
        lr_in_momentum=True,
        initial_square_avg=1.0,
    )


@preset(FusedRMSProp, "TensorFlow 1", "tf.compat.v1 of 2.15.1")
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
    return tensorflow_options(learning_rate, decay, momentum, epsilon, centered)


@preset(FusedRMSProp, "TF-Slim", "tensorflow/models 07ed366")
def tf_slim_rmsprop(
    params: ParamsT,
    learning_rate: float | Tensor = 0.01,
    rmsprop_decay: float = 0.9,
    rmsprop_momentum: float = 0.9,
    opt_epsilon: float = 1.0,
    weight_decay: float = 0.00004,
    moving_average_decay: float | None = None,
) -> dict[str, Any]:
    """The RMSProp of TF-Slim's train_image_classifier.py: TensorFlow's, decay and momentum .9, epsilon 1.

    Args:
        params: as of FusedRMSProp; only weights of convolutions and linear layers decay there.
        learning_rate: learning rate.
        rmsprop_decay: decay of the square average.
        rmsprop_momentum: decay of the momentum buffer.
        opt_epsilon: added to the square average.
        weight_decay: L2 penalty.
        moving_average_decay: of averages of the weights, which warm up with the number of steps; None or 0 for none.

    Source: train_image_classifier.py, by its flags. Its help has ``momentum`` for RMSProp, too; the code takes rmsprop_momentum. Schedule:
    :class:`fusedrms.schedules.ExponentialDecay` with decay_rate=0.94, decay_steps of 2 epochs and staircase=True.
    """
    average = moving_average_decay or None
    averages = dict(ema_decay=average, ema_warmup=average is not None)
    return tensorflow_options(learning_rate, rmsprop_decay, rmsprop_momentum, opt_epsilon) | dict(weight_decay=weight_decay) | averages
