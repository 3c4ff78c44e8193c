"""What a training run leaves behind: metrics as CSV, the loss curves and update ratios as PNG, a table of results."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from statistics import fmean, median

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from fusedrms.tools.files import write
from training.stopwatch import COMPILING

COLUMNS = ("step", "optimizer", "train_loss", "held_out_loss", "optimizer_ms", "lr")
REFERENCE = "torch.optim.RMSprop"


def by_optimizer(rows: list[dict]) -> dict[str, list[dict]]:
    return {name: [row for row in rows if row["optimizer"] == name] for name in dict.fromkeys(row["optimizer"] for row in rows)}


def write_csv(rows: list[dict], path: Path) -> None:
    """Write one line a step and optimizer; the held-out loss is empty where it was not measured."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write(path, file.getvalue())


def plot(rows: list[dict], path: Path) -> None:
    """Draw the smoothed training losses and the held-out losses."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for (name, own), color, style in zip(by_optimizer(rows).items(), ("tab:blue", "tab:orange"), ("-", "--"), strict=False):
        window = 1 + len(own) // 50
        smooth = np.convolve([row["train_loss"] for row in own], np.full(window, 1 / window), "valid")
        axes.plot(range(window, len(own) + 1), smooth, style, color=color, label=f"{name}, training")
        points = [(row["step"], row["held_out_loss"]) for row in own if "held_out_loss" in row]
        axes.plot(*zip(*points, strict=True), "o" + style, color=color, alpha=0.5, label=f"{name}, held-out")
    axes.set(xlabel="step", ylabel="loss (nats a byte)", title="Byte-level GPT on Python's standard library")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def plot_ratios(ratios: dict[int, dict[str, float]], path: Path) -> None:
    """Draw the update ratio of each parameter, from top to bottom as the model has them, from its step to the next; nothing of none."""
    if not ratios:
        return
    steps, names = list(ratios), list(dict.fromkeys(name for own in ratios.values() for name in own))
    values = np.array([[own.get(name, np.nan) for own in ratios.values()] for name in names])
    logs = np.log10(values, out=np.full_like(values, np.nan), where=(values > 0) & np.isfinite(values))
    edges = [*steps, steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)]

    figure = Figure(figsize=(10, min(2 + 0.2 * len(names), 80)), layout="constrained")
    axes = figure.subplots()
    colors = axes.pcolormesh(edges, np.arange(len(names) + 1), np.ma.masked_invalid(logs))
    axes.set_facecolor("lightgray")  # where the ratio is 0 or not finite
    labelled = range(0, len(names), 1 + len(names) // 400)
    axes.set_yticks([row + 0.5 for row in labelled], [names[row] for row in labelled], fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_yaxis()
    axes.set_xlabel("step", fontsize=11)
    bar = figure.colorbar(colors, ax=axes, location="top", aspect=50)
    bar.set_label("log10 of the update ratio, |update| / |parameter|, of FusedRMSProp", fontsize=11, labelpad=8)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write(path, image.getvalue())


def table(rows: list[dict], console: Console) -> None:
    """Print the final losses and the optimizers' times."""
    runs = by_optimizer(rows)
    times = {name: [row["optimizer_ms"] for row in own] for name, own in runs.items()}
    middle = {name: median(part[COMPILING:] or part) for name, part in times.items()}
    result = Table("optimizer", title="Losses in nats a byte, optimizer time in milliseconds a step")
    for header in ("training loss", "held-out loss", "ms a step", "ratio"):
        result.add_column(header, justify="right")
    for name, own in runs.items():
        losses = fmean(row["train_loss"] for row in own[-20:]), own[-1]["held_out_loss"]
        ratio = f"{middle[name] / middle[REFERENCE]:.2f}" if REFERENCE in middle else "-"
        result.add_row(name, *(f"{loss:.4f}" for loss in losses), f"{middle[name]:.3f}", ratio)
    console.print(result)
    note = f"Time: median without the first {COMPILING} steps; ratio: to that of {REFERENCE}, below 1 is faster."
    console.print(f"Training loss: mean of the last 20 steps. {note}", highlight=False)
    for name, ms in middle.items():
        if times[name][0] > max(100, 10 * ms):
            console.print(f"First step of {name}, compilation included: {times[name][0] / 1e3:.1f} s.", highlight=False)
