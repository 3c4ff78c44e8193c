"""One step of every system's optimizer, as its own source writes it, in NumPy; never imports the package.

Each is a function of its options that returns `step(params, grads, states, t)`. That changes the arrays of params and states in
place: lists with an entry for each parameter, states being dicts with torch's names. t counts steps from 1.
"""

import numpy as np


def _each(update):
    """A step whose parameters know nothing of each other."""

    def step(params, grads, states, t):
        for w, g, s in zip(params, grads, states, strict=True):
            update(w, g, s, t)

    return step


def puzzlelib_rmsprop(learnRate=1e-3, factor=0.9, epsilon=1e-5):
    def update(w, g, s, t):
        s["square_avg"][...] = factor * s["square_avg"] + (1 - factor) * g**2
        w -= learnRate * g / (np.sqrt(s["square_avg"]) + epsilon)

    return _each(update)


def puzzlelib_rmsprop_graves(learnRate=1e-4, alpha=0.95, momRate=0.9, epsilon=1e-4):
    def update(w, g, s, t):
        s["grad_avg"][...] = alpha * s["grad_avg"] + (1 - alpha) * g
        s["square_avg"][...] = alpha * s["square_avg"] + (1 - alpha) * g**2
        delta = learnRate * g / np.sqrt(s["square_avg"] - s["grad_avg"] ** 2 + epsilon)
        s["momentum_buffer"][...] = momRate * s["momentum_buffer"] + delta
        w -= s["momentum_buffer"]

    return _each(update)


def graves2013():
    """Equations 38-45, whose delta is what the parameter gains."""

    def update(w, g, s, t):
        n = s["square_avg"][...] = 0.95 * s["square_avg"] + 0.05 * g**2
        mean = s["grad_avg"][...] = 0.95 * s["grad_avg"] + 0.05 * g
        delta = 0.9 * -s["momentum_buffer"] - 1e-4 * g / np.sqrt(n - mean**2 + 1e-4)
        s["momentum_buffer"][...] = -delta
        w += delta

    return _each(update)


def puzzlelib_smorms3(learnRate=1e-3, epsilon=1e-16):
    def update(w, g, s, t):
        r = 1 / (s["mem"] + 1)
        s["grad_avg"][...] = (1 - r) * s["grad_avg"] + r * g
        s["square_avg"][...] = (1 - r) * s["square_avg"] + r * g**2
        x = s["grad_avg"] ** 2 / (s["square_avg"] + epsilon)
        s["mem"][...] = 1 + s["mem"] * (1 - x)
        w -= g * np.minimum(learnRate, x) / (np.sqrt(s["square_avg"]) + epsilon)

    return _each(update)


def mxnet_rmsprop(
    learning_rate=0.001,
    gamma1=0.9,
    gamma2=0.9,
    epsilon=1e-8,
    centered=False,
    clip_weights=None,
    wd=0.0,
    rescale_grad=1.0,
    clip_gradient=None,
):
    def update(w, g, s, t):
        g = rescale_grad * g + wd * w
        if clip_gradient is not None and clip_gradient > 0:
            g = np.clip(g, -clip_gradient, clip_gradient)
        n = s["square_avg"][...] = (1 - gamma1) * g**2 + gamma1 * s["square_avg"]
        if centered:
            mean = s["grad_avg"][...] = (1 - gamma1) * g + gamma1 * s["grad_avg"]
            delta = s["momentum_buffer"][...] = gamma2 * s["momentum_buffer"] + learning_rate * g / np.sqrt(n - mean**2 + epsilon)
            w -= delta
        else:
            w -= learning_rate * g / np.sqrt(n + epsilon)
        if clip_weights is not None and clip_weights > 0:
            w[...] = np.clip(w, -clip_weights, clip_weights)

    return _each(update)


def mxnet2_rmsprop(
    learning_rate=0.001,
    rho=0.9,
    momentum=0.9,
    epsilon=1e-8,
    centered=False,
    clip_weights=None,
    wd=0.0,
    rescale_grad=1.0,
    clip_gradient=None,
):
    def update(w, g, s, t):
        g = rescale_grad * g
        if clip_gradient is not None and clip_gradient > 0:
            g = np.clip(g, -clip_gradient, clip_gradient)
        g = g + wd * w
        var = s["square_avg"][...] = rho * s["square_avg"] + (1 - rho) * g**2
        if centered:
            mean = s["grad_avg"][...] = rho * s["grad_avg"] + (1 - rho) * g
            s["momentum_buffer"][...] = momentum * s["momentum_buffer"] + learning_rate * g / np.sqrt(var - mean**2 + epsilon)
            w -= s["momentum_buffer"]
        else:
            w -= learning_rate * g / (np.sqrt(var) + epsilon)
        if clip_weights is not None and clip_weights > 0:
            w[...] = np.clip(w, -clip_weights, clip_weights)

    return _each(update)


def neon_rmsprop(
    decay_rate=0.95,
    learning_rate=0.002,
    epsilon=1e-6,
    gradient_clip_norm=None,
    gradient_clip_value=None,
    param_clip_value=None,
    batch_size=1,
):
    def step(params, grads, states, t):
        scale = 1.0
        if gradient_clip_norm:
            norm = np.sqrt(sum(np.sum(g**2) for g in grads)) / batch_size
            scale = gradient_clip_norm / max(norm, gradient_clip_norm)
        for w, g, s in zip(params, grads, states, strict=True):
            g = g / batch_size
            if gradient_clip_value:
                g = np.clip(g, -abs(gradient_clip_value), abs(gradient_clip_value))
            state = s["square_avg"][...] = decay_rate * s["square_avg"] + g**2 * (1 - decay_rate)
            w -= (scale * g * learning_rate) / (np.sqrt(state + epsilon) + epsilon)
            if param_clip_value:
                w[...] = np.clip(w, -abs(param_clip_value), abs(param_clip_value))

    return step


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

    return _each(update)


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

    return _each(update)


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

    return _each(update)
