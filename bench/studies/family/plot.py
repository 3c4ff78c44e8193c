"""The figure of family.json."""

import io
import pathlib
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bench.studies.family.problems import PROBLEMS
from bench.studies.family.table import Group, baseline, median, names_of
from fusedrms.tools.files import write

COLORS = {"plain": "tab:gray", "centered": "tab:green", "momentum": "tab:red", "centered, momentum": "tab:orange", "SMORMS3": "tab:purple"}
SQUARE = "1"  # marks that v starts from it


def _label(group: Group) -> str:
    short = ", ".join(name.replace("_rmsprop", "") for name in names_of(group))
    return "\n".join(textwrap.wrap(short, 44))


def _panel(axes: Axes, groups: list[Group], key: str) -> None:
    for place, group in enumerate(groups):
        values, color = [value for value in group[key] if value is not None], COLORS[group["averages"]]
        axes.plot(values, [place] * len(values), ".", color=color, alpha=0.4, markersize=5)
        if (middle := median(group[key])) is not None:
            axes.plot([middle], [place], "s" if group["start"] == SQUARE else "o", color=color, markersize=7)
    if (base := median(baseline(groups)[key])) is not None:
        axes.axvline(base, color="black", linewidth=0.8, linestyle=":")
    axes.grid(alpha=0.3)


def plot(results: dict, path: pathlib.Path) -> None:
    groups = results["groups"]
    labels = [_label(group) for group in groups]
    height = 1.8 + 0.13 * sum(1.4 + label.count("\n") for label in labels) + 0.1 * len(labels)
    figure = Figure(figsize=(13, height), layout="constrained")
    panels = figure.subplots(1, len(PROBLEMS), sharey=True)
    for axes, (key, problem) in zip(panels, PROBLEMS.items(), strict=True):
        _panel(axes, groups, key)
        axes.set(title=f"{problem.title}, lr {results['lr'][key]:g}", xlabel=problem.unit)
    panels[0].set(xscale="log")
    panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].xaxis.set_major_formatter("{x:g}")
    panels[0].minorticks_off()
    panels[0].set_yticks(range(len(groups)), labels, fontsize=8)
    panels[0].invert_yaxis()
    for name, color in COLORS.items():
        panels[0].plot([], [], "o", color=color, label=name)
    panels[0].plot([], [], "s", color="black", label="square: v from 1")
    figure.legend(loc="outside lower center", ncols=len(COLORS) + 1, fontsize=8)
    title = f"Presets by default, one lr for all. Large: median over seeds ({results['seeds']}); small: each; dotted: torch's median"
    figure.suptitle(title, fontsize=11)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110, metadata={"Software": None})  # else it changes with matplotlib's version
    write(path, image.getvalue())
