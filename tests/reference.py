"""The rules in float64 NumPy, written from their papers; never imports the package.

Each returns, beside the new values, the size that a relative rounding error of its operations acts on: the sum of the
magnitudes that enter a value, however much of them cancels.
"""

import numpy as np


def clip(x, limit):
    return x if limit is None else np.clip(x, -limit, limit)


def factor(norm, limit):
    return 1.0 if limit in (None, np.inf) else limit / max(norm, limit)


def normed(
    grad,
    *,
    rescale_grad=1.0,
    clip_grad_value=None,
    clip_after_decay=False,
    clip_grad_norm=None,
    clip_norm_on="gradient",
    skip_nonfinite=False,
    skip_above=None,
    **_,
):
    """What the L2 norm is taken of: where it only looks for infinities and spikes, which clipping would hide, of all there is."""
    grad = rescale_grad * grad
    only_looks = (skip_nonfinite or skip_above is not None) and clip_grad_norm in (None, np.inf)
    return grad if clip_after_decay or clip_norm_on == "update" or only_looks else clip(grad, clip_grad_value)


def gradient(
    param,
    grad,
    norm,
    *,
    maximize=False,
    rescale_grad=1.0,
    clip_grad_value=None,
    clip_after_decay=False,
    clip_grad_norm=None,
    clip_norm_on="gradient",
    weight_decay=0.0,
    decoupled_weight_decay=False,
    **_,
):
    """What enters the averages, and its size."""
    grad = clip((-rescale_grad if maximize else rescale_grad) * grad, None if clip_after_decay else clip_grad_value)
    if clip_norm_on == "gradient":
        grad = grad * factor(norm, clip_grad_norm)
    decay = 0.0 if decoupled_weight_decay else weight_decay * param
    size = np.abs(grad) + np.abs(decay)
    return clip(grad + decay, clip_grad_value if clip_after_decay else None), size


def cautious(update, size, grad, grad_size):
    """An update where it has the gradient's sign, larger by as much as others are left out, and its size."""
    agrees = update * grad > 0
    boost = 1 / max(agrees.mean(), 1e-3) if agrees.size else 1.0
    unsure = np.abs(grad) <= 2.0**-20 * grad_size  # rounding decides: anything may be, and each counts for or against all
    of_all = unsure.sum() * boost / max(1, agrees.size)
    return update * agrees * boost, np.where(unsure, np.inf, boost * size) + 2.0**24 * of_all * np.abs(update * boost)


def applied(
    param,
    update,
    update_size,
    *,
    lr,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    corrected_weight_decay=False,
    max_lr_snapshot=None,
    clip_weights=None,
    **_,
):
    """The new parameter, and its size."""
    shrink = lr * weight_decay if decoupled_weight_decay else 0.0
    shrink *= lr / max_lr_snapshot if corrected_weight_decay else 1.0
    new = clip((1 - shrink) * param - update, clip_weights)
    return new, (1 + shrink) * np.abs(param) + update_size


def average(new, sizes, state, step, *, ema_decay=None, ema_warmup=False, **_):
    """Add the parameter's average to what is new."""
    if ema_decay is not None:
        decay = min(ema_decay, (1 + step) / (10 + step)) if ema_warmup else ema_decay
        new["param_ema"] = decay * state["param_ema"] + (1 - decay) * new["param"]
        sizes["param_ema"] = np.abs(state["param_ema"]) + sizes["param"]


def lost(result, size):
    """Digits that cancellation has cost a positive result, as a factor of its error."""
    return np.divide(size, result, out=np.ones_like(result), where=result > 0)


