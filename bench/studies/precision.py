"""Trains the byte-level GPT of examples/ in each precision mode, from the same weights on the same batches.

    python -m bench.studies.precision [--steps 1200] [--lr 3e-4] [--seeds 2] [--output bench/results]

The parameters are bfloat16, and so are their gradients; activations are float32, which a CPU computes faster. Writes
precision.json and precision.png.
"""

import io
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.func import functional_call

from bench.common.arguments import check_output, make_parser, writing
from bench.common.machine import machine
from bench.common.text import table
from fusedrms import FusedRMSProp
from fusedrms.tools.files import write
from gpt import GPT, batch, corpus, spread
from train_gpt import rate

BASELINE = "float32 master, float32 state"
MODES: dict[str, dict[str, Any]] = {
    BASELINE: dict(master_weights="float32"),
    "split master, float32 state": dict(master_weights="split"),
    "split master, bfloat16 state": dict(master_weights="split", state_dtype=torch.bfloat16),
    "split master, 8-bit state": dict(master_weights="split", state_dtype="8bit"),
    "stochastic rounding, float32 state": dict(stochastic_rounding=True),
    "stochastic rounding, 8-bit state": dict(stochastic_rounding=True, state_dtype="8bit"),
    "plain bfloat16, float32 state": {},
}
LAYERS, WIDTH, CONTEXT, HEADS, BATCH = 2, 192, 64, 4, 12
WINDOWS, EVALUATIONS = 512, 12  # held-out windows; how often


class Run:
    """One mode and seed: its model, its optimizer, its held-out losses."""

    def __init__(self, options: dict[str, Any], lr: float, steps: int, seed: int):
        torch.manual_seed(seed)
        self.model = GPT(LAYERS, WIDTH, CONTEXT, HEADS).bfloat16()
        self.optimizer = FusedRMSProp(self.model.parameters(), lr=lr, **options)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate(step, steps))
        self.losses: list[float] = []

    def loss(self, tokens, targets):
        wide = {name: param.float() for name, param in self.model.named_parameters()}
        return functional_call(self.model, wide, (tokens, targets))

    def step(self, tokens, targets) -> None:
        self.optimizer.zero_grad()
        self.loss(tokens, targets).backward()
        self.optimizer.step()
        self.schedule.step()

    @torch.no_grad()
    def evaluate(self, tokens, targets) -> None:
        parts = zip(tokens.split(64), targets.split(64), strict=True)
        self.losses.append(sum(len(x) * self.loss(x, y).item() for x, y in parts) / len(tokens))

    def n_bytes(self) -> float:
        """A parameter, without its gradient."""
        memory = self.optimizer.memory()
        return (memory.total - memory.gradients) / memory.numel


def against(results: dict, name: str) -> list[list[float]]:
    """By seed and evaluation, how much the loss is above the baseline's, as a share of it."""
    pairs = zip(results["runs"][name]["losses"], results["runs"][BASELINE]["losses"], strict=True)
    return [[loss / base - 1 for loss, base in zip(*pair, strict=True)] for pair in pairs]


def _table(results: dict) -> list[str]:
    lines = []
    for name, run in results["runs"].items():
        loss, more = fmean(losses[-1] for losses in run["losses"]), [shares[-1] for shares in against(results, name)]
        lines.append((name, f"{run['bytes']:.2f}", f"{loss:.4f}", f"{fmean(more):+.2%}", ", ".join(f"{share:+.2%}" for share in more)))
    header = ("mode", "bytes a parameter, gradient excluded", "held-out loss, mean", "against the first, mean", "of each seed")
    return table(header, lines)


TABLES: dict[str, Callable[[dict], list[str]]] = {"precision": _table}


def plot(results: dict, path: pathlib.Path) -> None:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, run in results["runs"].items():
        (line,) = left.plot(results["evaluated"], [fmean(losses) for losses in zip(*run["losses"], strict=True)], label=name)
        shares = np.array(against(results, name)) * 100
        right.plot(results["evaluated"], shares.mean(0), color=line.get_color())
        right.plot([results["steps"]] * len(shares), shares[:, -1], ".", color=line.get_color())
    left.set(xlabel="step", ylabel="held-out loss (nats a byte)", yscale="log", title="Byte-level GPT on Python's standard library")
    right.set(xlabel="step", ylabel=f"% above {BASELINE}", title=f"mean of {results['seeds']} seeds; dots: each at the end")
    right.axhspan(-0.5, 0.5, color="gray", alpha=0.2)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(fontsize=7)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write(path, image.getvalue())


def trained(steps: int, lr: float, seeds: int) -> tuple[list[int], dict[str, list[Run]]]:
    """At which steps the runs were evaluated, and those of each mode, one for each seed."""
    train, held_out = corpus()
    windows = spread(held_out, WINDOWS, CONTEXT)
    runs = {name: [Run(options, lr, steps, seed) for seed in range(seeds)] for name, options in MODES.items()}
    evaluated, begin = [], time.perf_counter()
    for step in range(1, steps + 1):
        for seed in range(seeds):
            tokens, targets = batch(train, seed, step, BATCH, CONTEXT)
            for of_mode in runs.values():
                of_mode[seed].step(tokens, targets)
        if step % (steps // EVALUATIONS) == 0 or step == steps:
            evaluated.append(step)
            for run in itertools.chain(*runs.values()):
                run.evaluate(*windows)
            means = (fmean(run.losses[-1] for run in of_mode) for of_mode in runs.values())
            print(f"{step:6} {time.perf_counter() - begin:5.0f} s", *(f"{mean:.4f}" for mean in means), flush=True)
    return evaluated, runs


def main() -> int:
    parser = make_parser("bench.studies.precision", __doc__, output=True)
    parser.add_argument("--steps", type=int, default=1200, help="(default: %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-4, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="how many (default: %(default)s)")
    given = parser.parse_args()
    if given.steps < EVALUATIONS or given.seeds < 1:
        parser.error(f"--steps {given.steps} --seeds {given.seeds}: must be at least {EVALUATIONS} and 1")
    check_output(parser, given.output)
    evaluated, runs = trained(given.steps, given.lr, given.seeds)
    command = f"{parser.prog} --steps {given.steps} --lr {given.lr} --seeds {given.seeds}"
    results = {
        **machine(torch.device("cpu"), command),
        "steps": given.steps,
        "seeds": given.seeds,
        "numel": sum(param.numel() for param in runs[BASELINE][0].model.parameters()),
        "evaluated": evaluated,
        "runs": {name: {"bytes": of_mode[0].n_bytes(), "losses": [run.losses for run in of_mode]} for name, of_mode in runs.items()},
    }
    print("\n".join(["", *_table(results)]))
    with writing(parser):
        write(given.output / "precision.json", json.dumps(results, indent=1) + "\n")
        plot(results, given.output / "precision.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
