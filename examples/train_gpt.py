"""Train a byte-level GPT on the standard library's sources with FusedRMSProp, beside torch.optim.RMSprop.

    python examples/train_gpt.py                        # under 3 minutes on 2 CPU cores
    python examples/train_gpt.py --layers 12 --heads 12 --width 768 --context 1024 --lr 3e-4 --dtype bfloat16
    python examples/train_gpt.py --resume               # continue the run saved last, bit for bit
    torchrun --standalone --nproc-per-node 2 examples/train_gpt.py --parallel fsdp

Both optimizers start from the same weights and take turns on the same batches. A run writes metrics.csv, loss.png and
checkpoint/ to runs/<time>/, and keeps the checkpoint before. Ctrl-C finishes the step, saves and stops; a second Ctrl-C stops at once.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from argparse import ArgumentParser
from collections import deque
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import checkpoint
from fusedrms.tools.printing import plain_where_needed
from gpt import GPT, batch, spread
from options import LOCK, Job, parser, prepare
from parallel import first_decides, gathered, own_device, parallelized, process_group, share, wait_at_most
from report import plot, table, write_csv
from settings import OPTIMIZERS, is_evaluated, optimizers

HELD_OUT_WINDOWS = 256


def rate(step: int, steps: int) -> float:
    """Learning-rate factor: linear warm-up, then a cosine down to a tenth."""
    warmup = math.ceil(steps / 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


class Trainer:
    """One optimizer with its own model and learning-rate schedule; what state_dict returns is the same for any number of processes."""

    def __init__(self, name: str, settings: dict, parallel: str | None):
        self.name, self.device = name, own_device(settings["device"])
        half = settings["dtype"] == "float16"
        torch.manual_seed(settings["seed"])  # every trainer starts from the same weights
        model = GPT(settings["layers"], settings["width"], settings["context"], settings["heads"])
        self.model = parallelized(model.to(self.device, getattr(torch, settings["dtype"])), parallel, self.device)
        # Squared gradients underflow in float16; the step hardly depends on the gradient's scale, so it is raised for good.
        self.scale = 128 if half else 1
        self.optimizer = OPTIMIZERS[name](self.model.parameters(), lr=settings["lr"], eps=1e-3 if half else 1e-8)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate(step, settings["steps"]))
        self.seconds: deque[float] = deque(maxlen=20)

    def state_dict(self) -> dict:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def step(self, tokens: Tensor, targets: Tensor) -> dict:
        """Take one step; return its row of metrics, with the loss on this process's share of the batch."""
        start = self.clock()
        loss = self.model(share(tokens).to(self.device), share(targets).to(self.device))
        self.optimizer.zero_grad()
        (loss * self.scale).backward()
        begin = self.clock()
        self.optimizer.step()
        end = self.clock()
        self.seconds.append(end - start)
        lr = self.schedule.get_last_lr()[0]
        self.schedule.step()
        return {"optimizer": self.name, "train_loss": loss.item(), "optimizer_ms": 1e3 * (end - begin), "lr": lr}

    @torch.no_grad()
    def evaluate(self, tokens: Tensor, targets: Tensor, size: int) -> float:
        """Mean loss over all windows, about `size` at a time."""
        count = max(1, len(tokens) // size)  # equal in all processes, which may have to meet in each part
        parts = zip(share(tokens).tensor_split(count), share(targets).tensor_split(count), strict=True)
        total = sum(len(x) * self.model(x.to(self.device), y.to(self.device)).item() for x, y in parts)
        return gathered([total]).sum().item() / len(tokens)


@contextmanager
def deferred_signals():
    """Yield a list that collects Ctrl-C and SIGTERM, so that neither cuts a step in half; a second one stops at once."""
    received: list[int] = []

    def note(number, _frame):
        received.append(number)
        signal.signal(number, signal.default_int_handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def save(job: Job, trainers: list[Trainer], step: int, last: Path | None) -> Path:
    """Write the metrics and the checkpoint, whose folder is returned; `last` is the one loaded or saved last."""
    with checkpoint.writing(job.folder, "metrics.csv"):
        first_decides(lambda: write_csv(job.rows, job.folder / "metrics.csv"))
    with checkpoint.writing(job.folder, checkpoint.CURRENT):
        about = {"settings": job.settings, "step": step, "rows": job.rows}
        return checkpoint.save(job.folder, {trainer.name: trainer for trainer in trainers}, about, last)


def train(job: Job, trainers: list[Trainer], console: Console) -> tuple[int, int]:
    """Train on, adding to the rows; return the last step and the number of the signal that stopped it, or 0."""
    step, stopped, last = job.step, 0, job.checkpoint
    steps, size, context, seed, save_every = (job.settings[name] for name in ("steps", "batch", "context", "seed", "save_every"))
    held_out = spread(job.held_out, max(HELD_OUT_WINDOWS, size), context)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console,
        expand=True,
    )
    with deferred_signals() as signals, progress:
        bars = [progress.add_task(trainer.name, completed=step, total=steps, state="") for trainer in trainers]
        while step < job.stop_at and not stopped:
            tokens, targets = batch(job.train, seed, step, size, context)
            step += 1
            rows = [{"step": step, **trainer.step(tokens, targets)} for trainer in trainers]
            everyone = gathered([*(row["train_loss"] for row in rows), signals[0] if signals else 0])
            stopped = int(everyone[:, -1].max())
            for row, loss, trainer, bar in zip(rows, everyone.mean(0).tolist(), trainers, bars, strict=False):
                row["train_loss"] = loss
                state = f"loss {loss:.3f} {len(trainer.seconds) / sum(trainer.seconds):6.2f} steps/s"
                progress.update(bar, completed=step, state=state)
                if is_evaluated(step, steps):
                    row["held_out_loss"] = trainer.evaluate(*held_out, size)
                    console.print(f"{step:6} {trainer.name:19} {state}  held-out {row['held_out_loss']:.3f}", highlight=False)
            job.rows.extend(rows)
            if step % save_every == 0 or step == job.stop_at or stopped:
                last = save(job, trainers, step, last)
    return step, stopped


@contextmanager
def held(folder: Path):
    """Keep other runs from writing to the folder; ValueError if one does."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder}: another run is writing to it; wait until it ends, or name another folder with --output") from None
    except OSError as error:
        raise ValueError(f"{lock.lock_file}: cannot be written ({error.strerror}); make room for it, or remove what is there") from None
    try:
        yield
    finally:
        lock.release()


def start(command: ArgumentParser, argv: list[str] | None, locks: ExitStack) -> Job:
    """The run that the command line asks for, whose folder is held until `locks` is closed."""
    try:
        return prepare(vars(command.parse_args(argv)), lambda folder: locks.enter_context(held(folder)))
    except (ValueError, OSError) as error:
        command.error(str(error))


def run(command: ArgumentParser, job: Job) -> int:
    console = Console(quiet=dist.get_rank() > 0)
    if job.settings["device"] != "cpu":  # else attention's backward pass is free to add up in any order
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    trainers = [Trainer(name, job.settings, job.parallel) for name in optimizers(job.settings)]
    steps, step, stopped = job.settings["steps"], job.step, 0
    if job.checkpoint:
        for note in job.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        console.print(f"Resuming {job.folder} after step {step} of {steps}", highlight=False, soft_wrap=True)
        try:
            checkpoint.load(job.checkpoint, {trainer.name: trainer for trainer in trainers})
            if (saved := trainers[0].schedule.last_epoch) != step:
                file = job.checkpoint / "run.json"
                raise ValueError(f"--resume: {file}: step is {step}, but the tensors beside it were saved after step {saved}; restore it")
        except ValueError as error:
            wrong = str(error)
            first_decides(lambda: command.error(wrong))
    parameters = sum(parameter.numel() for parameter in trainers[0].model.parameters())
    where = f"{job.settings['device']}, {dist.get_world_size()} processes" if job.parallel else job.settings["device"]
    console.print(f"{parameters:,} parameters, {len(job.train):,} bytes of text, on {where}", highlight=False)
    if step < steps:
        step, stopped = train(job, trainers, console)
    if step < steps:
        console.print(f"Stopped at step {step} of {steps}. Continue with --resume {job.folder}", highlight=False, soft_wrap=True)
        return 128 + stopped if stopped else 0
    if dist.get_rank() == 0:
        table(job.rows, console)
    with checkpoint.writing(job.folder, "loss.png"):
        first_decides(lambda: plot(job.rows, job.folder / "loss.png"))
    for name in ("metrics.csv", "loss.png", checkpoint.CURRENT):
        console.print(job.folder / name, highlight=False, soft_wrap=True)
    return 0


def main(argv: list[str] | None = None) -> int:
    command = parser(__doc__)
    with process_group(), ExitStack() as locks:
        job = first_decides(lambda: start(command, argv, locks))
        wait_at_most(job.timeout)
        try:
            return run(command, job)
        except checkpoint.NotSaved as error:
            wrong = str(error)
            return first_decides(lambda: command.exit(1, f"{command.prog}: error: {wrong}\n"))


if __name__ == "__main__":
    plain_where_needed(sys.stdout)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
