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
    r"""Keras 3's RMSprop: epsilon inside the root, the learning rate inside the momentum, decoupled weight decay.

    $$
    \begin{aligned}
    w &\leftarrow w - \text{weight\_decay} \cdot \text{learning\_rate} \cdot w \\
    v &\leftarrow \rho \cdot v + (1 - \rho) \cdot g^2 \\
    m &\leftarrow \rho \cdot m + (1 - \rho) \cdot g \qquad \text{if centered, else } m = 0 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2 + \epsilon}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Gradients are clipped before all of this.

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor. Default 0.001.
        rho: $\rho$, decay of the averages $v$ and $m$, per step. Default 0.9.
        momentum: Decay of the momentum buffer $b$, per step; 0 for no buffer. Default 0.0.
        epsilon: $\epsilon$, added to the square average, or to the variance, in the square of the gradient's unit. Default 1e-7.
        centered: Divide by the standard deviation of the gradient instead of its root mean square. Default False.
        weight_decay: Decoupled weight decay; None for none. Default None.
        clipnorm: Limit of the L2 norm of each parameter's gradient by itself, in the gradient's unit; None, 0 or less for none. Default
            None.
        clipvalue: Limit of each element's magnitude in the gradient, in the gradient's unit; None, 0 or less for none. Default None.
        global_clipnorm: Limit of the L2 norm of all gradients together, in the gradient's unit; None, 0 or less for none. Default None.

    Raises:
        ValueError: More than one of the three limits is given, as in Keras.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.keras_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9968, 0.9968, 0.9968])

    Source: Keras 3.15.1, `keras/src/optimizers/rmsprop.py` and `base_optimizer.py`.

    Not carried over: `use_ema`, `loss_scale_factor`, `gradient_accumulation_steps`; `exclude_from_weight_decay`, for which you use a
    parameter group with `weight_decay=0`.
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
    r"""The RMSprop of tf.keras up to TensorFlow 2.10: epsilon outside the root without momentum, inside the root with momentum.

    Without momentum:

    $$
    \begin{aligned}
    v &\leftarrow \rho \cdot v + (1 - \rho) \cdot g^2 \\
    m &\leftarrow \rho \cdot m + (1 - \rho) \cdot g \qquad \text{if centered, else } m = 0 \\
    w &\leftarrow w - \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2} + \epsilon}
    \end{aligned}
    $$

    and with momentum > 0

    $$
    \begin{aligned}
    v &\leftarrow \rho \cdot v + (1 - \rho) \cdot g^2 \\
    m &\leftarrow \rho \cdot m + (1 - \rho) \cdot g \qquad \text{if centered, else } m = 0 \\
    b &\leftarrow \text{momentum} \cdot b + \frac{\text{learning\_rate} \cdot g}{\sqrt{v - m^2 + \epsilon}} \\
    w &\leftarrow w - b
    \end{aligned}
    $$

    Gradients are clipped before all of this.

    Args:
        params: Parameters, named parameters, or parameter groups, whose options may have the names below.
        learning_rate: Learning rate, a number or a 1-element tensor. Default 0.001.
        rho: $\rho$, decay of the averages $v$ and $m$, per step. Default 0.9.
        momentum: Decay of the momentum buffer $b$, per step; more than 0 moves epsilon inside the root. Default 0.0.
        epsilon: $\epsilon$, added to the root, in the gradient's unit, or to what is below it, in its square; 0 and None are 1e-7, as
            there. Default 1e-7.
        centered: Divide by the standard deviation of the gradient instead of its root mean square. Default False.
        clipnorm: Limit of the L2 norm of each parameter's gradient by itself, after `clipvalue`, in the gradient's unit, above 0; None
            for none. Default None.
        clipvalue: Limit of each element's magnitude in the gradient, in the gradient's unit, above 0; None for none. Default None.
        global_clipnorm: Limit of the L2 norm of all gradients together, after `clipvalue`, in the gradient's unit, above 0; None for
            none. Default None.

    Raises:
        ValueError: Both `clipnorm` and `global_clipnorm` are given, as in tf.keras; or a limit is 0, which makes all gradients 0 there.

    Examples:
        >>> params = [torch.nn.Parameter(torch.ones(3))]
        >>> optimizer = presets.keras2_rmsprop(params)
        >>> params[0].grad = torch.full((3,), 0.5)
        >>> optimizer.step()
        >>> params[0].data
        tensor([0.9968, 0.9968, 0.9968])

    Source: Keras 2.15.0, `keras/src/optimizers/legacy/rmsprop.py` and `optimizer_v2.py`. What its documentation says of epsilon holds
    with momentum alone. From TensorFlow 2.11 on, tf.keras has the rule of [`keras_rmsprop`][fusedrms.presets.keras_rmsprop].

    Not carried over: `decay`, which is `schedules.ExpSchedule(optimizer, decay)`, called after every step; sparse updates.
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
