# %% [markdown]
# # A GPT in bfloat16, with 8-bit states
#
# Two runs train the same small GPT on the same text. One keeps everything in float32. The other keeps the model in bfloat16,
# the missing bits of each weight beside it, and the optimizer's state in 8 bits. We compare the losses and the memory.
#
# The model reads bytes and predicts the next one. Its text is the source code of Python's standard library.

# %% Imports and sizes
import matplotlib.pyplot as plt
import numpy as np
import torch
from page import unless_small
from torch.optim.lr_scheduler import LambdaLR

from fusedrms import FusedRMSProp, export_master
from gpt import GPT, batch, corpus, spread
from train_gpt import rate

STEPS = unless_small(400, small=4)
LAYERS, WIDTH, CONTEXT, BATCH = 2, 128, 64, 12
text, held_out_text = corpus()
held_out = spread(held_out_text, 256, CONTEXT)

# %% [markdown]
# `master_weights="split"` stores the 16 bits that a bfloat16 weight lacks of its float32 value. Both halves together are the
# float32 weight, called the master. `state_dtype="8bit"` stores one byte for each number of the state, and one float32 scale for
# every 64 of them.

# %% Two precision modes
MODES = {
    "float32": (torch.float32, {}),
    "bfloat16, split, 8bit": (torch.bfloat16, dict(master_weights="split", state_dtype="8bit")),
}


# %% [markdown]
# The training loop is the same for both. `rate` is a warm-up and a cosine. `bias_correction=True` keeps the first steps small, as
# in Adam.


# %% Training
@torch.no_grad()
def held_out_loss(model: GPT) -> float:
    return model(*held_out).item()


def train(dtype: torch.dtype, options: dict) -> tuple[GPT, FusedRMSProp, list[float], dict[int, float]]:
    torch.manual_seed(0)
    model = GPT(LAYERS, WIDTH, CONTEXT).to(dtype)
    optimizer = FusedRMSProp(model.named_parameters(), lr=3e-4, bias_correction=True, **options)
    schedule = LambdaLR(optimizer, lambda step: rate(step, STEPS))
    losses, held_out_losses = [], {}
    for step in range(STEPS):
        loss = model(*batch(text, 0, step, BATCH, CONTEXT))
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % (STEPS // 4) == 0:
            held_out_losses[step + 1] = held_out_loss(model)
    return model, optimizer, losses, held_out_losses


runs = {name: train(*mode) for name, mode in MODES.items()}
for name, (model, _, _, measured) in runs.items():
    numbers = ", ".join(f"{step}: {loss:.4f}" for step, loss in measured.items())
    print(f"{name:22} {sum(p.numel() for p in model.parameters()):,} parameters; held-out loss after step {numbers}")

# %% The training losses of both modes (lines, mean of 20 steps) and their held-out losses (dots)
figure, axes = plt.subplots()
for (name, (_, _, losses, measured)), color, style in zip(runs.items(), ("tab:blue", "tab:orange"), ("-", "--"), strict=True):
    window = min(20, STEPS)
    axes.plot(range(window, STEPS + 1), np.convolve(losses, np.full(window, 1 / window), "valid"), style, color=color, label=name)
    axes.plot(list(measured), list(measured.values()), "o", color=color, alpha=0.6, label=f"{name}, held-out")
axes.set(xlabel="step", ylabel="loss (nats a byte)")
axes.legend()
plt.show()

# %% [markdown]
# These are single short runs, whose losses agree by this choice of options. With a learning rate of 1e-3, trials with seed 0 differed
# visibly: with bias correction float32 had the lower loss, and without it bfloat16. [Precision modes](../precision.md) compares
# longer runs, over several seeds.
#
# ## Memory
#
# `optimizer.memory()` tells the bytes of parameters, gradients and states. With `planned=True` it counts the gradients of a step
# that is to come, which `zero_grad()` has freed here.

# %% Bytes a parameter
parts = {name: optimizer.memory(planned=True).per_parameter for name, (_, optimizer, _, _) in runs.items()}
print(" " * 16, *(f"{name:>22}" for name in parts))
for part in parts["bfloat16, split, 8bit"]:
    print(f"{part:16}", *(f"{own.get(part, 0.0):22.4f}" for own in parts.values()))

# %% Bytes a parameter of each mode: parameters, gradients, master bits, state and its scales
figure, axes = plt.subplots(figsize=(8, 2.4))
left = np.zeros(len(parts))
for part in ("parameters", "gradients", "master_param", "square_avg", "square_avg_scale"):
    n_bytes = np.array([own.get(part, 0.0) for own in parts.values()])
    axes.barh(list(parts), n_bytes, left=left, label=part)
    left += n_bytes
axes.bar_label(axes.containers[-1], [f"{total:.2f}" for total in left], padding=4)  # pyright: ignore[reportArgumentType]
axes.set(xlabel="bytes a parameter", xlim=(0, 14))
axes.invert_yaxis()
figure.legend(loc="outside upper center", ncols=5, fontsize=8)
plt.show()

# %% [markdown]
# ## The float32 weights
#
# `export_master` gives each parameter with its float32 master, so the model can be saved or evaluated in float32. A parameter is the
# bfloat16 number nearest to its master. Of two that are equally near, it is the one farther from 0, where torch takes the even one.

# %% The masters, as a float32 model
model, optimizer, _, _ = runs["bfloat16, split, 8bit"]
masters = dict(export_master(optimizer))
whole = GPT(LAYERS, WIDTH, CONTEXT)
whole.load_state_dict({name: masters[parameter] for name, parameter in model.named_parameters()})

weight = model.blocks[0].get_parameter("up.weight")
print(f"one weight: {weight[0, 0].item()} in bfloat16, {masters[weight][0, 0].item()} in float32")
others = sum((masters[p].bfloat16() != p).sum().item() for p in model.parameters())
print(f"{others} of {sum(p.numel() for p in model.parameters()):,} masters are rounded otherwise by torch")
print(f"held-out loss: {held_out_loss(model):.4f} in bfloat16, {held_out_loss(whole):.4f} with the masters in float32")

# %% [markdown]
# ## Read on
#
# * [Precision modes](../precision.md): all modes, how each works, and what each cost in held-out loss.
# * [Large models](../large_models.md): which mode to take, and what fits into a GPU.
# * [train_gpt.py](../../examples/train_gpt.py): the whole program, with checkpoints and several processes.
