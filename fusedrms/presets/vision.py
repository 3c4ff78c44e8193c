"""Image classifiers that were trained with TensorFlow's RMSProp and averages of their weights."""

import inspect
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_at_least_zero, check_positive
from ..rmsprop import FusedRMSProp
from .preset import preset
from .tensorflow import tf_slim_rmsprop

_slim = inspect.unwrap(tf_slim_rmsprop)  # from the trainer's flags to options


@preset(FusedRMSProp, "EfficientNet, MnasNet", "tensorflow/tpu 7dc921f")
def efficientnet(
    params: ParamsT,
    base_learning_rate: float = 0.016,
    moving_average_decay: float | None = 0.9999,
    weight_decay: float = 1e-5,
    *,
    train_batch_size: int = 2048,
) -> dict[str, Any]:
    """The RMSProp of EfficientNet, Tan and Le 2019, and of MnasNet: TensorFlow's, decay and momentum .9, epsilon 1e-3, weight averages.

    Args:
        params: as of FusedRMSProp; groups of batch norm's parameters have weight_decay=0.
        base_learning_rate: learning rate for each 256 images of a batch.
        moving_average_decay: of the averages of weights, which warm up with the number of steps; None or 0 for none.
        weight_decay: L2 penalty.
        train_batch_size: images in a step.

    Source: models/official/efficientnet, main.py and utils.py. The paper's rate of .256 is for 4,096 images, the code's batch has 2,048;
    epsilon and the warm-up are in the code alone. Schedule: :class:`fusedrms.schedules.ExponentialDecay` with decay_rate=0.97,
    decay_steps of 2.4 epochs, staircase=True and warmup_steps of 5 epochs.
    """
    check_positive(dict(train_batch_size=train_batch_size), "train_batch_size")
    check_at_least_zero(dict(base_learning_rate=base_learning_rate), base_learning_rate="base_learning_rate")
    scaled_lr = base_learning_rate * train_batch_size / 256
    return _slim(None, scaled_lr, opt_epsilon=1e-3, weight_decay=weight_decay, moving_average_decay=moving_average_decay)


@preset(FusedRMSProp, "MobileNetV3", "tensorflow/models 07ed366")
def mobilenet_v3(
    params: ParamsT,
    learning_rate: float | Tensor = 0.16,
    rmsprop_decay: float = 0.9,
    rmsprop_momentum: float = 0.9,
    opt_epsilon: float = 0.002,
    weight_decay: float = 1e-5,
    moving_average_decay: float | None = 0.9999,
) -> dict[str, Any]:
    """The RMSProp of MobileNetV3, Howard et al. 2019: TensorFlow's, decay and momentum .9, epsilon .002, weight averages.

    Args:
        params: as of FusedRMSProp; only weights of convolutions and linear layers decay there.
        learning_rate: learning rate, of 1,536 images in a step.
        rmsprop_decay: decay of the square average.
        rmsprop_momentum: decay of the momentum buffer.
        opt_epsilon: added to the square average.
        weight_decay: L2 penalty.
        moving_average_decay: of the averages of weights, which warm up with the number of steps; None or 0 for none.

    Source: nets/mobilenet/README.md, train_image_classifier.py. The paper (arXiv:1905.02244) has a rate of .1 for 4,096 images, and
    no epsilon; its "decay rate of 0.01 every 3 epochs" is a factor of .99 there: :class:`fusedrms.schedules.ExponentialDecay` with
    decay_rate=0.99, decay_steps of 3 epochs, staircase=True and warmup_steps of 5 epochs.
    """
    averages = dict(moving_average_decay=moving_average_decay)
    return _slim(None, learning_rate, rmsprop_decay, rmsprop_momentum, opt_epsilon, weight_decay, **averages)


@preset(FusedRMSProp, "NASNet, AmoebaNet", "tensorflow/models 03cdc5f")
def nasnet(
    params: ParamsT,
    learning_rate: float | Tensor,
    rmsprop_decay: float = 0.9,
    rmsprop_momentum: float = 0.9,
    opt_epsilon: float = 1.0,
    weight_decay: float = 5e-5,
    moving_average_decay: float | None = 0.9999,
) -> dict[str, Any]:
    """The RMSProp of NASNet, Zoph et al. 2018, and of AmoebaNet: TensorFlow's, decay and momentum .9, epsilon 1, weight averages.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate; the code's comments have .015 for each 16 images of NASNet-A (large), AmoebaNet .64 for 256.
        rmsprop_decay, rmsprop_momentum, opt_epsilon, weight_decay, moving_average_decay: as of :func:`mobilenet_v3`; 4e-5 decays
            NASNet-A (mobile) and AmoebaNet.

    Source: nets/nasnet/nasnet.py, train_image_classifier.py; tensorflow/tpu, models/official/amoeba_net. The paper
    (arXiv:1707.07012) has decay and epsilon alone. Comments clip the norm of all gradients, penalty included, at 10, which the
    trainer cannot: ``clip_grad_norm`` of a parameter group clips it without. Schedule:
    :class:`fusedrms.schedules.ExponentialDecay` with decay_rate=0.97, decay_steps of 2.4 epochs and staircase=True.
    """
    averages = dict(moving_average_decay=moving_average_decay)
    return _slim(None, learning_rate, rmsprop_decay, rmsprop_momentum, opt_epsilon, weight_decay, **averages)
