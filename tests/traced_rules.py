"""Update rules as users write them, for the tests of what becomes of them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch


class Case(NamedTuple):
    function: Callable[..., Any]
    states: tuple[str, ...]
    numbers: dict[str, float]  # never negative, all of them
    static: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it
    nonnegative: tuple[str, ...] = ()


def sgd(grad, param, state, lr, n):
    return lr * grad, state


def lion(grad, param, state, lr, n):
    update = torch.sign(n.beta1 * state.exp_avg + (1 - n.beta1) * grad)
    return lr * (update + n.weight_decay * param), state.replace(exp_avg=torch.lerp(grad, state.exp_avg, n.beta2))


def adamw(grad, param, state, lr, n):
    exp_avg = torch.lerp(grad, state.exp_avg, n.beta1)
    exp_avg_sq = n.beta2 * state.exp_avg_sq + (1 - n.beta2) * grad * grad
    denominator = torch.sqrt(exp_avg_sq / (1 - n.beta2**n.step)) + n.eps
    return lr / (1 - n.beta1**n.step) * exp_avg / denominator, state.replace(exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)


def amsgrad(grad, param, state, lr, n):
    exp_avg_sq = state.exp_avg_sq.mul(n.beta2).addcmul(grad, grad, value=1 - n.beta2)
    largest = torch.maximum(state.max_exp_avg_sq, exp_avg_sq)
    update = lr * grad / (largest.sqrt() / (1 - n.beta2**n.step) ** 0.5 + n.eps)
    return update, state.replace(exp_avg_sq=exp_avg_sq, max_exp_avg_sq=largest)


def adagrad(grad, param, state, lr, n):
    total = state.sum + grad.square()
    return lr / (1 + (n.step - 1) * n.lr_decay) * grad / (total.sqrt() + n.eps), state.replace(sum=total)


def signum(grad, param, state, lr, n):
    momentum = n.momentum * state.momentum_buffer + grad
    ahead = grad + n.momentum * momentum if n.nesterov else momentum
    return lr * ahead.sign(), state.replace(momentum_buffer=momentum)


def adabelief(grad, param, state, lr, n):
    exp_avg = state.exp_avg.lerp(grad, 1 - n.beta1)
    difference = grad - exp_avg
    exp_avg_var = n.beta2 * state.exp_avg_var + (1 - n.beta2) * difference**2 + n.eps
    update = lr * (exp_avg / (1 - n.beta1**n.step)) / (torch.sqrt(exp_avg_var / (1 - n.beta2**n.step)) + n.eps)
    return update, state.replace(exp_avg=exp_avg, exp_avg_var=exp_avg_var)


def adan(grad, param, state, lr, n):
    change = torch.where(n.step == 1, torch.zeros_like(grad), grad - state.previous)
    exp_avg = torch.lerp(grad, state.exp_avg, n.beta1)
    exp_avg_diff = torch.lerp(change, state.exp_avg_diff, n.beta2)
    looked = grad + n.beta2 * change
    exp_avg_sq = n.beta3 * state.exp_avg_sq + (1 - n.beta3) * looked * looked
    root = (exp_avg_sq / (1 - n.beta3**n.step)).sqrt() + n.eps
    update = lr * (exp_avg / (1 - n.beta1**n.step) + n.beta2 * exp_avg_diff / (1 - n.beta2**n.step)) / root
    return update, state.replace(exp_avg=exp_avg, exp_avg_diff=exp_avg_diff, exp_avg_sq=exp_avg_sq, previous=grad)


def rprop(grad, param, state, lr, n):
    agreement = torch.sign(grad * state.previous)
    factor = torch.where(agreement > 0, n.eta_plus, torch.where(agreement < 0, n.eta_minus, 1.0))
    size = torch.clamp(state.size * factor, min=n.least, max=50.0)
    kept = torch.where(agreement < 0, torch.zeros_like(grad), grad)
    return kept.sign() * size, state.replace(previous=kept, size=size)


def adadelta(grad, param, state, lr, n):
    square_avg = n.rho * state.square_avg + (1 - n.rho) * grad * grad
    delta = torch.sqrt(state.acc_delta + n.eps) * torch.rsqrt(square_avg + n.eps) * grad
    return lr * delta, state.replace(square_avg=square_avg, acc_delta=n.rho * state.acc_delta + (1 - n.rho) * delta * delta)


def cautious(grad, param, state, lr, n):
    exp_avg = n.beta1 * state.exp_avg + (1 - n.beta1) * grad
    mask = ((exp_avg * grad) > 0).to(grad.dtype)
    return lr * exp_avg * mask, state.replace(exp_avg=exp_avg)


def every_word(grad, param, state, lr, n):
    size = torch.abs(grad) + 0.5
    a = torch.addcmul(param, grad, size, value=0.5) + torch.addcdiv(grad, param, size, value=n.k)
    b = torch.exp(torch.clamp(grad, -2.0, 1.5)) - size.log() + torch.neg(size).mul(2) - torch.reciprocal(size)
    c = torch.sub(a, b, alpha=0.25) + torch.add(grad, param, alpha=n.k) + size**-2 + size**3 + size**0.5 + size**-0.5 + size**0
    d = torch.where(torch.logical_and(grad > 0, param < 0) | ~torch.isnan(c), c, torch.ones_like(c))
    e = torch.where(torch.logical_not((grad >= 0) & (param <= 0)), -d, d) / n.k + (n.k > 0) * grad + (grad == param) + (grad != 0)
    f = torch.minimum(e, 2 * size) + np.sqrt(size) + np.maximum(grad, 0.0) + torch.tensor(3.0) * grad + np.float64(2) / size
    g = torch.lerp(f, size, torch.exp(-size)) + torch.true_divide(f, size) + torch.square(param) - grad * param + (1 - grad * 2)
    h = torch.where(lr > 0.5, 1.0, 2.0) * g + torch.where(grad > 0, 0.1, 0.3) + abs(param) - (-(grad * param)) + grad / param.sub(9)
    known = torch.where(n.step > 5, torch.exp(-n.k), torch.clamp(torch.log(n.k + 1), max=0.5)) + math.sqrt(2) + torch.sign(n.k) ** 2
    return lr * h * known, state.replace(one=1.0, rate=lr * n.k, kept=state.kept, flag=grad.gt(param), root=torch.sqrt(n.k * n.step))


def special(grad, param, state, lr, n):
    """What torch makes of NaN and infinity; nothing is rounded."""
    largest = torch.maximum(grad, param)
    return torch.minimum(grad, param), state.replace(
        largest=largest,
        clamped=grad.clamp(-1, n.one),
        sign=torch.sign(grad),
        nan=torch.isnan(grad) + 2 * torch.logical_not(grad) + 4.0 * (grad != param) + 8.0 * ~(grad <= param),
        chosen=torch.where(grad > param, grad, 0.0),
        size=torch.abs(grad),
    )


BETAS = dict(beta1=0.9, beta2=0.999, eps=1e-8)
CASES = {
    "sgd": Case(sgd, (), {}),
    "lion": Case(lion, ("exp_avg",), dict(beta1=0.9, beta2=0.99, weight_decay=0.1)),
    "adamw": Case(adamw, ("exp_avg", "exp_avg_sq"), BETAS, {}, ("exp_avg_sq",)),
    "amsgrad": Case(amsgrad, ("exp_avg_sq", "max_exp_avg_sq"), dict(beta2=0.99, eps=1e-8), {}, ("exp_avg_sq", "max_exp_avg_sq")),
    "adagrad": Case(adagrad, ("sum",), dict(lr_decay=0.01, eps=1e-10), {}, ("sum",)),
    "signum": Case(signum, ("momentum_buffer",), dict(momentum=0.9), dict(nesterov=False)),
    "signum, nesterov": Case(signum, ("momentum_buffer",), dict(momentum=0.9), dict(nesterov=True)),
    "adabelief": Case(adabelief, ("exp_avg", "exp_avg_var"), dict(beta1=0.9, beta2=0.99, eps=1e-6), {}, ("exp_avg_var",)),
    "adan": Case(
        adan,
        ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous"),
        dict(beta1=0.98, beta2=0.92, beta3=0.99, eps=1e-8),
        {},
        ("exp_avg_sq",),
    ),
    "rprop": Case(rprop, ("previous", "size"), dict(eta_plus=1.2, eta_minus=0.5, least=1e-6), {}, ("size",)),
    "adadelta": Case(adadelta, ("square_avg", "acc_delta"), dict(rho=0.9, eps=1e-6), {}, ("square_avg", "acc_delta")),
    "cautious": Case(cautious, ("exp_avg",), dict(beta1=0.9)),
    "special": Case(special, ("largest", "clamped", "sign", "nan", "chosen", "size"), dict(one=1.0)),
    "every word": Case(every_word, ("one", "rate", "kept", "flag", "root"), dict(k=0.75)),
}
