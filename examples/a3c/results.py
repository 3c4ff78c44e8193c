"""What a run leaves behind: episodes.csv, results.json, returns.png, and two tables. Only the main process loads it: it takes a while."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from a3c.by_hand import OPTIMIZERS
from a3c.course import EPISODES, FINAL_EPISODES, RUNNING, Course
from fusedrms.tools.files import write
from training.report import save


def write_results(courses: list[Course], seconds: dict[str, float], folder: Path) -> None:
    """Write the figures of a run, and draw its curves."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(("algorithm", "steps", "seconds", "return"))
    writer.writerows((course.name, steps, f"{seconds:.3f}", value) for course in courses for steps, seconds, value in course.episodes)
    write(folder / "episodes.csv", file.getvalue())

    algorithms = {
        course.name: dict(
            steps=course.steps,
            seconds=course.seconds,
            final_return=course.final,
            final_episodes=FINAL_EPISODES,
            evaluations=course.evaluations,
            updates=course.spent.updates,
            learning_seconds=course.spent.total,
            optimizer_seconds=course.spent.optimizer,
        )
        for course in courses
    }
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(courses[0].args).items()}
    content = dict(settings=settings, algorithms=algorithms, update_seconds=seconds)
    write(folder / "results.json", json.dumps(content, indent=2) + "\n")
    plot(courses, folder / "returns.png")


def plot(courses: list[Course], path: Path) -> None:
    """Draw the return of every episode, their running means, and the evaluations against steps of environments."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for course, color in zip(courses, ("tab:blue", "tab:orange"), strict=False):
        steps, _, returns = np.array(course.episodes).reshape(-1, 3).T
        axes.plot(steps, returns, ".", color=color, alpha=0.15, markersize=3)
        window = min(RUNNING, len(returns))
        if window:
            axes.plot(steps[window - 1 :], np.convolve(returns, np.full(window, 1 / window), "valid"), color=color, label=course.name)
        if course.evaluations:
            axes.plot(*zip(*course.evaluations, strict=True), "o--", color=color, alpha=0.6, label=f"{course.name}, evaluations")
    title = f"CartPole-v1: episodes (dots), means of {RUNNING} (lines), evaluations of {EPISODES}, by likeliest actions"
    axes.set(xlabel="steps of environments", ylabel="return", ylim=(0, 515), title=title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    save(figure, path)


def tables(courses: list[Course], seconds: dict[str, float], console: Console) -> None:
    """Print what was learnt, and the optimizer's share of the time."""
    learnt = Table("algorithm", title=f"Mean return of {FINAL_EPISODES} episodes, of at most 500")
    for header in ("return", "steps", "seconds", "updates", "optimizer's share of the processes' time"):
        learnt.add_column(header, justify="right")
    for course in courses:
        spent = course.spent
        share = f"{spent.optimizer / spent.total:.1%}" if spent.total else "-"
        learnt.add_row(course.name, f"{course.final:.1f}", f"{course.steps:,}", f"{course.seconds:.1f}", f"{spent.updates:,}", share)
    console.print(learnt)

    shares = Table("optimizer", title="One update after the learning, alone: medians")
    for header in ("µs a step", "its share"):
        shares.add_column(header, justify="right")
    rest = seconds["the rest"]
    for name in OPTIMIZERS:
        shares.add_row(name, f"{1e6 * seconds[name]:.0f}", f"{seconds[name] / (seconds[name] + rest):.1%}")
    shares.add_row("the rest", f"{1e6 * rest:.0f}", "")
    console.print(shares)
