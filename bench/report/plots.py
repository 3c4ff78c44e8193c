"""The plots of a report."""

import io
import pathlib
from collections.abc import Callable, Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.common.store import BASELINE, BIG, COMPILED, OURS, Row, rows
from fusedrms.tools.files import write

COLORS = {
    OURS: "tab:blue",
    BASELINE: "tab:orange",
    "torch single": "tab:brown",
    COMPILED: "tab:red",
    "torch AdamW fused": "tab:green",
    "bitsandbytes": "tab:purple",
    "HeavyBall": "tab:olive",
    "DeepSpeed CPUAdam": "tab:cyan",
}
MODES = {
    "": "float32 parameters and states",
    " bfloat16": "bfloat16, float32 state",
    " stochastic": "stochastic rounding, float32 state",
    " master": "float32 master, float32 state",
    " split": "split master, float32 state",
    " split24": "split master of 24 bits, float32 state",
    " bf16 state": "bfloat16, bfloat16 state",
    " split, bf16 state": "split master, bfloat16 state",
    " 8bit state": "bfloat16, 8-bit state",
    " stochastic, 8bit": "stochastic rounding, 8-bit state",
    " split, 8bit": "split master, 8-bit state",
    " master, 8bit": "float32 master, 8-bit state",
    " split24, 8bit": "split master of 24 bits, 8-bit state",
    " split24, 4bit": "split master of 24 bits, 4-bit state",
    " stochastic, 4bit": "stochastic rounding, 4-bit state",
}


def _lines(axes: Axes, found: list[Row], x: str) -> None:
    for name, color in COLORS.items():
        points = [(row[x], row["ms"]) for row in found if row["implementation"] == name]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, markersize=3, label=name)
    axes.set(xscale="log", yscale="log", ylabel="ms a step")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)


def scale(axes: Axes, results: dict) -> bool:
    found = [row for row in rows(results) if row["family"] == "scale"]
    _lines(axes, found, "numel")
    best = {row["limit"]: row["gb_per_s"] for row in rows(results, "limit")}
    for name, rate in best.items():
        sizes = sorted({row["numel"] for row in found})
        label = f"20 bytes a parameter at {rate:,.0f} GB/s ({'copy' if name == 'copy' else 'streaming loop'})"
        axes.plot(sizes, [20 * size / rate / 1e6 for size in sizes], ":" if name == "copy" else "--", color="black", label=label)
    axes.set(xlabel="parameters, in one tensor", title="A plain step against the number of parameters")
    return bool(found)


def tensors(axes: Axes, results: dict) -> bool:
    found = [row for row in rows(results) if row["family"] == "count"]
    _lines(axes, found, "n_tensors")
    axes.set(xlabel="tensors of 64 elements", title="A plain step against the number of tensors")
    return bool(found)


def _ratios(axes: Axes, results: dict, implementations: Iterable[str]) -> bool:
    found = [row for row in rows(results) if row["family"] == "model" and row["algorithm"] == "plain" and "ratio" in row]
    found = [row for row in found if row["implementation"] in implementations and row["implementation"] != BASELINE]
    names = list(dict.fromkeys(row["workload"] for row in found))
    kinds = [name for name in implementations if any(row["implementation"] == name for row in found)]
    for k, kind in enumerate(kinds):
        own = [row for row in found if row["implementation"] == kind]
        places = [names.index(row["workload"]) + (k - (len(kinds) - 1) / 2) * 0.8 / len(kinds) for row in own]
        bars = axes.barh(places, [row["ratio"] - 1 for row in own], 0.8 / len(kinds), left=1, color=COLORS[kind], label=kind)
        axes.bar_label(bars, [f"{row['ratio']:.1f}" for row in own], fontsize=6 if len(kinds) > 4 else 8, padding=2)
    axes.axvline(1, color=COLORS[BASELINE], label=BASELINE)
    axes.set(xscale="log", xlabel=f"times as fast as {BASELINE}", title="A plain step, float32")
    if found:
        least, most = (choose(row["ratio"] for row in found) for choose in (min, max))
        ticks = [4.0**k for k in range(-3, 5) if least / 4 <= 4.0**k <= most * 4]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    return bool(found)


def ratios(axes: Axes, results: dict) -> bool:
    return _ratios(axes, results, COLORS)


def beside_torch(axes: Axes, results: dict) -> bool:
    """Of these the same rule alone: what a change of one line brings."""
    return _ratios(axes, results, (OURS, "torch single", COMPILED))


def modes(axes: Axes, results: dict) -> bool:
    found = {row["implementation"]: row for row in rows(results) if (row["workload"], row["algorithm"]) == (BIG, "plain")}
    chosen = {name: found[OURS + mode] for mode, name in MODES.items() if OURS + mode in found}
    places = range(len(chosen))
    for offset, key, color, label in (
        (-0.2, "held", "tab:blue", "held: parameter and state"),
        (0.2, "n_bytes", "tab:cyan", "moved by a step"),
    ):
        bars = axes.barh([place + offset for place in places], [row[key] for row in chosen.values()], 0.4, color=color, label=label)
        axes.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
    axes.set(xlabel="bytes a parameter", title="Precision modes, plain", yticks=places, yticklabels=chosen)
    axes.invert_yaxis()
    return len(chosen) > 1


PLOTS: dict[str, Callable[[Axes, dict], bool]] = {
    "scale.png": scale,
    "tensors.png": tensors,
    "ratios.png": ratios,
    "beside_torch.png": beside_torch,
    "modes.png": modes,
}
SIZES = {"beside_torch.png": (6, 4)}  # inches: README's is also read on phones


def draw(results: dict, folder: pathlib.Path) -> list[str]:
    """Write those that there are figures for; their names."""
    drawn = []
    for name, plot in PLOTS.items():
        figure = Figure(figsize=SIZES.get(name, (8, 5)), layout="constrained")
        axes = figure.subplots()
        if plot(axes, results):
            axes.legend(fontsize=7)
            image = io.BytesIO()
            figure.savefig(image, format="png", dpi=110, metadata={"Software": None})  # else it changes with matplotlib's version
            write(folder / name, image.getvalue())
            drawn.append(name)
    return drawn
