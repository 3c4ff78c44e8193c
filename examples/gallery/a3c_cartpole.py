# %% [markdown]
# # CartPole by A3C and A2C
#
# In A3C several processes play, and all update one shared model by one shared RMSProp, without locks. In A2C one process plays
# several environments and updates the model alone. This page learns CartPole by both, and measures how much of the time
# the optimizer takes.

# %% Imports
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from page import EXAMPLES, unless_small

from a3c.cartpole import ActorCritic
from fusedrms import presets

# %% [markdown]
# ## The optimizer
#
# `presets.a3c2016` is the RMSProp of the A3C paper, and `presets.impala2018` that of IMPALA's published code. Both have epsilon
# inside of the root. This is all that differs in their options:

# %% Two presets
model = ActorCritic().share_memory()
a3c = presets.a3c2016(model.parameters(), eta=3e-3, epsilon=1e-5, clip_norm=40.0)
impala = presets.impala2018(model.parameters(), learning_rate=3e-3, epsilon=1e-5, clip_norm=40.0)
for name, value in a3c.param_groups[0].items():
    if name not in ("params", "seed") and value != impala.param_groups[0][name]:
        print(f"{name}: {value} for A3C, {impala.param_groups[0][name]} for IMPALA")

# %% [markdown]
# `share_memory()` moves the optimizer's states into memory that processes share. Call it before the workers start, and pass each
# worker the model and the optimizer. With `lock=True` only one process steps at a time.

# %% Shared states
a3c.share_memory()
print({name: state.is_shared() for name, state in a3c.state[model.hidden.weight].items() if isinstance(state, torch.Tensor)})

# %% [markdown]
# ## Learning
#
# [train_a3c.py](../../examples/train_a3c.py) is the whole program: two workers for A3C, then A2C with eight environments. It
# writes each episode and the time of the optimizer into a folder. By itself it stops when the policy is good enough. An episode
# returns at most 500, so `--solved 501` has it go on to the last step.

# %% Learn by both
steps = unless_small(60_000, small=600)
with tempfile.TemporaryDirectory() as folder:
    output = Path(folder, "run")
    command = [sys.executable, str(EXAMPLES / "train_a3c.py"), "--steps", str(steps), "--solved", "501", "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((output / "results.json").read_text())
    with (output / "episodes.csv").open() as file:
        episodes = list(csv.DictReader(file))

for name, own in results["algorithms"].items():
    share = own["optimizer_seconds"] / own["learning_seconds"]
    print(
        f"{name}: mean return {own['final_return']:.1f} of {own['final_episodes']} episodes, after {own['steps']:,} steps, "
        f"{own['updates']:,} updates and {own['seconds']:.0f} s; the optimizer took {share:.1%} of the processes' time"
    )

# %% The return of each episode (dots), their running mean (lines), and evaluations by the likeliest actions (circles)
figure, axes = plt.subplots()
for (name, own), color in zip(results["algorithms"].items(), ("tab:blue", "tab:orange"), strict=True):
    at, returns = np.array([(row["steps"], row["return"]) for row in episodes if row["algorithm"] == name], float).T
    window = min(50, len(returns))
    axes.plot(at, returns, ".", color=color, alpha=0.3, markersize=3)
    axes.plot(at[window - 1 :], np.convolve(returns, np.full(window, 1 / window), "valid"), color=color, label=name)
    axes.plot(*np.array(own["evaluations"]).reshape(-1, 2).T, "o--", color=color, alpha=0.6, label=f"{name}, evaluations")
axes.set(xlabel="steps of environments", ylabel="return of an episode (at most 500)", ylim=(0, 515))
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# A policy that has reached 500 may fall again while it learns on. That is why the program, by itself, stops at a policy that passes
# two evaluations.
#
# ## The optimizer's share of an update
#
# After the learning the program times one worker alone. It plays, computes gradients, and steps with each of two optimizers along
# the same gradients. `fusedrms` is the preset. `by-hand` is a loop over parameters with torch's operations, as programs for A3C
# have it. The times are those of one run, on a machine that others used too.

# %% The median time of a step of each optimizer, in microseconds
seconds = results["update_seconds"]
rest = seconds.pop("the rest")
for name, own in seconds.items():
    print(f"{name:9} {1e6 * own:6.1f} µs a step, {own / (own + rest):.1%} of an update")
figure, axes = plt.subplots(figsize=(8, 1.8))
bars = axes.barh(list(seconds), [1e6 * own for own in seconds.values()], color=["tab:blue", "tab:gray"])
axes.bar_label(bars, fmt="%.0f", padding=4)
axes.set(xlabel="time of a step (µs, median)", xlim=(0, 1.15e6 * max(seconds.values())))
axes.invert_yaxis()
plt.show()

# %% [markdown]
# ## Read on
#
# * [Reinforcement learning](../reinforcement_learning.md): the presets of DQN, A3C and IMPALA, and how to use them.
# * [Threads and processes](../processes.md): what processes may do at the same time, and what a lock is for.
# * `make train-rl` runs the program, with a progress bar and plots.
