"""What one GPU holds, and how long its step takes, where N GPUs share parameters, gradients and states evenly.

Calculated from the counts of scaling.json and the GPUs of gpus.json: lower bounds, no timings.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from bench.common.store import Row
from bench.common.text import figure, size, table
from fusedrms.tools import memory
from fusedrms.tools.roofline import GPU, known, limit

RULE, USUAL = "rmsprop", "h200"
SHOWN = memory.USUAL
COUNTS = (8, 64, 256, 1024)  # GPUs
GPUS = known()
GB = 1e9
MASTER = "master_param"
BESIDE = ("parameters", "gradients", MASTER, "step", "tables", "total")  # what memory() names that is no state of the rule


class Model(NamedTuple):
    name: str
    numel: float
    n_tensors: int


def _llama(billions: int, n_layers: int) -> Model:
    """9 tensors a layer, the embedding, the last norm and the head."""
    return Model(f"{billions}B", billions * 1e9, 9 * n_layers + 3)


# layers: Llama 3.2 1B; arXiv:2302.13971, table 2 (13B); arXiv:2407.21783, table 3
MODELS = (_llama(1, 16), _llama(8, 32), _llama(13, 40), _llama(70, 80), _llama(405, 126))


class Share(NamedTuple):
    """Of one GPU."""

    gb: float
    left: float  # GB of its memory; below 0: does not fit
    ms: float  # that the GPU takes for a step at least
    by: str  # memory, arithmetic, or host: that was measured to take longer


def nearest(numel: float) -> Model:
    """The listed model next in size."""
    return min(MODELS, key=lambda model: abs(math.log(model.numel / numel)))


def counted(results: dict, rule: str = RULE) -> dict[str, Row]:
    """Mode -> what was counted of it."""
    return {row["mode"]: row for row in results["modes"] if row["rule"] == rule}


def host_ms(results: dict, model: Model) -> float:
    """As measured, for as many DTensors as the model has tensors."""
    return results["host"]["us"][str(model.n_tensors)] * 1e-3


def share(results: dict, row: Row, gpu: GPU, numel: float, n_gpus: int) -> Share:
    """Of a counted mode, for a model of so many parameters."""
    each, found = numel / n_gpus, limit(gpu, row["moved"], row["instructions"][gpu.target])
    gb, ms = each * row["bytes"]["total"] / GB, each * found.ns * 1e-6
    by = "host" if host_ms(results, nearest(numel)) > ms else found.by
    return Share(gb, gpu.memory / GB - gb, ms, by)


def _labelled(ms: float, by: str) -> str:
    return figure(ms) + ("" if by == "memory" else f", {by}")


def _bytes(results: dict) -> list[str]:
    gpu, modes, moves = GPUS[USUAL], counted(results), results["foreach_moves"][RULE]
    rows = [("torch.optim.RMSprop, foreach", modes["float32"]["bytes"], moves, figure(moves / gpu.bandwidth * 1e12))]
    for mode, row in modes.items():
        found = limit(gpu, row["moved"], row["instructions"][gpu.target])
        rows.append((f"`{mode}`", row["bytes"], row["moved"], _labelled(found.ns * 1e3, found.by)))
    lines: list[tuple[str, ...]] = []
    for name, held, moved, time in rows:
        master, states = held.get(MASTER, 0), sum(value for key, value in held.items() if key not in BESIDE)
        parts = (f"{part:g}" if part else "" for part in (held["parameters"], held["gradients"], master, states))
        lines.append((name, *parts, f"{held['total']:.2f}", f"{moved:g}", time))
    header = ("mode", "parameter", "gradient", "master", "state", "together", "read and written a step", f"ms for 10⁹ on an {gpu.name}")
    return table(header, lines)


def _held(gb: float) -> str:
    """With the least memory of a known GPU that holds it, if that is not the least of all."""
    sizes = sorted({gpu.memory / GB for gpu in GPUS.values()})
    fitting, shown = [one for one in sizes if gb <= one], size(gb * GB)
    if not fitting:
        return f"{shown}, does not fit"
    return shown if fitting == sizes else f"{shown} ({figure(fitting[0])})"


def _memory(results: dict) -> list[str]:
    modes, gpu = counted(results), GPUS[USUAL]
    lines = [
        (model.name, f"{n:,}", *(_held(share(results, modes[mode], gpu, model.numel, n).gb) for mode in SHOWN))
        for model in MODELS
        for n in COUNTS
    ]
    return table(("parameters", "GPUs", *(f"`{mode}`" for mode in SHOWN)), lines)


def _time(results: dict) -> list[str]:
    modes, gpu, lines = counted(results), GPUS[USUAL], []
    for model in MODELS:
        for n in COUNTS:
            shares = (share(results, modes[mode], gpu, model.numel, n) for mode in SHOWN)
            cells = (_labelled(one.ms, one.by) if one.left >= 0 else "does not fit" for one in shares)
            lines.append((model.name, f"{n:,}", figure(host_ms(results, model)), *cells))
    return table(("parameters", f"{gpu.name}s", "host, ms", *(f"`{mode}`, ms" for mode in SHOWN)), lines)


TABLES: dict[str, Callable[[dict], list[str]]] = {"bytes": _bytes, "memory": _memory, "time": _time}


def asked(results: dict, gpu: GPU, numel: float, n_gpus: int, rule: str) -> list[str]:
    """Lines for one model, all modes."""
    lines = []
    for mode, row in counted(results, rule).items():
        one = share(results, row, gpu, numel, n_gpus)
        fits = (figure(one.left), figure(one.ms), one.by) if one.left >= 0 else ("does not fit", "", "")
        lines.append((mode, f"{row['bytes']['total']:.2f}", figure(one.gb), fits[0], f"{row['moved']:g}", *fits[1:]))
    header = ("mode", "bytes a parameter", "GB a GPU", "GB left", "bytes moved a parameter", "ms a step", "limited by")
    model = nearest(numel)
    tensors = f"the {model.n_tensors:,} tensors of a {model.name} model"
    return [
        f"{numel:,.0f} parameters on {n_gpus:,} of {gpu.name} ({figure(gpu.memory / GB)} GB, {gpu.bandwidth / 1e12:g} TB/s), {rule}",
        "calculated lower bounds, not measured; docs/scaling.md says what is not in them",
        "",
        *table(header, lines),
        "",
        f"host: {figure(host_ms(results, model))} ms, measured on {results['device']} with {tensors}",
    ]
