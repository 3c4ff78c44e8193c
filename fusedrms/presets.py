"""Optimizers of other systems, by their own argument names, order and defaults.

Each function returns an optimizer that computes what the code of that system computes, which is not always what its
documentation says. Parameter groups that are passed to it, or added later, may have that system's names too, and are converted
like the arguments; ``param_groups`` and errors have the names of the class returned. Everything else is that of the class:
schedulers, checkpoints. Gradients are dL/dw, as autograd leaves them. A centered variance that rounding has made negative counts
as 0, where the sources may give NaN.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from .engine.naming import Source, check_keywords
from .engine.optimizer import FusedOptimizer
from .engine.options import check_flags, check_positive
from .rmsprop import FusedRMSProp, FusedRMSPropGraves
from .smorms3 import FusedSMORMS3

_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made", bound=FusedOptimizer)


def _makes(optimizer: type[_Made]) -> Callable[[Callable[_Arguments, dict[str, Any]]], Callable[_Arguments, _Made]]:
    """Of a function from another system's arguments to the options of a class here, the function that makes the optimizer.

    Parameter groups, those that are added later too, may have the arguments' names and are translated by the same function.
    """

    def decorate(options: Callable[_Arguments, dict[str, Any]]) -> Callable[_Arguments, _Made]:
        signature = inspect.signature(options)

        @wraps(options)
        def make(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Made:
            check_keywords(f"{options.__name__}()", kwargs, signature.parameters)
            try:
                arguments = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                raise TypeError(f"{options.__name__}() {error}") from None
            params = arguments.pop("params")
            source = Source(make, arguments)
            made = optimizer.__new__(optimizer)
            made._source = source  # before its groups are added
            made.__init__(params, **source.options())
            return made

        make.__signature__ = signature.replace(return_annotation=optimizer)  # pyright: ignore[reportAttributeAccessIssue]
        make.__annotations__ = {**options.__annotations__, "return": optimizer}
        return make

    return decorate


def _positive(limit: float | None) -> float | None:
    """A limit that is off at 0 and below; the class checks what is no number."""
    return None if isinstance(limit, int | float) and limit <= 0 else limit


def _magnitude(limit: float | None) -> float | None:
    """A limit that is off at 0, and whose sign does not matter; likewise."""
    return (abs(limit) or None) if isinstance(limit, int | float) else limit


def _master(multi_precision: bool) -> str | None:
    check_flags(dict(multi_precision=multi_precision), "multi_precision")
    return "float32" if multi_precision else None


@_makes(FusedRMSPropGraves)
def graves2013(params: ParamsT) -> dict[str, Any]:
    """The optimizer of Graves, arXiv:1308.0850, with his numbers: decay .95, momentum .9, rate 1e-4, epsilon 1e-4.

    Args:
        params: as of FusedRMSProp.

    Source: equations 38-45. His clipping of derivatives inside of the network is no part of it.
    """
    return {}


@_makes(FusedRMSProp)
def puzzlelib_rmsprop(params: ParamsT, learnRate: float = 1e-3, factor: float = 0.9, epsilon: float = 1e-5) -> dict[str, Any]:
    """PuzzleLib's RMSProp: epsilon outside of the root.

    Args:
        params: as of FusedRMSProp.
        learnRate: learning rate.
        factor: decay of the square average.
        epsilon: added to the root.

    Source: PuzzleLib, Optimizers/RMSProp.py. Its gradients are -dL/dw, so its code adds what is subtracted here.
    """
    return dict(lr=learnRate, alpha=factor, eps=epsilon)


@_makes(FusedRMSPropGraves)
def puzzlelib_rmsprop_graves(
    params: ParamsT, learnRate: float = 1e-4, alpha: float = 0.95, momRate: float = 0.9, epsilon: float = 1e-4
) -> dict[str, Any]:
    """PuzzleLib's RMSPropGraves: centered, epsilon inside of the root, the rate inside of the momentum.

    Args:
        params: as of FusedRMSProp.
        learnRate: learning rate.
        alpha: decay of both averages.
        momRate: decay of the momentum buffer.
        epsilon: added to the variance.

    Source: PuzzleLib, Optimizers/RMSPropGraves.py. Its documentation swaps the two averages below the root: the code computes
    sqrt(E[g²] - E[g]² + epsilon). Its buffer has the opposite sign of ``momentum_buffer``.
    """
    return dict(lr=learnRate, alpha=alpha, momentum=momRate, eps=epsilon)


@_makes(FusedSMORMS3)
def puzzlelib_smorms3(params: ParamsT, learnRate: float = 1e-3, epsilon: float = 1e-16) -> dict[str, Any]:
    """PuzzleLib's SMORMS3.

    Args:
        params: as of FusedRMSProp.
        learnRate: the largest learning rate.
        epsilon: added to the square average and to its root.

    Source: PuzzleLib, Optimizers/SMORMS3.py. Its documentation swaps r and 1 - r, puts epsilon inside of the last root, and
    gives 1e-5 as its default; the code does none of this.
    """
    return dict(lr=learnRate, eps=epsilon)


@_makes(FusedRMSProp)
def mxnet_rmsprop(
    params: ParamsT,
    learning_rate: float = 0.001,
    gamma1: float = 0.9,
    gamma2: float = 0.9,
    epsilon: float = 1e-8,
    centered: bool = False,
    clip_weights: float | None = None,
    *,
    wd: float = 0.0,
    rescale_grad: float = 1.0,
    clip_gradient: float | None = None,
    multi_precision: bool = False,
) -> dict[str, Any]:
    """MXNet 1's RMSProp: epsilon inside of the root; Graves' rule, with momentum, if centered.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        gamma1: decay of the averages.
        gamma2: decay of the momentum buffer, if centered; else without effect.
        epsilon: added to the square average, or to the variance.
        centered: Graves' rule.
        clip_weights: limit of the parameters' magnitude after the step; None, 0 or less for none.
        wd: L2 penalty.
        rescale_grad: the gradient is multiplied by it first; MXNet's Trainer sets it to 1 / batch size.
        clip_gradient: limit of the gradient with wd * w already in it; None, 0 or less for none.
        multi_precision: keep a float32 master of 16-bit parameters, as ``master_weights="float32"``.

    Source: MXNet 1.x, src/operator/optimizer_op-inl.h. Not carried over: wd_mult, by which MXNet takes wd to be 0 for
    parameters whose names end in neither _weight nor _gamma; use a parameter group with weight_decay=0 for them.
    """
    return dict(
        lr=learning_rate,
        alpha=gamma1,
        eps=epsilon,
        weight_decay=wd,
        momentum=gamma2 if centered else 0.0,
        centered=centered,
        eps_placement="inside",
        lr_in_momentum=True,
        rescale_grad=rescale_grad,
        clip_grad_value=_positive(clip_gradient),
        clip_after_decay=True,
        clip_weights=_positive(clip_weights),
        master_weights=_master(multi_precision),
    )


@_makes(FusedRMSProp)
def mxnet2_rmsprop(
    params: ParamsT,
    learning_rate: float = 0.001,
    rho: float = 0.9,
    momentum: float = 0.9,
    epsilon: float = 1e-8,
    centered: bool = False,
    clip_weights: float | None = None,
    *,
    wd: float = 0.0,
    rescale_grad: float = 1.0,
    clip_gradient: float | None = None,
    multi_precision: bool = False,
) -> dict[str, Any]:
    """MXNet 2's RMSProp: epsilon outside of the root; Graves' rule, epsilon inside and with momentum, if centered.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        rho: decay of the averages.
        momentum: decay of the momentum buffer, if centered; else without effect.
        epsilon: added to the root, or to the variance if centered.
        centered: Graves' rule.
        clip_weights: limit of the parameters' magnitude after the step; None, 0 or less for none.
        wd: L2 penalty.
        rescale_grad: the gradient is multiplied by it first.
        clip_gradient: limit of the gradient before wd * w is added, unlike MXNet 1; None, 0 or less for none.
        multi_precision: as of :func:`mxnet_rmsprop`.

    Source: MXNet 2.x, python/mxnet/optimizer/rmsprop.py. Not carried over: use_fused_step; wd_mult, as in :func:`mxnet_rmsprop`.
    """
    return dict(
        lr=learning_rate,
        alpha=rho,
        eps=epsilon,
        weight_decay=wd,
        momentum=momentum if centered else 0.0,
        centered=centered,
        eps_placement="inside" if centered else "outside",
        lr_in_momentum=True,
        rescale_grad=rescale_grad,
        clip_grad_value=_positive(clip_gradient),
        clip_weights=_positive(clip_weights),
        master_weights=_master(multi_precision),
    )


@_makes(FusedRMSProp)
def neon_rmsprop(
    params: ParamsT,
    stochastic_round: bool = False,
    decay_rate: float = 0.95,
    learning_rate: float = 0.002,
    epsilon: float = 1e-6,
    gradient_clip_norm: float | None = None,
    gradient_clip_value: float | None = None,
    param_clip_value: float | None = None,
    *,
    batch_size: int = 1,
) -> dict[str, Any]:
    """neon's RMSProp: epsilon inside of the root and outside; the norm limits the update, not what is averaged.

    Args:
        params: as of FusedRMSProp.
        stochastic_round: round 16-bit parameters stochastically, to the bits that they have; neon's number of bits is not supported.
        decay_rate: decay of the square average.
        learning_rate: learning rate.
        epsilon: added to the square average and to its root.
        gradient_clip_norm: limit of the L2 norm of all gradients, before they are clipped by value; it scales the update alone.
            None or 0 for none.
        gradient_clip_value: limit of the gradient's magnitude, its sign ignored; None or 0 for none.
        param_clip_value: limit of the parameters' magnitude after the step, likewise.
        batch_size: what gradients are divided by: neon's are sums over a batch, torch's mean losses need 1.

    Raises:
        ValueError: stochastic_round is neither True nor False.

    Source: neon, neon/optimizers/optimizer.py. Its documentation calls the norm a root mean squared average; the code computes
    the plain L2 norm. Schedules are in :mod:`fusedrms.schedules`.
    """
    check_flags(dict(stochastic_round=stochastic_round), "stochastic_round")
    check_positive(dict(batch_size=batch_size), "batch_size")
    return dict(
        lr=learning_rate,
        alpha=decay_rate,
        eps=epsilon,
        eps_placement="both",
        rescale_grad=1 / batch_size,
        clip_grad_value=_magnitude(gradient_clip_value),
        clip_grad_norm=None if gradient_clip_norm == 0 else gradient_clip_norm,
        clip_norm_on="update",
        clip_weights=_magnitude(param_clip_value),
        stochastic_rounding=stochastic_round,
    )


@_makes(FusedRMSProp)
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


@_makes(FusedRMSProp)
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
        clip_grad_value=_positive(clipvalue),
        clip_grad_norm=_positive(clipnorm if global_clipnorm is None else global_clipnorm),
        clip_norm_over="optimizer" if clipnorm is None else "parameter",
    )


@_makes(FusedRMSProp)
def timm_rmsprop_tf(
    params: ParamsT,
    lr: float | Tensor = 1e-2,
    alpha: float = 0.9,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    decoupled_decay: bool = False,
    lr_in_momentum: bool = True,
) -> dict[str, Any]:
    """timm's RMSpropTF: epsilon inside of the root, square averages from 1.

    Args:
        params: as of FusedRMSProp.
        lr: learning rate.
        alpha: decay of the averages.
        eps: added to the square average, or to the variance.
        weight_decay: L2 penalty, or decoupled.
        momentum: decay of the momentum buffer.
        centered: divide by the standard deviation.
        decoupled_decay: w = w * (1 - lr * weight_decay) before the step.
        lr_in_momentum: the buffer holds updates already multiplied by lr.

    Source: timm, timm/optim/rmsprop_tf.py; what EfficientNet, MobileNet and stable-baselines3 train with. Not carried over:
    caution and corrected_weight_decay, which later versions have.
    """
    return dict(
        lr=lr,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
        centered=centered,
        eps_placement="inside",
        lr_in_momentum=lr_in_momentum,
        decoupled_weight_decay=decoupled_decay,
        initial_square_avg=1.0,
    )


@_makes(FusedRMSProp)
def optax_rmsprop(
    params: ParamsT,
    learning_rate: float | Tensor,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> dict[str, Any]:
    """optax.rmsprop: the rate inside of the momentum.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate, a number; a schedule is an LRScheduler here.
        decay: decay of the averages.
        eps: added to the square average (the variance), or to its root.
        initial_scale: what the square average starts from.
        eps_in_sqrt: eps inside of the root.
        centered: divide by the standard deviation.
        momentum: decay of the momentum buffer; None for none.
        nesterov: look one update ahead; without effect if there is no momentum, as in optax.
        bias_correction: divide the averages by 1 - decay**step.

    Source: optax/_src/alias.py and transform.py.
    """
    check_flags(dict(eps_in_sqrt=eps_in_sqrt), "eps_in_sqrt")
    return dict(
        lr=learning_rate,
        alpha=decay,
        eps=eps,
        momentum=0.0 if momentum is None else momentum,
        centered=centered,
        eps_placement="inside" if eps_in_sqrt else "outside",
        lr_in_momentum=True,
        nesterov=nesterov if momentum else False,
        initial_square_avg=initial_scale,
        bias_correction=bias_correction,
    )
