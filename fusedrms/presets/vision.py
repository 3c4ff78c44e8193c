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
    r"""The RMSProp of EfficientNet (Tan and Le 2019) and of MnasNet: TensorFlow's, with momentum .9, epsilon 1e-3 and weight averages.

    $$
    \begin{aligned}
    \text{lr} &= \text{base\_learning\_rate} \cdot \frac{\text{train\_batch\_size}}{256} \\
    g &\leftarrow g + \text{weight\_decay} \cdot w \\
    v &\leftarrow 0.9 \cdot v + 0.1 \cdot g^2, \qquad v_0 = 1 \\
    b &\leftarrow 0.9 \cdot b + \frac{\text{lr} \cdot g}{\sqrt{v + 10^{-3}}} \\
    w &\leftarrow w - b \\
    \bar w &\leftarrow d \cdot \bar w + (1 - d) \cdot w, \qquad d = \min\left(\text{moving\_average\_decay},\ \frac{1 + t}{10 + t}\right)
    \end{aligned}
    $$

    $\bar w$ starts as $w$. `with optimizer.averaged():` puts it in place of the parameters.

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        base_learning_rate: Learning rate for each 256 images of a batch, a number. Default 0.016.
        moving_average_decay: Decay of the average $\bar w$ of the parameters, per step, limited by $\frac{1 + t}{10 + t}$ at step $t$;
            None or 0 for no average. Default 0.9999.
        weight_decay: L2 penalty added to the gradient. Default 1e-5.
        train_batch_size: Images in a step. Default 2048.

    Raises:
        ValueError: `train_batch_size` is not above 0, or `base_learning_rate` is below 0.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.efficientnet(params, train_batch_size=256)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9917, 0.9917, 0.9917])

    Source: tensorflow/tpu 7dc921f, `models/official/efficientnet`, `main.py` and `utils.py`. The paper's rate of .256 is for 4,096
    images, the code's batch has 2,048; epsilon and the warm-up are in the code alone. Batch norm's parameters do not decay there: use a
    parameter group with `weight_decay=0`.

    Schedule: [`ExponentialDecay`][fusedrms.schedules.ExponentialDecay] with `decay_rate=0.97`, `decay_steps` of 2.4 epochs,
    `staircase=True` and `warmup_steps` of 5 epochs.
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
    r"""The RMSProp of MobileNetV3 (Howard et al. 2019): TensorFlow's, with momentum .9, epsilon .002 and weight averages.

    $$
    \begin{aligned}
    g &\leftarrow g + \text{weight\_decay} \cdot w \\
    v &\leftarrow \text{rmsprop\_decay} \cdot v + (1 - \text{rmsprop\_decay}) \cdot g^2, \qquad v_0 = 1 \\
    b &\leftarrow \text{rmsprop\_momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v + \text{opt\_epsilon}}} \\
    w &\leftarrow w - b \\
    \bar w &\leftarrow d \cdot \bar w + (1 - d) \cdot w, \qquad d = \min\left(\text{moving\_average\_decay},\ \frac{1 + t}{10 + t}\right)
    \end{aligned}
    $$

    $\bar w$ starts as $w$. `with optimizer.averaged():` puts it in place of the parameters.

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor, for 1,536 images in a step. Default 0.16.
        rmsprop_decay: Decay of the average of squares $v$, per step. Default 0.9.
        rmsprop_momentum: Decay of the momentum buffer $b$, per step. Default 0.9.
        opt_epsilon: Added to the square average, in the square of the gradient's unit. Default 0.002.
        weight_decay: L2 penalty added to the gradient. Default 1e-5.
        moving_average_decay: Decay of the average $\bar w$ of the parameters, per step, limited by $\frac{1 + t}{10 + t}$ at step $t$;
            None or 0 for no average. Default 0.9999.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.mobilenet_v3(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9169, 0.9169, 0.9169])

    Source: tensorflow/models 07ed366, `nets/mobilenet/README.md`, `train_image_classifier.py`. The paper (arXiv:1905.02244) has a rate of
    .1 for 4,096 images, and no epsilon; its "decay rate of 0.01 every 3 epochs" is a factor of .99 there. Only weights of convolutions
    and linear layers decay there: for the others, use a parameter group with `weight_decay=0`.

    Schedule: [`ExponentialDecay`][fusedrms.schedules.ExponentialDecay] with `decay_rate=0.99`, `decay_steps` of 3 epochs,
    `staircase=True` and `warmup_steps` of 5 epochs.
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
    r"""The RMSProp of NASNet (Zoph et al. 2018) and of AmoebaNet: TensorFlow's, with momentum .9, epsilon 1 and weight averages.

    $$
    \begin{aligned}
    g &\leftarrow g + \text{weight\_decay} \cdot w \\
    v &\leftarrow \text{rmsprop\_decay} \cdot v + (1 - \text{rmsprop\_decay}) \cdot g^2, \qquad v_0 = 1 \\
    b &\leftarrow \text{rmsprop\_momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v + \text{opt\_epsilon}}} \\
    w &\leftarrow w - b \\
    \bar w &\leftarrow d \cdot \bar w + (1 - d) \cdot w, \qquad d = \min\left(\text{moving\_average\_decay},\ \frac{1 + t}{10 + t}\right)
    \end{aligned}
    $$

    $\bar w$ starts as $w$. `with optimizer.averaged():` puts it in place of the parameters.

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor; the code's comments have .015 for each 16 images of NASNet-A
            (large), AmoebaNet .64 for 256. Required.
        rmsprop_decay: Decay of the average of squares $v$, per step. Default 0.9.
        rmsprop_momentum: Decay of the momentum buffer $b$, per step. Default 0.9.
        opt_epsilon: Added to the square average, in the square of the gradient's unit. Default 1.0.
        weight_decay: L2 penalty added to the gradient; NASNet-A (mobile) and AmoebaNet have 4e-5. Default 5e-5.
        moving_average_decay: Decay of the average $\bar w$ of the parameters, per step, limited by $\frac{1 + t}{10 + t}$ at step $t$;
            None or 0 for no average. Default 0.9999.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.nasnet(params, 0.015)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9946, 0.9946, 0.9946])

    Source: tensorflow/models 03cdc5f, `nets/nasnet/nasnet.py`, `train_image_classifier.py`; tensorflow/tpu, `models/official/amoeba_net`.
    The paper (arXiv:1707.07012) has decay and epsilon alone. Comments clip the norm of all gradients, penalty included, at 10, which the
    trainer cannot: `clip_grad_norm` of a parameter group clips it without. Only weights of convolutions and linear layers decay there:
    for the others, use a parameter group with `weight_decay=0`.

    Schedule: [`ExponentialDecay`][fusedrms.schedules.ExponentialDecay] with `decay_rate=0.97`, `decay_steps` of 2.4 epochs and
    `staircase=True`.
    """
    averages = dict(moving_average_decay=moving_average_decay)
    return _slim(None, learning_rate, rmsprop_decay, rmsprop_momentum, opt_epsilon, weight_decay, **averages)
