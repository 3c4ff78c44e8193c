"""The update rules: registers in, registers out.

A rule is `(grad, param, state, lr, n) -> (update, state)` on values of the compute type (float32; float64 for float64 parameters):
`state` and `n`, its numbers, are tuples, `update` is what the parameter loses; a rule begins by naming their values. Triton compiles it
for GPUs, Numba the same source for CPUs, so it may use arithmetic, tuples, calls of other rules, and what `cpu/language.py` has of `tl`.
An option that only changes arithmetic is a number here, with a neutral value.
"""

import math
from typing import Any, NamedTuple

from .lang import at_least, clip, jit, normal, quotient, reciprocal, rounded_quotient, tl
from .rule import RULES, State, declared

INFINITY = tl.constexpr(math.inf)


class Common(NamedTuple):
    """The numbers that every rule shares: the first columns of a row of hyperparameters."""

    lr: Any
    grad_scale: Any  # 1, or -1 to ascend, times rescale_grad
    ema_weight: Any  # of the parameter in its own average; read only where there is one
    weight_decay: Any  # coupled
    clip_grad: Any
    clip_normed: Any  # clips what the norm is taken of: as clip_grad, or not at all
    clip_grad_norm: Any
    clip_decayed: Any  # clips the gradient when weight decay is in it
    decoupled_weight_decay: Any
    clip_update_norm: Any  # as clip_grad_norm, but the averages do not see it
    clip_weights: Any


# The value of each that changes nothing; the others have none.
NEUTRAL = dict(
    grad_scale=1.0,
    weight_decay=0.0,
    clip_grad=math.inf,
    clip_normed=math.inf,
    clip_grad_norm=math.inf,
    clip_decayed=math.inf,
    decoupled_weight_decay=0.0,
    clip_update_norm=math.inf,
    clip_weights=math.inf,
)


class RMSPropNumbers(NamedTuple):
    """The numbers of the RMSProp family: the columns after Common."""

    alpha: Any
    one_minus_alpha: Any  # subtracted in float64 by the host: in float32 it would lose digits
    correction: Any  # 1 / (1 - alpha**step), by which averages that started from 0 are multiplied
    eps_inside: Any  # of the root
    eps_outside: Any  # added to the root, or, of the rules with a floor, what it is at least
    momentum: Any
    lr_in_momentum: Any  # not 0 if the buffer holds updates that lr is in
    nesterov: Any


class SMORMS3Numbers(NamedTuple):
    eps: Any


# What rules remember, and what of their numbers changes nothing.
SQUARE_AVG = dict(square_avg=State(nonnegative=True))
CENTERED = dict(square_avg=State(nonnegative=True, mean="grad_avg"), grad_avg=State())
MOMENTUM_BUFFER = dict(momentum_buffer=State())
OFF = dict(eps_inside=0.0, lr_in_momentum=0.0, nesterov=0.0, correction=1.0)


@jit
def ema(avg, x, decay, weight):
    """decay * avg + weight * x; weight is 1 - decay."""
    return tl.fma(avg, decay, weight * x)


@jit
def ema_of_square(avg, x, decay, weight):
    """As torch multiplies: the weight first, so that of 1e20 the weighted square is finite in float32, where the square is not."""
    return ema(avg, x, decay, weight * x)


@jit
def variance_of(square_avg, grad_avg):
    """E[g²] - E[g]². Of a constant gradient it rounds below 0, where a square root is NaN; of a huge one it is inf - inf."""
    variance = tl.fma(grad_avg * -1.0, grad_avg, square_avg)  # -x is 0 - x to Triton, an instruction more
    variance = tl.where(variance <= 0.0, 0.0, variance)  # -0 too, which a fused product that underflows gives
    return tl.where(square_avg == INFINITY, square_avg, variance)  # a NaN stays one


@jit
def inside(eps):
    """What is added below the root: nothing (-0, which compilers drop: Triton has no constant -0), or what no device takes for 0."""
    return tl.where(eps == 0.0, eps * -1.0, normal(eps))


@jit
def plus(root, eps):
    return root + normal(eps)


@jit
def floored(root, eps):
    return at_least(root, normal(eps))


