"""Systems that are, and TensorFlow."""

import numpy as np

from .rule import each


def tensorflow_rmsprop(learning_rate, decay=0.9, momentum=0.0, epsilon=1e-10, centered=False):
    def update(w, g, s, t):
        if t == 1:
            assert (s["square_avg"] == 1).all()
        ms = s["square_avg"]
        ms += (g**2 - ms) * (1 - decay)
        denominator = ms + epsilon
        if centered:
            s["grad_avg"] += (g - s["grad_avg"]) * (1 - decay)
            denominator = ms - s["grad_avg"] ** 2 + epsilon
        mom = s["momentum_buffer"] if momentum else np.zeros_like(w)
        mom[...] = mom * momentum + learning_rate * g / np.sqrt(denominator)
        w -= mom

    return each(update)


def keras_rmsprop(
    learning_rate=0.001,
    rho=0.9,
    momentum=0.0,
    epsilon=1e-7,
    centered=False,
    weight_decay=None,
    clipnorm=None,
    clipvalue=None,
    global_clipnorm=None,
):
    def step(params, grads, states, t):
        if clipnorm is not None:
            grads = [g * clipnorm / max(np.sqrt(np.sum(g**2)), clipnorm) for g in grads]
        elif global_clipnorm is not None:
            norm = np.sqrt(sum(np.sum(g**2) for g in grads))
            grads = [g * global_clipnorm * min(1 / norm, 1 / global_clipnorm) for g in grads]
        elif clipvalue is not None:
            grads = [np.clip(g, -clipvalue, clipvalue) for g in grads]
        for w, g, s in zip(params, grads, states, strict=True):
            if weight_decay is not None:
                w -= w * weight_decay * learning_rate
            velocity = s["square_avg"][...] = rho * s["square_avg"] + (1 - rho) * g**2
            denominator = velocity + epsilon
            if centered:
                average = s["grad_avg"][...] = rho * s["grad_avg"] + (1 - rho) * g
                denominator = velocity - average**2 + epsilon
            increment = learning_rate * g / np.sqrt(denominator)
            if momentum > 0:
                increment = s["momentum_buffer"][...] = momentum * s["momentum_buffer"] + increment
            w -= increment

    return step


def timm_rmsprop_tf(
    lr=1e-2,
    alpha=0.9,
    eps=1e-10,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
    decoupled_decay=False,
    corrected_weight_decay=False,
    lr_in_momentum=True,
    caution=False,
    foreach=None,
):
    """lr never changes here, so that it is its own snapshot."""

    def cautious(m, g):
        mask = (m * g > 0).astype(g.dtype)
        return m * (mask / np.maximum(mask.mean(), 1e-3)) if caution else m

    def update(w, g, s, t):
        if t == 1:
            assert (s["square_avg"] == 1).all()
        if weight_decay != 0 and decoupled_decay:
            w *= 1 - (lr**2 / lr if corrected_weight_decay else lr) * weight_decay
        elif weight_decay != 0:
            g = g + weight_decay * w
        s["square_avg"] += (g**2 - s["square_avg"]) * (1 - alpha)
        avg = s["square_avg"]
        if centered:
            s["grad_avg"] += (g - s["grad_avg"]) * (1 - alpha)
            avg = avg - s["grad_avg"] ** 2
        avg = np.sqrt(avg + eps)
        if momentum > 0 and lr_in_momentum:
            s["momentum_buffer"][...] = momentum * s["momentum_buffer"] + lr * g / avg
            w -= cautious(s["momentum_buffer"], g)
        elif momentum > 0:
            s["momentum_buffer"][...] = momentum * s["momentum_buffer"] + g / avg
            w -= lr * cautious(s["momentum_buffer"], g)
        else:
            w -= lr * g / avg

    return each(update)


def optax_rmsprop(
    learning_rate,
    decay=0.9,
    eps=1e-8,
    initial_scale=0.0,
    eps_in_sqrt=True,
    centered=False,
    momentum=None,
    nesterov=False,
    bias_correction=False,
):
    def update(w, g, s, t):
        if t == 1:
            assert (s["square_avg"] == initial_scale).all()
        s["square_avg"][...] = (1 - decay) * g**2 + decay * s["square_avg"]
        correction = 1 - decay**t if bias_correction else 1.0
        d = s["square_avg"] / correction
        if centered:
            s["grad_avg"][...] = (1 - decay) * g + decay * s["grad_avg"]
            d = d - (s["grad_avg"] / correction) ** 2
            if not eps_in_sqrt:
                d = np.maximum(d, 0)
        u = -learning_rate * g * (1 / np.sqrt(d + eps) if eps_in_sqrt else 1 / (np.sqrt(d) + eps))
        if momentum:
            trace = u - momentum * s["momentum_buffer"]  # the buffer has the opposite sign
            s["momentum_buffer"][...] = -trace
            u = u + momentum * trace if nesterov else trace
        w += u

    return each(update)


