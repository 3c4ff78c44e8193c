"""Systems that are no longer developed."""

import numpy as np

from .rule import each


def puzzlelib_rmsprop(learnRate=1e-3, factor=0.9, epsilon=1e-5):
    def update(w, g, s, t):
        s["square_avg"][...] = factor * s["square_avg"] + (1 - factor) * g**2
        w -= learnRate * g / (np.sqrt(s["square_avg"]) + epsilon)

    return each(update)


def puzzlelib_rmsprop_graves(learnRate=1e-4, alpha=0.95, momRate=0.9, epsilon=1e-4):
    def update(w, g, s, t):
        s["grad_avg"][...] = alpha * s["grad_avg"] + (1 - alpha) * g
        s["square_avg"][...] = alpha * s["square_avg"] + (1 - alpha) * g**2
        delta = learnRate * g / np.sqrt(s["square_avg"] - s["grad_avg"] ** 2 + epsilon)
        s["momentum_buffer"][...] = momRate * s["momentum_buffer"] + delta
        w -= s["momentum_buffer"]

    return each(update)


def puzzlelib_smorms3(learnRate=1e-3, epsilon=1e-16):
    def update(w, g, s, t):
        r = 1 / (s["mem"] + 1)
        s["grad_avg"][...] = (1 - r) * s["grad_avg"] + r * g
        s["square_avg"][...] = (1 - r) * s["square_avg"] + r * g**2
        x = s["grad_avg"] ** 2 / (s["square_avg"] + epsilon)
        s["mem"][...] = 1 + s["mem"] * (1 - x)
        w -= g * np.minimum(learnRate, x) / (np.sqrt(s["square_avg"]) + epsilon)

    return each(update)


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

    return each(update)


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

    return each(update)


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


def chainer_rmsprop(lr=0.01, alpha=0.99, eps=1e-8, eps_inside_sqrt=False):
    def update(w, g, s, t):
        ms = s["square_avg"]
        ms *= alpha
        ms += (1 - alpha) * g * g
        denom = np.sqrt(ms + eps) if eps_inside_sqrt else np.sqrt(ms) + eps
        w -= lr * g / denom

    return each(update)


def chainer_rmsprop_graves(lr=1e-4, alpha=0.95, momentum=0.9, eps=1e-4):
    def update(w, g, s, t):
        s["square_avg"] *= alpha
        s["square_avg"] += (1 - alpha) * g * g
        s["grad_avg"] *= alpha
        s["grad_avg"] += (1 - alpha) * g
        delta = -s["momentum_buffer"] if momentum else np.zeros_like(w)  # the buffer has the opposite sign
        delta *= momentum
        delta -= lr * g / np.sqrt(s["square_avg"] - s["grad_avg"] * s["grad_avg"] + eps)
        if momentum:
            s["momentum_buffer"][...] = -delta
        w += delta

    return each(update)


def chainer_smorms3(lr=0.001, eps=1e-16):
    def update(w, g, s, t):
        r = 1 / (s["mem"] + 1)
        s["grad_avg"][...] = (1 - r) * s["grad_avg"] + r * g
        s["square_avg"][...] = (1 - r) * s["square_avg"] + r * g * g
        x = s["grad_avg"] * s["grad_avg"] / (s["square_avg"] + eps)
        w -= g * np.minimum(x, lr) / (np.sqrt(s["square_avg"]) + eps)
        s["mem"][...] = 1 + s["mem"] * (1 - x)

    return each(update)


def torch7_rmsprop(learningRate=1e-2, alpha=0.99, epsilon=1e-8, weightDecay=0.0, initialMean=0.0):
    def update(w, g, s, t):
        if t == 1:
            assert (s["square_avg"] == initialMean).all()
        if weightDecay != 0:
            g = g + weightDecay * w
        s["square_avg"] *= alpha
        s["square_avg"] += (1.0 - alpha) * g * g
        w -= learningRate * g / (np.sqrt(s["square_avg"]) + epsilon)

    return each(update)


def caffe_rmsprop(base_lr, rms_decay=0.99, delta=1e-8, weight_decay=0.0, clip_gradients=-1.0, iter_size=1):
    def step(params, grads, states, t):
        if clip_gradients >= 0:
            l2norm = np.sqrt(sum(np.sum(g * g) for g in grads))
            if l2norm > clip_gradients:
                grads = [g * (clip_gradients / l2norm) for g in grads]
        for w, g, s in zip(params, grads, states, strict=True):
            g = g / iter_size
            g = g + weight_decay * w
            h = s["square_avg"][...] = rms_decay * s["square_avg"] + (1 - rms_decay) * g * g
            w -= base_lr * g / (np.sqrt(h) + delta)

    return step


def theano_rmsprop():
    """Of the tutorial on LSTMs."""

    def update(w, g, s, t):
        rg = s["grad_avg"][...] = 0.95 * s["grad_avg"] + 0.05 * g
        rg2 = s["square_avg"][...] = 0.95 * s["square_avg"] + 0.05 * g**2
        ud = 0.9 * -s["momentum_buffer"] - 1e-4 * g / np.sqrt(rg2 - rg**2 + 1e-4)
        s["momentum_buffer"][...] = -ud
        w += ud

    return each(update)


def lasagne_rmsprop(learning_rate=1.0, rho=0.9, epsilon=1e-6):
    def update(w, g, s, t):
        accu = s["square_avg"][...] = rho * s["square_avg"] + (1 - rho) * g**2
        w -= learning_rate * g / np.sqrt(accu + epsilon)

    return each(update)


def blocks_rmsprop(learning_rate=1.0, decay_rate=0.9, max_scaling=1e5):
    epsilon = 1.0 / max_scaling

    def update(w, g, s, t):
        mean_square = s["square_avg"][...] = decay_rate * s["square_avg"] + (1 - decay_rate) * g**2
        w -= learning_rate * g / np.maximum(np.sqrt(mean_square), epsilon)

    return each(update)


def dl4j_rmsprop(learningRate=0.1, rmsDecay=0.95, epsilon=1e-8):
    def update(w, g, s, t):
        if t == 1:
            assert (s["square_avg"] == epsilon).all()
        state = s["square_avg"][...] = s["square_avg"] * rmsDecay + g * g * (1 - rmsDecay)
        w -= (learningRate * g) / (np.sqrt(state) + epsilon)

    return each(update)
