"""Six optimizers that this package does not have, each an update rule of a few lines whose step is one fused launch.

    python examples/own_rules.py  # trains with each of them, in some seconds

    from own_rules import Lion
    optimizer = Lion(model.parameters(), lr=1e-4, weight_decay=0.1, state_dtype="8bit")

Defaults are those of the originals, states have the names that torch's and timm's optimizers give them.
"""

from __future__ import annotations

import sys
import time

import torch
from rich.table import Table
from torch import nn

import fusedrms
from fusedrms.rules.optimizer import WrittenOptimizer
from fusedrms.tools.printing import console, plain_where_needed

SQUARES = fusedrms.State(nonnegative=True)
ADANS = dict(exp_avg=0.0, exp_avg_diff=0.0, exp_avg_sq=SQUARES, neg_pre_grad=0.0)


@fusedrms.rule(states=["exp_avg"], lr=1e-4, betas=(0.9, 0.99), decoupled_weight_decay=True)
def Lion(grad, param, state, lr, n):
    """Chen et al., arXiv:2302.06675, algorithm 2."""
    beta1, beta2 = n.betas
    update = torch.sign(beta1 * state.exp_avg + (1 - beta1) * grad)
    return lr * update, state.replace(exp_avg=beta2 * state.exp_avg + (1 - beta2) * grad)


@fusedrms.rule(states=["momentum_buffer"], lr=1e-2, momentum=0.9, decoupled_weight_decay=True)
def Signum(grad, param, state, lr, n):
    """Bernstein et al., arXiv:1802.04434, algorithm 2; defaults of MXNet's."""
    buffer = n.momentum * state.momentum_buffer + (1 - n.momentum) * grad
    return lr * torch.sign(buffer), state.replace(momentum_buffer=buffer)


@fusedrms.rule(states=dict(sum=SQUARES), lr=1e-2, lr_decay=0.0, initial_accumulator_value=0.0, eps=1e-10)
def Adagrad(grad, param, state, lr, n):
    """Duchi et al., JMLR 12 (2011), 2121-2159, as torch.optim.Adagrad has it."""
    sum = torch.where(n.step > 1, state.sum, n.initial_accumulator_value) + grad * grad
    rate = lr / (1 + (n.step - 1) * n.lr_decay)
    return rate * grad / (torch.sqrt(sum) + n.eps), state.replace(sum=sum)


@fusedrms.rule(states=dict(exp_avg=0.0, exp_avg_sq=SQUARES), betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, decoupled_weight_decay=True)
def AdamW(grad, param, state, lr, n):
    """Loshchilov and Hutter, arXiv:1711.05101, algorithm 2, as torch.optim.AdamW has it."""
    beta1, beta2 = n.betas
    m = beta1 * state.exp_avg + (1 - beta1) * grad
    v = beta2 * state.exp_avg_sq + (1 - beta2) * grad * grad
    root = torch.sqrt(v) / torch.sqrt(1 - beta2**n.step) + n.eps
    return lr / (1 - beta1**n.step) * m / root, state.replace(exp_avg=m, exp_avg_sq=v)


@fusedrms.rule(states=dict(exp_avg=0.0, exp_avg_var=SQUARES), betas=(0.9, 0.999), eps=1e-16, decoupled_weight_decay=True)
def AdaBelief(grad, param, state, lr, n):
    """Zhuang et al., arXiv:2010.07468, as adabelief-pytorch 0.2.1 with rectify=False: epsilon stays in exp_avg_var."""
    beta1, beta2 = n.betas
    m = beta1 * state.exp_avg + (1 - beta1) * grad
    s = beta2 * state.exp_avg_var + (1 - beta2) * (grad - m) * (grad - m) + n.eps
    m_hat = m / (1 - beta1**n.step)
    s_hat = s / (1 - beta2**n.step)
    return lr * m_hat / (torch.sqrt(s_hat) + n.eps), state.replace(exp_avg=m, exp_avg_var=s)


@fusedrms.rule(states=ADANS, betas=(0.98, 0.92, 0.99), eps=1e-8, decoupled_weight_decay=True)
def Adan(grad, param, state, lr, n):
    """Xie et al., arXiv:2208.06677, with decoupled weight decay, as its code has it with no_prox=True."""
    beta1, beta2, beta3 = n.betas
    diff = torch.where(n.step > 1, grad + state.neg_pre_grad, 0.0)
    m = beta1 * state.exp_avg + (1 - beta1) * grad
    v = beta2 * state.exp_avg_diff + (1 - beta2) * diff
    s = beta3 * state.exp_avg_sq + (1 - beta3) * (grad + beta2 * diff) * (grad + beta2 * diff)
    step = m / (1 - beta1**n.step) + beta2 * v / (1 - beta2**n.step)
    root = torch.sqrt(s / (1 - beta3**n.step))
    return lr * step / (root + n.eps), state.replace(exp_avg=m, exp_avg_diff=v, exp_avg_sq=s, neg_pre_grad=-grad)


RATES = {Lion: 3e-3, Signum: 3e-3, Adagrad: 5e-2, AdamW: 1e-2, AdaBelief: 1e-2, Adan: 1e-2}


def train(rule: type[WrittenOptimizer], lr: float, steps: int = 200) -> list[float]:
    """Losses of a small network that learns a sine."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = rule(model.parameters(), lr=lr)
    x = torch.linspace(-3, 3, 128)[:, None]
    losses = []
    for _ in range(steps):
        loss = nn.functional.mse_loss(model(x), torch.sin(2 * x))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def main() -> None:
    result = Table("rule", title="A small network learns a sine: its loss")
    for name in ("lr", "before", "after", "seconds, with compiling"):
        result.add_column(name, justify="right")
    for rule, lr in RATES.items():
        began = time.perf_counter()
        losses = train(rule, lr)
        result.add_row(rule.__name__, f"{lr:g}", f"{losses[0]:.3f}", f"{losses[-1]:.4f}", f"{time.perf_counter() - began:.1f}")
    console().print(result)


if __name__ == "__main__":
    plain_where_needed(sys.stderr)
    main()
