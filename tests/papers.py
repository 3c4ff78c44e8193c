"""The rules of examples/own_rules.py as their authors' code has them, and what one might have wrong.

Compared by hand with timm 1.0.31, adabelief-pytorch 0.2.1 (rectify=False) and pytorch_optimizer 4.1.0 (SignSGD): after 50 steps float64
parameters of the rules differ by 1e-13 of themselves at most, with Adan's proximal decay, and by 3e-14 else.
"""

from sized import exactly, sign, sqrt


def lion(p, g, s, t, unit, *, lr, betas, weight_decay):
    beta1, beta2 = betas
    update = sign(beta1 * s["exp_avg"] + (1 - beta1) * g, unit)
    p = p * (1 - lr * weight_decay) - lr * update
    return p, dict(exp_avg=beta2 * s["exp_avg"] + (1 - beta2) * g)


def signum(p, g, s, t, unit, *, lr, momentum, weight_decay):
    buffer = momentum * s["momentum_buffer"] + (1 - momentum) * g
    return p * (1 - lr * weight_decay) - lr * sign(buffer, unit), dict(momentum_buffer=buffer)


def adagrad(p, g, s, t, unit, *, lr, lr_decay, initial_accumulator_value, eps, weight_decay):
    g = g + weight_decay * p
    sum = (s["sum"] if t > 1 else exactly(0 * g.value + initial_accumulator_value)) + g * g
    rate = lr / (1 + (t - 1) * lr_decay)
    return p - rate * g / (sqrt(sum) + eps), dict(sum=sum)


def adamw(p, g, s, t, unit, *, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    m = beta1 * s["exp_avg"] + (1 - beta1) * g
    v = beta2 * s["exp_avg_sq"] + (1 - beta2) * g * g
    p = p * (1 - lr * weight_decay)
    denom = sqrt(v) / (1 - beta2**t) ** 0.5 + eps
    return p - lr / (1 - beta1**t) * m / denom, dict(exp_avg=m, exp_avg_sq=v)


def adabelief(p, g, s, t, unit, *, lr, betas, eps, weight_decay):
    beta1, beta2 = betas
    p = p * (1 - lr * weight_decay)
    m = beta1 * s["exp_avg"] + (1 - beta1) * g
    v = beta2 * s["exp_avg_var"] + (1 - beta2) * (g - m) * (g - m)
    v = v + eps
    denom = sqrt(v) / (1 - beta2**t) ** 0.5 + eps
    return p - lr / (1 - beta1**t) * m / denom, dict(exp_avg=m, exp_avg_var=v)


def adan(p, g, s, t, unit, *, lr, betas, eps, weight_decay):
    beta1, beta2, beta3 = betas
    diff = g + s["neg_pre_grad"] if t > 1 else exactly(0 * g.value)
    m = beta1 * s["exp_avg"] + (1 - beta1) * g
    d = beta2 * s["exp_avg_diff"] + (1 - beta2) * diff
    ahead = g + beta2 * diff
    v = beta3 * s["exp_avg_sq"] + (1 - beta3) * ahead * ahead
    denom = sqrt(v) / (1 - beta3**t) ** 0.5 + eps
    p = p * (1 - lr * weight_decay)
    p = p - lr / (1 - beta1**t) * m / denom - lr * beta2 / (1 - beta2**t) * d / denom
    return p, dict(exp_avg=m, exp_avg_diff=d, exp_avg_sq=v, neg_pre_grad=-g)


USED = {  # options other than the defaults, so that each shows
    "Lion": (lion, dict(lr=1e-3, weight_decay=0.1)),
    "Signum": (signum, dict(lr=1e-3, weight_decay=0.1)),
    "Adagrad": (adagrad, dict(lr=1e-2, lr_decay=0.1, initial_accumulator_value=1e-9, eps=1e-5, weight_decay=1e-4)),
    "AdamW": (adamw, dict(lr=1e-3, eps=1e-5, weight_decay=0.1)),
    "AdaBelief": (adabelief, dict(lr=1e-3, eps=1e-8, weight_decay=0.1)),
    "Adan": (adan, dict(lr=1e-3, eps=1e-5, weight_decay=0.1)),
}
# for each what could be wrong: in its reference, (is, would be)
MUTATIONS = {
    "Lion": [("1 - beta1) * g", "1 - beta2) * g"), ("=beta2 *", "=beta1 *"), ("lr * weight_decay", "lr * weight_decay * 0.9")],
    "Signum": [("(1 - momentum) * g", "g - 1e-3"), ("1 - lr * weight_decay", "1 - weight_decay / 99")],
    "Adagrad": [
        ("sqrt(sum) + eps", "sqrt(sum + eps)"),
        ("sqrt(sum) + eps", "sqrt(sum)"),
        ("(t - 1)", "t"),
        ("if t > 1", "if t > 0"),
        ("weight_decay * p", "0 * p"),
    ],
    "AdamW": [
        ("sqrt(v) / (1 - beta2**t) ** 0.5 + eps", "sqrt(v + eps) / (1 - beta2**t) ** 0.5"),
        ("sqrt(v) / (1 - beta2**t) ** 0.5 + eps", "(sqrt(v) + eps) / (1 - beta2**t) ** 0.5"),
        (" / (1 - beta2**t) ** 0.5", ""),
        (" / (1 - beta1**t)", ""),
        ("lr * weight_decay)", "lr * weight_decay * 0.9)"),
        ("(1 - beta2) * g * g", "beta2 * g * g"),
    ],
    "AdaBelief": [
        ("v = v + eps", "v = v"),
        ("exp_avg_var=v", "exp_avg_var=v - eps"),
        ("** 0.5 + eps", "** 0.5"),
        ("(g - m) * (g - m)", "(g - s['exp_avg']) * (g - s['exp_avg'])"),
        (" / (1 - beta1**t)", ""),
        (" / (1 - beta2**t) ** 0.5", ""),
    ],
    "Adan": [
        (" if t > 1 else exactly(0 * g.value)", ""),
        ("ahead = g + beta2", "ahead = g + (1 - beta2)"),
        ("lr * beta2 /", "lr /"),
        ("** 0.5 + eps", "** 0.5"),
        (" / (1 - beta1**t)", ""),
        (" / (1 - beta2**t)", ""),
        (" / (1 - beta3**t) ** 0.5", ""),
    ],
}
