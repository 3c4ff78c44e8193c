"""The update rules: registers in, registers out.

A rule is `(grad, state, lr, correction, args) -> (update, state)` on values of the compute type (float32; float64 for float64
parameters): `state` and `args` are tuples, `update` is what the parameter loses. Triton compiles a rule for GPUs, Numba the
same source for CPUs, so it may use arithmetic, tuples, calls of other rules, and what `cpu.py` overloads of `tl`.
An option that only changes arithmetic is a number here, with a neutral value.
"""

import math

from .lang import clip, jit, normal, quotient, reciprocal, rounded_quotient, tl


@jit
def ema(avg, x, decay, weight):
    """decay * avg + weight * x; weight is 1 - decay, subtracted in float64 by the host: in float32 it would lose digits."""
    return tl.fma(avg, decay, weight * x)


@jit
def ema_of_square(avg, x, decay, weight):
    """As torch multiplies: the weight first, so that of 1e20 the weighted square is finite in float32, where the square is not."""
    return ema(avg, x, decay, weight * x)


@jit
def variance_of(square_avg, grad_avg):
    """E[g²] - E[g]². Of a constant gradient it rounds below 0, where a square root is NaN; of a huge one it is inf - inf."""
    variance = tl.fma(-grad_avg, grad_avg, square_avg)
    variance = tl.where(variance <= 0.0, 0.0, variance)  # -0 too, which a fused product that underflows gives
    return tl.where(square_avg == 1e999, square_avg, variance)  # infinity; a NaN stays one


@jit
def inside(eps):
    """What is added below the root: nothing, or what no device takes for 0."""
    return tl.where(eps == 0.0, 0.0, normal(eps))


@jit
def rmsprop(grad, state, lr, correction, args):
    """Tieleman and Hinton 2012; epsilon outside of the square root as torch has it, inside, or both."""
    (square_avg,) = state
    alpha, one_minus_alpha, eps_inside, eps_outside, _, _, _ = args
    square_avg = ema_of_square(square_avg, grad, alpha, one_minus_alpha)
    denominator = tl.sqrt(tl.fma(square_avg, correction, inside(eps_inside))) + normal(eps_outside)
    return quotient(lr * grad, denominator), (square_avg,)


@jit
def rmsprop_centered(grad, state, lr, correction, args):
    """Graves 2013: the second moment about the mean."""
    square_avg, grad_avg = state
    alpha, one_minus_alpha, eps_inside, eps_outside, _, _, _ = args
    square_avg = ema_of_square(square_avg, grad, alpha, one_minus_alpha)
    grad_avg = ema(grad_avg, grad, alpha, one_minus_alpha)
    variance = variance_of(square_avg * correction, grad_avg * correction)
    denominator = tl.sqrt(variance + inside(eps_inside)) + normal(eps_outside)
    return quotient(lr * grad, denominator), (square_avg, grad_avg)


@jit
def with_momentum(momentum_buffer, grad, state, lr, correction, args, RULE: tl.constexpr):
    """The learning rate inside of the buffer or outside; Nesterov's step looks one update ahead, as optax has it."""
    _, _, _, _, momentum, lr_in_momentum, nesterov = args
    lr_inside = tl.where(lr_in_momentum == 0.0, 1.0, lr)
    lr_outside = tl.where(lr_in_momentum == 0.0, lr, 1.0)
    update, state = RULE(grad, state, lr_inside, correction, args)
    momentum_buffer = tl.fma(momentum_buffer, momentum, update)
    ahead = tl.where(nesterov == 0.0, momentum_buffer, tl.fma(momentum_buffer, momentum, update))
    return lr_outside * ahead, state + (momentum_buffer,)


@jit
def rmsprop_momentum(grad, state, lr, correction, args):
    square_avg, momentum_buffer = state
    return with_momentum(momentum_buffer, grad, (square_avg,), lr, correction, args, rmsprop)


@jit
def rmsprop_centered_momentum(grad, state, lr, correction, args):
    square_avg, grad_avg, momentum_buffer = state
    return with_momentum(momentum_buffer, grad, (square_avg, grad_avg), lr, correction, args, rmsprop_centered)


@jit
def smorms3(grad, state, lr, correction, args):
    """Funk 2015: a memory as long as the gradient's noise asks for, a rate as high as its signal allows."""
    square_avg, grad_avg, mem = state
    eps = normal(args[0])
    r = reciprocal(mem + 1.0)
    square_avg = ema_of_square(square_avg, grad, 1.0 - r, r)
    grad_avg = ema(grad_avg, grad, 1.0 - r, r)
    signal = grad_avg * quotient(grad_avg, square_avg + eps)  # of a huge gradient both squares are infinite
    update = quotient(grad * tl.where(signal < lr, signal, lr), tl.sqrt(square_avg) + eps)
    return update, (square_avg, grad_avg, tl.fma(mem, 1.0 - signal, 1.0))


@jit
def norm_scale(norm, limit):
    """What brings a norm down to its limit; a NaN gives NaN, but for an infinite limit."""
    return tl.where(limit == 1e999, 1.0, tl.where(norm <= limit, 1.0, rounded_quotient(limit, norm)))


# The first columns of every hyperparameter row, before the rule's args, and the value of each that changes nothing; None where
# torch's own options have others.
COMMON = {
    "lr": None,
    "grad_scale": None,  # 1, or -1 to ascend, times rescale_grad
    "weight_decay": None,  # coupled
    "correction": 1.0,  # 1 / (1 - alpha**step), by which averages that started from 0 are multiplied
    "clip_grad": math.inf,
    "clip_normed": math.inf,  # clips what the norm is taken of: as clip_grad, or not at all
    "clip_grad_norm": math.inf,
    "clip_decayed": math.inf,  # clips the gradient when weight decay is in it
    "decoupled_weight_decay": 0.0,
    "clip_update_norm": math.inf,  # as clip_grad_norm, but the averages do not see it
    "clip_weights": math.inf,
}


@jit
def unscaled(common, factor):
    """The numbers of COMMON, or a row that begins with them, for gradients that are to be multiplied by a factor first."""
    return common[:1] + (common[1] * factor,) + common[2:]


@jit
def normed(grad, common):
    """What the norm is taken of."""
    _, grad_scale, _, _, _, clip_normed, _, _, _, _, _ = common
    return clip(grad * grad_scale, clip_normed)


@jit
def apply(grad, param, state, norm, common, args, RULE: tl.constexpr):
    """What every rule shares: the gradient's scale and limits, weight decay, the step; norm is an L2 norm of `normed`."""
    lr, grad_scale, weight_decay, correction, clip_grad, _, clip_grad_norm, clip_decayed, decoupled, clip_update_norm, clip_weights = common
    grad = clip(grad * grad_scale, clip_grad) * norm_scale(norm, clip_grad_norm)
    # not a plain fma: 0 * inf is NaN, and a parameter may hold -inf (an attention mask, say)
    grad = clip(tl.where(weight_decay == 0.0, grad, tl.fma(param, weight_decay, grad)), clip_decayed)
    update, state = RULE(grad, state, lr * norm_scale(norm, clip_update_norm), correction, args)
    # not param * (1 - lr * decay): in float32 that factor rounds, to the same side at every step
    shrink = lr * decoupled
    param = tl.where(shrink == 0.0, param, tl.fma(param, -shrink, param))
    return clip(param - update, clip_weights), state
