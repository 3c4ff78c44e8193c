"""Keras 3."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..rmsprop import FusedRMSProp
from .preset import positive_or_none, preset


@preset(FusedRMSProp)
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
    limits = dict(clipnorm=clipnorm, clipvalue=clipvalue, global_clipnorm=global_clipnorm)
    given = [f"{name}={value}" for name, value in limits.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: Keras takes only one of {', '.join(limits)}; set the others to None")
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
        clip_grad_value=positive_or_none(clipvalue),
        clip_grad_norm=positive_or_none(clipnorm if global_clipnorm is None else global_clipnorm),
        clip_norm_over="optimizer" if clipnorm is None else "parameter",
    )