def rmsprop(param, grad, state, norm=0.0, step=1, **options):
    """One step of the family around torch.optim.RMSprop, a centered variance clamped at 0.

    Args:
        param, grad: float64 arrays.
        state: square_avg, and grad_avg, momentum_buffer and param_ema where the options ask for them; float64 arrays.
        norm: the L2 norm that clip_grad_norm limits.
        step: the steps with this one.
        options: of FusedRMSProp.

    Returns:
        New values and error sizes, each a dict of param and the states.
    """
    lr, alpha, eps, momentum = (options[key] for key in ("lr", "alpha", "eps", "momentum"))
    inside = eps if options.get("eps_placement", "outside") in ("inside", "both") else 0.0
    outside = eps if options.get("eps_placement", "outside") in ("outside", "both") else 0.0
    floor = eps if options.get("eps_placement") == "floor" else 0.0
    unbias = 1 / (1 - alpha**step) if options.get("bias_correction") else 1.0
    grad, size = gradient(param, grad, norm, **options)
    new, sizes = {}, {}
    new["square_avg"] = alpha * state["square_avg"] + (1 - alpha) * grad**2
    sizes["square_avg"] = alpha * state["square_avg"] + (1 - alpha) * size**2
    variance, variance_size = unbias * new["square_avg"], unbias * sizes["square_avg"]
    if options["centered"]:
        new["grad_avg"] = alpha * state["grad_avg"] + (1 - alpha) * grad
        sizes["grad_avg"] = alpha * np.abs(state["grad_avg"]) + (1 - alpha) * size
        variance = np.maximum(variance - (unbias * new["grad_avg"]) ** 2, 0)
        variance_size = variance_size + (unbias * sizes["grad_avg"]) ** 2
    root = np.maximum(np.sqrt(variance + inside) + outside, floor)
    rate = lr * factor(norm, options.get("clip_grad_norm")) if options.get("clip_norm_on") == "update" else lr
    before, after = (rate, 1.0) if options.get("lr_in_momentum") else (1.0, rate)
    update = before * grad / root
    update_size = before * size / root + np.abs(update) * lost(variance + inside, variance_size)
    if momentum > 0:
        new["momentum_buffer"] = buffer = momentum * state["momentum_buffer"] + update
        sizes["momentum_buffer"] = buffer_size = momentum * np.abs(state["momentum_buffer"]) + update_size
        if options.get("nesterov"):
            update, update_size = update + momentum * buffer, update_size + momentum * buffer_size
        else:
            update, update_size = buffer, buffer_size
        if options.get("caution"):
            update, update_size = cautious(update, update_size, grad, size)
    new["param"], sizes["param"] = applied(param, after * update, after * update_size, **options)
    average(new, sizes, state, step, **options)
    return new, sizes


def smorms3(param, grad, state, norm=0.0, step=1, **options):
    """One step of SMORMS3; arguments as of rmsprop, states square_avg, grad_avg and mem."""
    lr, eps = options["lr"], options["eps"]
    grad, size = gradient(param, grad, norm, **options)
    new, sizes = {}, {}
    r = 1 / (state["mem"] + 1)
    new["square_avg"] = (1 - r) * state["square_avg"] + r * grad**2
    sizes["square_avg"] = (1 - r) * state["square_avg"] + r * size**2
    new["grad_avg"] = (1 - r) * state["grad_avg"] + r * grad
    sizes["grad_avg"] = (1 - r) * np.abs(state["grad_avg"]) + r * size
    damped = new["square_avg"] + eps
    signal = new["grad_avg"] ** 2 / damped
    signal_size = np.abs(new["grad_avg"]) * sizes["grad_avg"] / damped + signal * lost(damped, sizes["square_avg"] + eps)
    root = np.sqrt(new["square_avg"]) + eps
    update = grad * np.minimum(lr, signal) / root
    update_size = size * np.minimum(lr, signal_size) / root + np.abs(update) * lost(new["square_avg"], sizes["square_avg"])
    new["mem"] = 1 + state["mem"] * (1 - signal)
    sizes["mem"] = 1 + state["mem"] * (1 + signal_size)
    new["param"], sizes["param"] = applied(param, update, update_size, **options)
    average(new, sizes, state, step, **options)
    return new, sizes