@jit
def divided(grad, state, lr, n, DENOMINATOR: tl.constexpr):
    """Tieleman and Hinton 2012; epsilon inside of the square root, and what the denominator makes of the root and epsilon."""
    (square_avg,) = state
    n = RMSPropNumbers(*n)
    square_avg = ema_of_square(square_avg, grad, n.alpha, n.one_minus_alpha)
    root = tl.sqrt(tl.fma(square_avg, n.correction, inside(n.eps_inside)))
    return quotient(lr * grad, DENOMINATOR(root, n.eps_outside)), (square_avg,)


@jit
def divided_centered(grad, state, lr, n, DENOMINATOR: tl.constexpr):
    """Graves 2013: the second moment about the mean."""
    square_avg, grad_avg = state
    n = RMSPropNumbers(*n)
    square_avg = ema_of_square(square_avg, grad, n.alpha, n.one_minus_alpha)
    grad_avg = ema(grad_avg, grad, n.alpha, n.one_minus_alpha)
    variance = variance_of(square_avg * n.correction, grad_avg * n.correction)
    root = tl.sqrt(variance + inside(n.eps_inside))
    return quotient(lr * grad, DENOMINATOR(root, n.eps_outside)), (square_avg, grad_avg)


@jit
def with_momentum(momentum_buffer, grad, param, state, lr, n, RULE: tl.constexpr):
    """The learning rate inside of the buffer or outside; Nesterov's step looks one update ahead, as optax has it."""
    n = RMSPropNumbers(*n)
    lr_inside = tl.where(n.lr_in_momentum == 0.0, 1.0, lr)
    lr_outside = tl.where(n.lr_in_momentum == 0.0, lr, 1.0)
    update, state = RULE(grad, param, state, lr_inside, n)
    momentum_buffer = tl.fma(momentum_buffer, n.momentum, update)
    ahead = tl.where(n.nesterov == 0.0, momentum_buffer, tl.fma(momentum_buffer, n.momentum, update))
    return lr_outside * ahead, state + (momentum_buffer,)


@declared(SQUARE_AVG, RMSPropNumbers, OFF)
@jit
def rmsprop(grad, param, state, lr, n):
    return divided(grad, state, lr, n, plus)


@declared(CENTERED, RMSPropNumbers, OFF)
@jit
def rmsprop_centered(grad, param, state, lr, n):
    return divided_centered(grad, state, lr, n, plus)


@declared(SQUARE_AVG | MOMENTUM_BUFFER, RMSPropNumbers, OFF)
@jit
def rmsprop_momentum(grad, param, state, lr, n):
    return with_momentum(state[-1], grad, param, state[:-1], lr, n, rmsprop)


@declared(CENTERED | MOMENTUM_BUFFER, RMSPropNumbers, OFF)
@jit
def rmsprop_centered_momentum(grad, param, state, lr, n):
    return with_momentum(state[-1], grad, param, state[:-1], lr, n, rmsprop_centered)


# The same where the root has a least value. As a number beside eps_outside it would cost all others an instruction or more a parameter.
@declared(SQUARE_AVG, RMSPropNumbers, OFF)
@jit
def rmsprop_floor(grad, param, state, lr, n):
    return divided(grad, state, lr, n, floored)


@declared(CENTERED, RMSPropNumbers, OFF)
@jit
def rmsprop_centered_floor(grad, param, state, lr, n):
    return divided_centered(grad, state, lr, n, floored)


@declared(SQUARE_AVG | MOMENTUM_BUFFER, RMSPropNumbers, OFF)
@jit
def rmsprop_momentum_floor(grad, param, state, lr, n):
    return with_momentum(state[-1], grad, param, state[:-1], lr, n, rmsprop_floor)


@declared(CENTERED | MOMENTUM_BUFFER, RMSPropNumbers, OFF)
@jit
def rmsprop_centered_momentum_floor(grad, param, state, lr, n):
    return with_momentum(state[-1], grad, param, state[:-1], lr, n, rmsprop_centered_floor)


