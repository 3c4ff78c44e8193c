"""What papers trained with."""

import numpy as np

from .current import tensorflow_rmsprop
from .rule import each


def graves2013():
    """Equations 38-45, whose delta is what the parameter gains."""

    def update(w, g, s, t):
        n = s["square_avg"][...] = 0.95 * s["square_avg"] + 0.05 * g**2
        mean = s["grad_avg"][...] = 0.95 * s["grad_avg"] + 0.05 * g
        delta = 0.9 * -s["momentum_buffer"] - 1e-4 * g / np.sqrt(n - mean**2 + 1e-4)
        s["momentum_buffer"][...] = -delta
        w += delta

    return each(update)


def _tensorflow(w, g, s, lr, decay, momentum, epsilon):
    """tf.train.RMSPropOptimizer, not centered."""
    s["square_avg"] += (g * g - s["square_avg"]) * (1 - decay)
    mom = s["momentum_buffer"] if momentum else np.zeros_like(w)
    mom[...] = mom * momentum + lr * g / np.sqrt(s["square_avg"] + epsilon)
    w -= mom


def dqn2015(lr=0.00025, wc=0.0, minibatch_size=32):
    """NeuralQLearner.lua, in whose names dw is what the parameters are to gain, summed over the minibatch."""

    def update(w, g, s, t):
        dw = -minibatch_size * g
        dw += -wc * w
        g1 = s["grad_avg"]
        g1[...] = 0.95 * g1 - 0.05 * dw  # the average has the opposite sign
        g2 = s["square_avg"][...] = 0.95 * s["square_avg"] + 0.05 * dw * dw
        w += lr * dw / np.sqrt(-(g1 * g1) + g2 + 0.01)

    return each(update)


def dqn_zoo(learning_rate=0.00025, optimizer_epsilon=0.01 / 32**2):
    def update(w, g, s, t):
        mu = s["grad_avg"][...] = 0.05 * g + 0.95 * s["grad_avg"]
        nu = s["square_avg"][...] = 0.05 * g * g + 0.95 * s["square_avg"]
        w += -learning_rate * (g / np.sqrt(nu - mu * mu + optimizer_epsilon))

    return each(update)


def dopamine(learning_rate=0.00025, decay=0.95, momentum=0.0, epsilon=0.00001, centered=True):
    return tensorflow_rmsprop(learning_rate, decay, momentum, epsilon, centered)


def a3c2016(eta=7e-4, alpha=0.99, epsilon=0.1, clip_norm=None):
    """Equations 8 and 9, whose g is the square average."""

    def step(params, grads, states, t):
        if clip_norm is not None:
            norm = np.sqrt(sum(np.sum(d * d) for d in grads))
            grads = [d * min(1, clip_norm / norm) for d in grads]
        for theta, d, s in zip(params, grads, states, strict=True):
            g = s["square_avg"][...] = alpha * s["square_avg"] + (1 - alpha) * d**2
            theta -= eta * d / np.sqrt(g + epsilon)

    return step


def impala2018(learning_rate=0.00048, decay=0.99, momentum=0.0, epsilon=0.1, clip_norm=None):
    def step(params, grads, states, t):
        if clip_norm is not None:
            norm = np.sqrt(sum(np.sum(g * g) for g in grads))
            grads = [g * clip_norm / max(norm, clip_norm) for g in grads]
        for w, g, s in zip(params, grads, states, strict=True):
            _tensorflow(w, g, s, learning_rate, decay, momentum=momentum, epsilon=epsilon)

    return step


def tf_slim_rmsprop(
    learning_rate=0.01, rmsprop_decay=0.9, rmsprop_momentum=0.9, opt_epsilon=1.0, weight_decay=0.00004, moving_average_decay=None
):
    return _classifier(learning_rate, rmsprop_decay, rmsprop_momentum, opt_epsilon, weight_decay, moving_average_decay)


def _classifier(lr, decay, momentum, epsilon, weight_decay, average):
    """l2_loss, half of a square, is part of the loss; ExponentialMovingAverage(average, num_updates)."""

    def update(w, g, s, t):
        _tensorflow(w, g + weight_decay * w, s, lr, decay, momentum=momentum, epsilon=epsilon)
        if average is not None:
            s["param_ema"] -= (1 - min(average, (1 + t) / (10 + t))) * (s["param_ema"] - w)

    return each(update)


def efficientnet(base_learning_rate=0.016, moving_average_decay=0.9999, weight_decay=1e-5, train_batch_size=2048):
    scaled_lr = base_learning_rate * (train_batch_size / 256.0)
    return _classifier(scaled_lr, 0.9, 0.9, 0.001, weight_decay, moving_average_decay)


def mobilenet_v3(
    learning_rate=0.16, rmsprop_decay=0.9, rmsprop_momentum=0.9, opt_epsilon=0.002, weight_decay=1e-5, moving_average_decay=0.9999
):
    return _classifier(learning_rate, rmsprop_decay, rmsprop_momentum, opt_epsilon, weight_decay, moving_average_decay)


def nasnet(learning_rate, rmsprop_decay=0.9, rmsprop_momentum=0.9, opt_epsilon=1.0, weight_decay=5e-5, moving_average_decay=0.9999):
    return _classifier(learning_rate, rmsprop_decay, rmsprop_momentum, opt_epsilon, weight_decay, moving_average_decay)
