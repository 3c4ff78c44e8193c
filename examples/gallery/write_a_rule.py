# %% [markdown]
# # Write a rule of your own
#
# An update rule is a function of a few lines. `fusedrms.rule` makes an optimizer of it: one fused step for all parameters, on CPUs
# and GPUs, with clipping, weight decay, lean states and checkpoints. This page writes Adamax, checks it, and trains with it.

# %% Imports
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch
from page import unless_small

import fusedrms
from gpt import GPT, batch, corpus

# %% [markdown]
# ## The rule
#
# Adamax is algorithm 2 of Kingma and Ba, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980):
#
# $$
# \begin{aligned}
# m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
# u &\leftarrow \max(\beta_2 u, |g| + \epsilon) \\
# \theta &\leftarrow \theta - \frac{\alpha}{1 - \beta_1^t} \frac{m}{u}
# \end{aligned}
# $$
#
# The function is given the gradient, the parameter, the old states, the learning rate and the options, each for one element. It
# returns what the parameter loses, and the new states. It is written with torch's functions.


# %% Adamax
@fusedrms.rule(
    states=dict(exp_avg=0.0, exp_inf=fusedrms.State(nonnegative=True)),
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
)
def Adamax(grad, param, state, lr, n):
    beta1, beta2 = n.betas
    m = beta1 * state.exp_avg + (1 - beta1) * grad
    u = torch.maximum(beta2 * state.exp_inf, torch.abs(grad) + n.eps)
    return lr / (1 - beta1**n.step) * m / u, state.replace(exp_avg=m, exp_inf=u)


# %% [markdown]
# ## Check it
#
# `check()` computes some steps with everyone who can: the compiled code for CPUs, Triton's for GPUs (here in its interpreter),
# the function itself with torch, and a function of yours in NumPy. If two differ by more than rounding, it raises an error that
# shows the step and the values. It also prints what the rule compiles to, for an H100 and for this CPU.


# %% Compare with NumPy
def adamax_in_numpy(grad, param, state, lr, n):
    beta1, beta2 = n.betas
    m = beta1 * state.exp_avg + (1 - beta1) * grad
    u = np.maximum(beta2 * state.exp_inf, np.abs(grad) + n.eps)
    return lr * m / ((1 - beta1**n.step) * u), dict(exp_avg=m, exp_inf=u)


rows = Adamax.check(reference=adamax_in_numpy, modes="float32")


# %% [markdown]
# A mistake is seen. This reference forgets the bias correction:


# %% A reference that is wrong
def without_correction(grad, param, state, lr, n):
    update, states = adamax_in_numpy(grad, param, state, lr, n)
    return update * (1 - n.betas[0] ** n.step), states


try:
    Adamax.check(reference=without_correction, modes="float32", targets="cpu")
except AssertionError as error:
    print(textwrap.fill(str(error), 120))

# %% [markdown]
# ## Compare with torch
#
# torch has Adamax too. Both optimizers start from the same weights and take the same gradients.

# %% The same steps with torch.optim.Adamax
torch.manual_seed(0)
ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 1000)) for _ in range(2))
optimizers = Adamax([ours], lr=1e-2), torch.optim.Adamax([theirs], lr=1e-2)
for _ in range(100):
    ours.grad = torch.randn(1000)
    theirs.grad = ours.grad.clone()
    for optimizer in optimizers:
        optimizer.step()
apart, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
print(f"after 100 steps the parameters, of up to {largest:.2f}, differ by {apart:.1e} at most")

# %% [markdown]
# ## Train with it
#
# A small GPT learns the source code of Python's standard library, with Adamax and with RMSProp. Both take options that the rule does
# not mention, such as `clip_grad_norm`. The learning rate is the best of three for each: the one with the lowest mean loss of the last
# 50 steps.

# %% Train with each, at three learning rates
STEPS, CONTEXT = unless_small(200, small=4), 64
text, _ = corpus()


def train(make: type, lr: float) -> list[float]:
    torch.manual_seed(0)
    model = GPT(layers=2, width=96, context=CONTEXT)
    optimizer = make(model.parameters(), lr=lr, clip_grad_norm=1.0)
    losses = []
    for step in range(STEPS):
        loss = model(*batch(text, 0, step, 12, CONTEXT))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


best: dict[str, tuple[float, list[float]]] = {}
for make, rates in ((Adamax, (1e-3, 2e-3, 4e-3)), (fusedrms.FusedRMSProp, (2.5e-4, 5e-4, 1e-3))):
    runs = {lr: train(make, lr) for lr in rates}
    ends = {lr: float(np.mean(losses[-50:])) for lr, losses in runs.items()}
    chosen = min(ends, key=ends.__getitem__)
    best[f"{make.__name__}, lr {chosen:g}"] = chosen, runs[chosen]
    print(make.__name__, {lr: round(end, 4) for lr, end in ends.items()})

# %% The training losses of the rule and of RMSProp, mean of 20 steps
figure, axes = plt.subplots()
for name, (_, losses) in best.items():
    window = min(20, STEPS)
    axes.plot(range(window, STEPS + 1), np.convolve(losses, np.full(window, 1 / window), "valid"), label=name)
axes.set(xlabel="step", ylabel="training loss (nats a byte)")
axes.legend()
plt.show()

# %% [markdown]
# One seed and a short run say little about which is better. They show that the rule trains.
#
# ## Read on
#
# * [Write a rule](../rules.md): states, options, the words that a rule may use, and errors.
# * [own_rules.py](../../examples/own_rules.py): Lion, AdamW, Adagrad, Signum, AdaBelief and Adan, written so.
