"""The rules in float64 NumPy, written from their papers; never imports the package.

Each returns, beside the new values, the size that a relative rounding error of its operations acts on: the sum of the
magnitudes that enter a value, however much of them cancels.
"""

import numpy as np


def rmsprop(param, grad, state, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False, maximize=False):
    """One step of torch.optim.RMSprop, the centered variance clamped at 0.

    Args:
        param, grad: float64 arrays.
        state: square_avg, and grad_avg and momentum_buffer where the options ask for them; float64 arrays.

    Returns:
        New values and error sizes, each a dict of param and the states.
    """
    size = np.abs(grad) + np.abs(weight_decay * param)
    grad = (-grad if maximize else grad) + weight_decay * param
    new, sizes = {}, {}
    new["square_avg"] = variance = alpha * state["square_avg"] + (1 - alpha) * grad**2
    sizes["square_avg"] = variance_size = alpha * state["square_avg"] + (1 - alpha) * size**2
    if centered:
        new["grad_avg"] = alpha * state["grad_avg"] + (1 - alpha) * grad
        sizes["grad_avg"] = alpha * np.abs(state["grad_avg"]) + (1 - alpha) * size
        variance = np.maximum(variance - new["grad_avg"] ** 2, 0)
        variance_size = variance_size + sizes["grad_avg"] ** 2
    root = np.sqrt(variance) + eps
    update = grad / root
    lost = np.divide(variance_size, variance, out=np.ones_like(variance), where=variance > 0)  # digits to cancellation, as a factor
    sizes_update = size / root + np.abs(update) * lost
    if momentum > 0:
        new["momentum_buffer"] = update = momentum * state["momentum_buffer"] + update
        sizes["momentum_buffer"] = sizes_update = momentum * np.abs(state["momentum_buffer"]) + sizes_update
    new["param"] = param - lr * update
    sizes["param"] = np.abs(param) + lr * sizes_update
    return new, sizes
