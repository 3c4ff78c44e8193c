"""Train a byte-level GPT on the standard library's sources with FusedRMSProp, beside torch.optim.RMSprop.

    python examples/train_gpt.py                        # under two minutes on two CPU cores
    python examples/train_gpt.py --layers 12 --heads 12 --width 768 --context 1024 --lr 3e-4 --dtype bfloat16
    python examples/train_gpt.py --resume               # continue the run saved last, bit for bit

Both optimizers start from the same weights and take turns on the same batches. A run writes metrics.csv, loss.png and
checkpoint.pt to runs/<time>/. Ctrl-C finishes the step, saves and stops; a second Ctrl-C stops at once.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections import deque
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from fusedrms import FusedRMSProp
from gpt import GPT, batch, spread
from options import Job, parser, prepare
from report import plot, table, write_csv

OPTIMIZERS = {"FusedRMSProp": FusedRMSProp, "torch.optim.RMSprop": torch.optim.RMSprop}
EVALUATIONS, HELD_OUT_WINDOWS = 10, 256


def rate(step: int, steps: int) -> float:
    """Learning-rate factor: linear warm-up, then a cosine down to a tenth."""
    warmup = math.ceil(steps / 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


class Trainer:
    """One optimizer with its own model and learning-rate schedule."""

    def __init__(self, name: str, settings: dict):
        self.name, self.device = name, torch.device(settings["device"])
        half = settings["dtype"] == "float16"
        torch.manual_seed(settings["seed"])  # every trainer starts from the same weights
        model = GPT(settings["layers"], settings["width"], settings["context"], settings["heads"])
        self.model = model.to(self.device, getattr(torch, settings["dtype"]))
        # Squared gradients underflow in float16; the step hardly depends on the gradient's scale, so it is raised for good.
        self.scale = 128 if half else 1
        self.optimizer = OPTIMIZERS[name](self.model.parameters(), lr=settings["lr"], eps=1e-3 if half else 1e-8)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate(step, settings["steps"]))
        self.parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        self.seconds: deque[float] = deque(maxlen=20)

    def state(self) -> dict:
        return {key: part.state_dict() for key, part in self.parts.items()}

    def load(self, state: dict) -> None:
        for key, part in self.parts.items():
            part.load_state_dict(state[key])

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def step(self, tokens: Tensor, targets: Tensor) -> dict:
        """Take one step; return its row of metrics."""
        start = self.clock()
        loss = self.model.loss(tokens.to(self.device), targets.to(self.device))
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
        """Mean loss over all windows, `size` at a time."""
        parts = zip(tokens.split(size), targets.split(size), strict=True)
        return sum(len(x) * self.model.loss(x.to(self.device), y.to(self.device)).item() for x, y in parts) / len(tokens)


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


def save(job: Job, trainers: list[Trainer], step: int, rows: list[dict]) -> None:
    """Write the metrics and the checkpoint, which is replaced only when the new one is complete."""
    write_csv(rows, job.folder / "metrics.csv")
    states = {trainer.name: trainer.state() for trainer in trainers}
    partial = job.folder / "checkpoint.pt.partial"
    torch.save({"settings": job.settings, "step": step, "trainers": states, "rows": rows}, partial)
    os.replace(partial, job.folder / "checkpoint.pt")


def train(job: Job, trainers: list[Trainer], step: int, rows: list[dict], console: Console) -> tuple[int, int]:
    """Train on from `step`, adding to `rows`; return the last step and the number of the signal that stopped it, or 0."""
    steps, size, context, seed, save_every = (job.settings[name] for name in ("steps", "batch", "context", "seed", "save_every"))
    held_out = spread(job.held_out, HELD_OUT_WINDOWS, context)
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
        while step < job.stop_at and not signals:
            tokens, targets = batch(job.train, seed, step, size, context)
            step += 1
            for trainer, bar in zip(trainers, bars, strict=True):
                row = {"step": step, **trainer.step(tokens, targets)}
                rows.append(row)
                state = f"loss {row['train_loss']:.3f} {len(trainer.seconds) / sum(trainer.seconds):6.2f} steps/s"
                progress.update(bar, completed=step, state=state)
                if step % max(1, steps // EVALUATIONS) == 0 or step == steps:
                    row["held_out_loss"] = trainer.evaluate(*held_out, size)
                    console.print(f"{step:6} {trainer.name:19} {state}  held-out {row['held_out_loss']:.3f}", highlight=False)
            if step % save_every == 0:
                save(job, trainers, step, rows)
        save(job, trainers, step, rows)
    return step, signals[0] if signals else 0


def main(argv: list[str] | None = None) -> int:
    command, console = parser(__doc__), Console()
    try:
        job = prepare(vars(command.parse_args(argv)))
    except (ValueError, OSError) as error:
        command.error(str(error))
    if job.settings["device"] != "cpu":  # else attention's backward pass is free to add up in any order
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    trainers = [Trainer(name, job.settings) for name in list(OPTIMIZERS)[: 1 + job.settings["compare"]]]
    step, rows, stopped = 0, [], 0
    if job.saved:
        step, rows = job.saved["step"], job.saved["rows"]
        console.print(f"Resuming {job.folder} after step {step} of {job.settings['steps']}", highlight=False, soft_wrap=True)
        for trainer in trainers:
            trainer.load(job.saved["trainers"][trainer.name])
    steps = job.settings["steps"]
    parameters = sum(parameter.numel() for parameter in trainers[0].model.parameters())
    console.print(f"{parameters:,} parameters, {len(job.train):,} bytes of text, on {job.settings['device']}", highlight=False)
    if step < steps:
        step, stopped = train(job, trainers, step, rows, console)
    if step < steps:
        console.print(f"Stopped at step {step} of {steps}. Continue with --resume {job.folder}", highlight=False, soft_wrap=True)
        return 128 + stopped if stopped else 0
    plot(rows, job.folder / "loss.png")
    table(rows, console)
    for name in ("metrics.csv", "loss.png", "checkpoint.pt"):
        console.print(job.folder / name, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
