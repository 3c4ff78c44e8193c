# %% [markdown]
# # FSDP2 in two processes: killed, resumed, loaded by one
#
# FSDP2 (`fully_shard`) divides each parameter among processes, and so does the optimizer its states. This page trains a GPT in
# two processes, kills them, and resumes from the checkpoint. Then one process loads the same checkpoint without FSDP2.
#
# It runs on CPUs, where gloo connects the processes.

# %% Imports and sizes
import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
from page import EXAMPLES, unless_small
from torch.optim.lr_scheduler import LambdaLR

from fusedrms import FusedRMSProp
from gpt import GPT, batch, corpus
from train_gpt import rate
from training import checkpoint, resume
from training.learner import Learner
from training.parallel import process_group

STEPS, SAVE_EVERY = unless_small(120, small=8), unless_small(40, small=2)
SIZES = dict(layers=2, width=128, context=64)
BATCH, LR = 12, 1e-3

# %% [markdown]
# ## The command
#
# [train_gpt.py](../../examples/train_gpt.py) divides its model by `fully_shard` with `--parallel fsdp`. It saves the model and the
# optimizer by `torch.distributed.checkpoint` every 40 steps. `torchrun` starts the two processes.

# %% Start two processes
folder = Path(tempfile.mkdtemp())
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(*options: object) -> subprocess.Popen:
    command = [*TORCHRUN, EXAMPLES / "train_gpt.py", "--parallel", "fsdp", "--device", "cpu", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        return subprocess.Popen([*map(str, command)], env=environment, stdout=log, stderr=log, start_new_session=True)


def finish(process: subprocess.Popen) -> None:
    if process.wait():
        raise RuntimeError((folder / "log").read_text())


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


OPTIONS = [f"--{name}={value}" for name, value in SIZES.items()]
OPTIONS += [f"--batch={BATCH}", f"--lr={LR}", f"--steps={STEPS}", f"--save-every={SAVE_EVERY}", "--no-compare", "--stats=0"]
finish(start(*OPTIONS, "--output", folder / "whole"))
whole = losses(folder / "whole")
print(f"{len(whole)} steps, loss {whole[0]:.4f} to {whole[-1]:.4f}")

# %% [markdown]
# ## Killed
#
# A second run of the same command is killed as soon as it has saved a checkpoint. SIGKILL leaves a process no time to do anything.

# %% Kill all processes of a run
killed = folder / "killed"
process = start(*OPTIONS, "--output", killed)
while not (killed / "checkpoint").exists():
    if process.poll() is not None:
        raise RuntimeError((folder / "log").read_text())
    time.sleep(0.01)
os.killpg(process.pid, signal.SIGKILL)
process.wait()
found = resume.find(str(killed))
saved = found.about["step"]
shutil.copytree(found.folder, folder / "copy")
print(f"killed; the checkpoint is of step {saved}:", *sorted(file.name for file in (folder / "copy").iterdir()))

# %% [markdown]
# ## Resumed by two processes
#
# `--resume` loads model, optimizer and schedule, and goes on. We compare the losses of all steps as numbers, not to rounding.

# %% Resume, and compare
finish(start("--resume", killed))
resumed = losses(killed)
print(f"steps {saved + 1} to {STEPS} resumed; all {STEPS} losses equal, bit for bit: {resumed == whole}")

# %% [markdown]
# ## Loaded by one process
#
# A checkpoint has torch's names and the whole shape of each tensor, however many processes saved it. So this process can load a
# copy of the same checkpoint into a plain model. `Learner` holds a model, an optimizer and a schedule. Its `state_dict` comes from torch's
# `get_state_dict`, and `checkpoint.load` fills it by `torch.distributed.checkpoint`. `process_group()` makes a group of one process.

# %% Load in one process, without FSDP2, and train on
model = GPT(**SIZES)
optimizer = FusedRMSProp(model.named_parameters(), lr=LR)
schedule = LambdaLR(optimizer, lambda step: rate(step, STEPS))
learner = Learner("FusedRMSProp", model, optimizer, schedule)
with process_group():
    checkpoint.load(folder / "copy", {learner.name: learner})
print("step of the optimizer's state:", optimizer.state[model.norm.weight]["step"].item())

text, _ = corpus()
alone = []
for step in range(saved, STEPS):
    loss = model(*batch(text, 0, step, BATCH, SIZES["context"]))
    loss.backward()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    alone.append(loss.item())
apart = [abs(a - b) / b for a, b in zip(alone, whole[saved:], strict=True)]
print(f"relative difference from the two processes: {apart[0]:.1e} at the first step, {max(apart):.1e} at most")

# %% The losses of the whole run, of the run that was killed and resumed, and of one process from the same checkpoint
figure, axes = plt.subplots()
axes.plot(range(1, STEPS + 1), whole, color="lightgray", linewidth=5, label="2 processes, never stopped")
axes.plot(range(1, STEPS + 1), resumed, color="tab:blue", label="2 processes, killed and resumed")
axes.plot(range(saved + 1, STEPS + 1), alone, "--", color="tab:orange", label="1 process from the same checkpoint")
axes.axvline(saved, color="black", linestyle=":", label="checkpoint")
axes.set(xlabel="step", ylabel="training loss (nats a byte)")
axes.legend()
plt.show()
shutil.rmtree(folder)

# %% [markdown]
# Two processes add up the gradients in another order than one. That changes the last bits, and training amplifies them.
#
# ## Read on
#
# * [Several GPUs](../several_gpus.md): the commands for several GPUs and machines, and `fully_shard` in a loop of your own.
# * [Migrating](../migrating.md): what a checkpoint holds, and which optimizers can load it.
