"""Keras 3, and tf.keras before it."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import positive_or_none, preset


def _check_one_of(**limits: float | None) -> None:
    given = [f"{name}={value}" for name, value in limits.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: Keras takes only one of {', '.join(limits)}; set the others to None")


def _limits(clipnorm: float | None, clipvalue: float | None, global_clipnorm: float | None) -> dict[str, Any]:
    return dict(
        clip_grad_value=clipvalue,
        clip_grad_norm=clipnorm if global_clipnorm is None else global_clipnorm,
        clip_norm_over="optimizer" if clipnorm is None else "parameter",
    )


@preset(FusedRMSProp, "Keras", "3.15.1")
def keras_rmsprop(
    params: ParamsT,
    learning_rate: float | Tensor = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    centered: bool = False,
    weight_decay: float | None = None,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> dict[str, Any]:
    """Keras 3's RMSprop: epsilon inside of the root, the rate inside of the momentum, decoupled weight decay.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        rho: decay of the averages.
        momentum: decay of the momentum buffer.
        epsilon: added to the square average, or to the variance.
        centered: divide by the standard deviation.
        weight_decay: w = w - weight_decay * learning_rate * w before the step; None for none.
        clipnorm: limit of the L2 norm of each gradient by itself; None, 0 or less for none.
        clipvalue: limit of the gradient's magnitude, likewise.
        global_clipnorm: limit of the L2 norm of all gradients together, likewise.

    Raises:
        ValueError: more than one of the three limits, as in Keras.

    Source: Keras 3, keras/src/optimizers/rmsprop.py and base_optimizer.py. Not carried over: use_ema, loss_scale_factor,
    gradient_accumulation_steps, exclude_from_weight_decay (use a parameter group with weight_decay=0).
    """
    _check_one_of(clipnorm=clipnorm, clipvalue=clipvalue, global_clipnorm=global_clipnorm)
    return dict(
        lr=learning_rate,
        alpha=rho,
        eps=epsilon,
        weight_decay=0.0 if weight_decay is None else weight_decay,
        momentum=momentum,
        centered=centered,
        eps_placement="inside",
        lr_in_momentum=True,
        decoupled_weight_decay=True,
        **_limits(positive_or_none(clipnorm), positive_or_none(clipvalue), positive_or_none(global_clipnorm)),
    )


@preset(FusedRMSProp, "tf.keras 2, legacy", "2.15.0")
def keras2_rmsprop(
    params: ParamsT,
    learning_rate: float | Tensor = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float | None = 1e-7,
    centered: bool = False,
    *,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> dict[str, Any]:
    """The RMSprop of tf.keras up to TensorFlow 2.10: epsilon outside of the root without momentum, inside of it with momentum.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        rho: decay of the averages.
        momentum: decay of the momentum buffer, the rate inside; more than 0 moves epsilon.
        epsilon: added to the root, or to the square average (the variance); 0 and None are 1e-7, as there.
        centered: divide by the standard deviation.
        clipnorm: limit of the L2 norm of each gradient by itself, after clipvalue, above 0; None for none.
        clipvalue: limit of the gradient's magnitude, likewise.
        global_clipnorm: limit of the L2 norm of all gradients together, likewise.

    Raises:
        ValueError: clipnorm and global_clipnorm, as in tf.keras; a limit of 0, which makes all gradients 0 there.

    Source: Keras 2.15, keras/src/optimizers/legacy/rmsprop.py and optimizer_v2.py; what its documentation says of epsilon holds
    with momentum alone. From TensorFlow 2.11 on tf.keras has the rule of :func:`keras_rmsprop`. Not carried over: ``decay``, which
    is ``schedules.ExpSchedule(optimizer, decay)``, called after every step; sparse updates.
    """
    _check_one_of(clipnorm=clipnorm, global_clipnorm=global_clipnorm)
    with_momentum = isinstance(momentum, Tensor) or (isinstance(momentum, int | float) and momentum > 0)
    return dict(
        lr=learning_rate,
        alpha=rho,
        eps=epsilon or 1e-7,
        momentum=momentum,
        centered=centered,
        eps_placement="inside" if with_momentum else "outside",
        lr_in_momentum=True,
        **_limits(clipnorm, clipvalue, global_clipnorm),
    )
