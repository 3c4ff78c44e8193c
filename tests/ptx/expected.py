"""What a step may give: the rules in interval arithmetic, written from their papers; never imports the package."""

import numpy as np

from .intervals import Interval, Unit


def scale_to(unit: Unit, norm: float, limit: float) -> Interval:
    return Interval(unit, 1.0) if np.isinf(limit) or norm <= limit else Interval(unit, limit).divided(norm, unit.divide)


def quotient(x: Interval, y: Interval) -> Interval:
    return x.divided(y, x.unit.quotient)


def variance_of(square_avg: Interval, grad_avg: Interval) -> Interval:
    return (square_avg - grad_avg * grad_avg).at_least(0.0)


def step(rule: str, unit: Unit, grad, param, state, norm: float, unscale: float, row, variance: bool, average: bool):
    """New values of param and states, as Intervals.

    Args:
        grad, param, state: Intervals, the latter in the rule's order.
        norm: what clip_grad_norm limits.
        unscale: what gradients are multiplied by.
        row: of hyperparameters.
        variance: state 0 is kept as the variance about state 1.
        average: the last state is the parameter's average.
    """
    lr, grad_scale, ema_weight, weight_decay, clip_grad, _, clip_norm, clip_decayed, decoupled, clip_update, clip_weights = row[:11]
    args, tiny = row[11:], float(np.finfo(unit.compute).tiny)
    *state, param_ema = state if average else (*state, None)
    grad = (grad * (Interval(unit, grad_scale) * unscale)).clipped(clip_grad, infinite=True) * scale_to(unit, norm, clip_norm)
    if weight_decay:
        grad = grad + param * weight_decay
    grad = grad.clipped(clip_decayed)
    if variance:
        state = (state[0] + state[1] * state[1], *state[1:])
    square_avg, *rest = state
    rate = scale_to(unit, norm, clip_update) * lr

    if rule == "smorms3":
        eps, (grad_avg, mem) = max(args[0], tiny), rest
        r = quotient(Interval(unit, 1.0), mem + 1.0)
        keep = -r + 1.0
        square_avg, grad_avg = keep * square_avg + r * grad * grad, keep * grad_avg + r * grad
        signal = grad_avg * quotient(grad_avg, square_avg + eps)
        update = quotient(grad * signal.at_most(rate), square_avg.root() + eps)
        new = [square_avg, grad_avg, mem * (-signal + 1.0) + 1.0]
    else:
        alpha, weight, correction, inside, outside, momentum, lr_in_momentum, nesterov = args
        square_avg = square_avg * alpha + grad * weight * grad
        second = square_avg * correction
        new = [square_avg]
        if "centered" in rule:
            new.append(rest[0] * alpha + grad * weight)
            second = variance_of(second, new[1] * correction)
        root = (second + inside).root()
        root = root.at_least(max(outside, tiny)) if rule.endswith("_floor") else root + max(outside, tiny)
        if "momentum" in rule:
            update = quotient(grad * (rate if lr_in_momentum else 1.0), root)
            new.append(rest[-1] * momentum + update)
            update = new[-1] * momentum + update if nesterov else new[-1]
            update = update if lr_in_momentum else update * rate
        else:
            update = quotient(grad * rate, root)
    if decoupled:
        param = param - param * (Interval(unit, lr) * decoupled)
    if variance:
        new[0] = variance_of(new[0], new[1])
    param = (param - update).clipped(clip_weights)
    return [param, *new, *([param_ema + (param - param_ema) * ema_weight] if average else [])]