def torch_rmsprop(
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0,
    momentum=0,
    centered=False,
    capturable=False,
    foreach=None,
    maximize=False,
    differentiable=False,
):
    def update(w, g, s, t):
        if maximize:
            g = -g
        if weight_decay != 0:
            g = g + weight_decay * w
        s["square_avg"][...] = alpha * s["square_avg"] + (1 - alpha) * g * g
        avg = np.sqrt(s["square_avg"])
        if centered:
            s["grad_avg"] += (1 - alpha) * (g - s["grad_avg"])
            avg = np.sqrt(s["square_avg"] - s["grad_avg"] ** 2)
        avg = avg + eps
        if momentum > 0:
            s["momentum_buffer"][...] = momentum * s["momentum_buffer"] + g / avg
            w -= lr * s["momentum_buffer"]
        else:
            w -= lr * g / avg

    return each(update)


def mlx_rmsprop(learning_rate, alpha=0.99, eps=1e-8):
    def update(w, g, s, t):
        v = s["square_avg"][...] = alpha * s["square_avg"] + (1 - alpha) * np.square(g)
        w -= learning_rate * g / (np.sqrt(v) + eps)

    return each(update)


def jax_rmsprop(step_size, gamma=0.9, eps=1e-8):
    def update(w, g, s, t):
        avg_sq_grad = s["square_avg"][...] = s["square_avg"] * gamma + np.square(g) * (1.0 - gamma)
        w -= step_size * g / np.sqrt(avg_sq_grad + eps)

    return each(update)


def jax_rmsprop_momentum(step_size, gamma=0.9, eps=1e-8, momentum=0.9):
    def update(w, g, s, t):
        avg_sq_grad = s["square_avg"][...] = s["square_avg"] * gamma + np.square(g) * (1.0 - gamma)
        mom = s["momentum_buffer"] if momentum else np.zeros_like(w)
        mom[...] = momentum * mom + step_size * g / np.sqrt(avg_sq_grad + eps)
        w -= mom

    return each(update)


def flux_rmsprop(eta=0.001, rho=0.9, epsilon=1e-8, centred=False):
    def update(w, g, s, t):
        quad = s["square_avg"][...] = rho * s["square_avg"] + (1 - rho) * np.abs(g) ** 2
        lin = 0.0
        if centred:
            lin = s["grad_avg"][...] = rho * s["grad_avg"] + (1 - rho) * g
        w -= g * eta / (np.sqrt(quad - np.abs(lin) ** 2) + epsilon)

    return each(update)


def paddle_rmsprop(learning_rate, rho=0.95, epsilon=1e-6, momentum=0.0, centered=False, weight_decay=None):
    def update(w, g, s, t):
        if weight_decay is not None:
            g = g + weight_decay * w
        ms_out = s["square_avg"][...] = rho * s["square_avg"] + (1 - rho) * g * g
        mg_out = 0.0
        if centered:
            mg_out = s["grad_avg"][...] = rho * s["grad_avg"] + (1 - rho) * g
        mom = s["momentum_buffer"] if momentum else np.zeros_like(w)
        mom[...] = momentum * mom + learning_rate * g / np.sqrt(ms_out - mg_out * mg_out + epsilon)
        w -= mom

    return each(update)


def mindspore_rmsprop(learning_rate=0.1, decay=0.9, momentum=0.0, epsilon=1e-10, centered=False, loss_scale=1.0, weight_decay=0.0):
    """As its GPU kernel and the scalar code of that for CPUs."""
    rule = tensorflow_rmsprop(learning_rate, decay, momentum, epsilon, centered)

    def step(params, grads, states, t):
        rule(params, [(g + weight_decay * loss_scale * w) / loss_scale for w, g in zip(params, grads, strict=True)], states, t)

    return step


def keras2_rmsprop(
    learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False, clipnorm=None, clipvalue=None, global_clipnorm=None
):
    """Up to TensorFlow 2.10; with momentum it is the fused operation of TensorFlow 1, from 0."""

    def update(w, g, s, t):
        if momentum > 0:
            s["square_avg"] += (g * g - s["square_avg"]) * (1 - rho)
            denom = s["square_avg"] + epsilon
            if centered:
                s["grad_avg"] += (g - s["grad_avg"]) * (1 - rho)
                denom = s["square_avg"] - s["grad_avg"] ** 2 + epsilon
            s["momentum_buffer"][...] = s["momentum_buffer"] * momentum + g * learning_rate / np.sqrt(denom)
            w -= s["momentum_buffer"]
            return
        rms_t = s["square_avg"][...] = rho * s["square_avg"] + (1 - rho) * np.square(g)
        denom_t = rms_t
        if centered:
            mg_t = s["grad_avg"][...] = rho * s["grad_avg"] + (1 - rho) * g
            denom_t = rms_t - np.square(mg_t)
        w -= learning_rate * g / (np.sqrt(denom_t) + epsilon)

    def step(params, grads, states, t):
        if clipvalue is not None:
            grads = [np.clip(g, -clipvalue, clipvalue) for g in grads]
        if clipnorm is not None:
            grads = [g * clipnorm / max(np.sqrt(np.sum(g * g)), clipnorm) for g in grads]
        if global_clipnorm is not None:
            norm = np.sqrt(sum(np.sum(g * g) for g in grads))
            grads = [g * global_clipnorm / max(norm, global_clipnorm) for g in grads]
        each(update)(params, grads, states, t)

    return step
