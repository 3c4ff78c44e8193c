"""The update rules: registers in, registers out.

A rule is `(grad, state, args) -> (update, state)` on values of the compute type (float32; float64 for float64 parameters):
`state` and `args` are tuples, `update` is what the learning rate multiplies. Triton compiles a rule for GPUs, Numba the same
source for CPUs, so it may use arithmetic, tuples, calls of other rules, and what `cpu.py` overloads of `tl`.
"""

from .lang import jit, tl


@jit
def ema(avg, x, decay, weight):
    """decay * avg + weight * x; weight is 1 - decay, subtracted in float64 by the host: in float32 it would lose digits."""
    return decay * avg + weight * x


@jit
def clamp_variance(variance):
    """E[g²] - E[g]² of a constant gradient rounds below 0, where a square root is NaN; a NaN stays one."""
    return tl.where(variance < 0.0, 0.0, variance)


@jit
def rmsprop(grad, state, args):
    """Tieleman and Hinton 2012 as torch writes it: epsilon outside the square root."""
    (square_avg,) = state
    alpha, one_minus_alpha, eps, _ = args
    square_avg = ema(square_avg, grad * grad, alpha, one_minus_alpha)
    return grad / (tl.sqrt(square_avg) + eps), (square_avg,)


@jit
def rmsprop_centered(grad, state, args):
    """Graves 2013: the second moment about the mean."""
    square_avg, grad_avg = state
    alpha, one_minus_alpha, eps, _ = args
    square_avg = ema(square_avg, grad * grad, alpha, one_minus_alpha)
    grad_avg = ema(grad_avg, grad, alpha, one_minus_alpha)
    variance = clamp_variance(square_avg - grad_avg * grad_avg)
    return grad / (tl.sqrt(variance) + eps), (square_avg, grad_avg)


@jit
def rmsprop_momentum(grad, state, args):
    square_avg, momentum_buffer = state
    update, averages = rmsprop(grad, (square_avg,), args)
    momentum_buffer = args[3] * momentum_buffer + update
    return momentum_buffer, averages + (momentum_buffer,)


@jit
def rmsprop_centered_momentum(grad, state, args):
    square_avg, grad_avg, momentum_buffer = state
    update, averages = rmsprop_centered(grad, (square_avg, grad_avg), args)
    momentum_buffer = args[3] * momentum_buffer + update
    return momentum_buffer, averages + (momentum_buffer,)


COMMON = ("lr", "grad_scale", "weight_decay")  # the first columns of every hyperparameter row; a rule's args follow


@jit
def apply(grad, param, state, common, args, RULE: tl.constexpr):
    """What every rule shares: the gradient's sign and scale, coupled weight decay, the step."""
    lr, grad_scale, weight_decay = common
    grad = grad * grad_scale
    # not a plain fma: 0 * inf is NaN, and a parameter may hold -inf (an attention mask, say)
    grad = tl.where(weight_decay == 0.0, grad, grad + weight_decay * param)
    update, state = RULE(grad, state, args)
    return param - lr * update, state
