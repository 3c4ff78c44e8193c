"""The figure of all problems: held-out losses, and what they are against float32's."""

import io
import pathlib

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.studies.precision.modes import BASELINE, USUAL
from bench.studies.precision.table import against, chance, losses, modes_of
from fusedrms.tools.files import write

COLORS = dict(zip(USUAL, ("black", *(f"C{n}" for n in range(len(USUAL) - 1))), strict=True))


def _panels(results: dict, upper: Axes, lower: Axes) -> None:
    steps = results["evaluated"]
    for place, mode in enumerate(modes_of(results)):
        color, aside = COLORS[mode], steps[-1] * (1 + 0.015 * place)
        upper.plot(steps, np.mean(list(losses(results, mode).values()), axis=0), color=color)
        shares = against(results, mode)
        if mode != BASELINE and len(shares):
            lower.plot(steps, shares.mean(0), color=color)
            lower.plot([aside] * len(shares), shares[:, -1], ".", color=color)
            if (band := chance(shares)) is not None:
                lower.errorbar(aside, shares[:, -1].mean(), band[-1], color=color, capsize=3)
    seeds = len({run["seed"] for run in results["runs"]})
    upper.set(yscale="log", title=f"{results['title']}, seeds: {seeds}")
    upper.yaxis.set_major_formatter("{x:g}")
    upper.yaxis.set_minor_formatter("{x:g}")
    lower.set(xlabel="step")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)


def plot(every: list[dict], path: pathlib.Path) -> None:
    """every: the results of each problem."""
    figure = Figure(figsize=(max(9, 5 * len(every)), 7), layout="constrained")
    columns = figure.subplots(2, len(every), sharex="col", squeeze=False).T
    for results, (upper, lower) in zip(every, columns, strict=True):
        _panels(results, upper, lower)
    columns[0][0].set(ylabel="held-out loss")
    columns[0][1].set(ylabel="% above float32 of the same seed")
    found = [mode for mode in USUAL if any(mode in modes_of(results) for results in every)]
    handles = [columns[0][0].plot([], [], color=COLORS[mode], label=mode)[0] for mode in found]
    figure.suptitle("Mean of the seeds; beside the end: each (dots), and 95% confidence of the mean (bars)", fontsize=11)
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110, metadata={"Software": None})  # else it changes with matplotlib's version
    write(path, image.getvalue())
