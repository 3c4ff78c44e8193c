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
    r"""TensorFlow 1's RMSPropOptimizer: epsilon inside the root, the learning rate inside the momentum, square averages start from 1.

    $$
    \begin{aligned}
    v &\leftarrow \text{decay} \cdot v + (1 - \text{decay}) \cdot g^2, \qquad v_0 = 1 \\
    m &\leftarrow \text{decay} \cdot m + (1 - \text{decay}) \cdot g \qquad \text{if centered, else } m = 0 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2 + \epsilon}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor. Required.
        decay: Decay of the averages $v$ and $m$, per step. Default 0.9.
        momentum: Decay of the momentum buffer $b$, per step; 0 for no buffer. Default 0.0.
        epsilon: $\epsilon$, added to the square average, or to the variance, in the square of the gradient's unit. Default 1e-10.
        centered: Divide by the standard deviation of the gradient instead of its root mean square. Default False.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.tensorflow_rmsprop(params, 0.001)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9995, 0.9995, 0.9995])

    Source: tf.compat.v1 of TensorFlow 2.15.1, `tf.compat.v1.train.RMSPropOptimizer`, `core/kernels/training_ops.cc`. Reinforcement
    learning papers (IMPALA: decay .99, epsilon .1) owe their epsilon to its place here.

    Not carried over: `use_locking`, which stands before `centered` there; sparse updates, which leave the averages of other rows as they
    are.
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
    r"""The RMSProp of TF-Slim's train_image_classifier.py: TensorFlow's, with momentum .9 and epsilon 1.

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
        learning_rate: Learning rate, a number or a 1-element tensor. Default 0.01.
        rmsprop_decay: Decay of the average of squares $v$, per step. Default 0.9.
        rmsprop_momentum: Decay of the momentum buffer $b$, per step. Default 0.9.
        opt_epsilon: Added to the square average, in the square of the gradient's unit. Default 1.0.
        weight_decay: L2 penalty added to the gradient. Default 0.00004.
        moving_average_decay: Decay of the average $\bar w$ of the parameters, per step, limited by $\frac{1 + t}{10 + t}$ at step $t$;
            None or 0 for no average. Default None.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.tf_slim_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9964, 0.9964, 0.9964])

    Source: tensorflow/models 07ed366, `train_image_classifier.py`, by its flags. Its help has `momentum` for RMSProp, too; the code takes
    `rmsprop_momentum`. Only weights of convolutions and linear layers decay there: for the others, use a parameter group with
    `weight_decay=0`.

    Schedule: [`ExponentialDecay`][fusedrms.schedules.ExponentialDecay] with `decay_rate=0.94`, `decay_steps` of 2 epochs and
    `staircase=True`.
    """
    average = moving_average_decay or None
    averages = dict(ema_decay=average, ema_warmup=average is not None)
    return tensorflow_options(learning_rate, rmsprop_decay, rmsprop_momentum, opt_epsilon) | dict(weight_decay=weight_decay) | averages