@declared(CENTERED | dict(mem=State(1.0, full_precision=True)), SMORMS3Numbers)
@jit
def smorms3(grad, param, state, lr, n):
    """Funk 2015: a memory as long as the gradient's noise asks for, a rate as high as its signal allows."""
    square_avg, grad_avg, mem = state
    n = SMORMS3Numbers(*n)
    eps = normal(n.eps)
    r = reciprocal(mem + 1.0)
    square_avg = ema_of_square(square_avg, grad, 1.0 - r, r)
    grad_avg = ema(grad_avg, grad, 1.0 - r, r)
    signal = grad_avg * quotient(grad_avg, square_avg + eps)  # of a huge gradient both squares are infinite
    update = quotient(grad * tl.where(signal < lr, signal, lr), tl.sqrt(square_avg) + eps)
    return update, (square_avg, grad_avg, tl.fma(mem, 1.0 - signal, 1.0))


def columns(rule: str) -> dict[str, int]:
    """Where in a row of hyperparameters each number is, by name."""
    return {name: column for column, name in enumerate((*Common._fields, *RULES[rule].numbers))}


def neutral(rule: str) -> tuple[float | None, ...]:
    """Of each number in a row of hyperparameters the value that changes nothing, or None."""
    return *map(NEUTRAL.get, Common._fields), *map(RULES[rule].neutral.get, RULES[rule].numbers)


@jit
def norm_scale(norm, limit):
    """What brings a norm down to its limit; a NaN gives NaN, but for an infinite limit."""
    return tl.where(limit == INFINITY, 1.0, tl.where(norm <= limit, 1.0, rounded_quotient(limit, norm)))


@jit
def normed(grad, grad_scale, common):
    """What the norm is taken of; grad_scale as of apply()."""
    return clip(grad * grad_scale, common.clip_normed)


@jit
def averaged(param_ema, param, common):
    """The average of a parameter once it has the value `param`."""
    moved = tl.fma(param - param_ema, common.ema_weight, param_ema)
    return tl.where(param == param_ema, param, moved)  # inf - inf is NaN


@jit
def entering(grad, param, grad_scale, norm, common):
    """The gradient that a rule takes: within its limits, with weight decay; grad_scale, norm: as of apply()."""
    grad = clip(grad * grad_scale, common.clip_grad) * norm_scale(norm, common.clip_grad_norm)
    # not a plain fma: 0 * inf is NaN, and a parameter may hold -inf (an attention mask, say)
    decayed = tl.where(common.weight_decay == 0.0, grad, tl.fma(param, common.weight_decay, grad))
    return clip(decayed, common.clip_decayed)


@jit
def rate(norm, common):
    return common.lr * norm_scale(norm, common.clip_update_norm)


@jit
def along(update, grad):
    """How far an update goes with the gradient's sign: less than 0 against it, 0 where there is none."""
    signed = tl.where(grad < 0.0, update * -1.0, update)  # their product might vanish
    return tl.where(grad == 0.0, update * 0.0, signed)


@jit
def agrees(grad, param, state, grad_scale, norm, common, args, RULE: tl.constexpr):
    """Whether the update that apply() is to make has the sign of the gradient that the rule takes; arguments as there."""
    grad = entering(grad, param, grad_scale, norm, common)
    update, _ = RULE(grad, param, state, rate(norm, common), args)
    return along(update, grad) > 0.0


@jit
def apply(grad, param, state, grad_scale, norm, boost, common, args, RULE: tl.constexpr, CAUTIOUS: tl.constexpr):
    """What every rule shares: the gradient's scale and limits, weight decay, caution, the step.

    grad_scale: common's, times what the loss scale asks for; norm: an L2 norm of `normed`; boost: what updates that agree with
    their gradients are multiplied by, where the others are left out (CAUTIOUS: Liang et al., arXiv:2411.16085).
    """
    grad = entering(grad, param, grad_scale, norm, common)
    update, state = RULE(grad, param, state, rate(norm, common), args)
    if CAUTIOUS:
        update = tl.where(along(update, grad) <= 0.0, 0.0, update * boost)  # a NaN stays one
    # not param * (1 - lr * decay): in float32 that factor rounds, to the same side at every step
    shrink = tl.where(common.decoupled_weight_decay == 0.0, 0.0, common.lr * common.decoupled_weight_decay)
    param = tl.where(shrink == 0.0, param, tl.fma(param, -shrink, param))
    return clip(param - update, common.clip_weights), state
