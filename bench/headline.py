"""The figures that a GPU is wanted for, the most important first, each beside its aim.

    python -m bench.headline [--device cuda] [--quick] [--only NAME,...] [--rows FILE]

Times are medians of rounds that take all that is compared once. Those of a GPU are by its own clock, behind copies that keep it busy
until the host has launched; shares are of a copy's bandwidth in the same rounds. What fails is a row with its reason.
"""

import functools
import gc
import math
import operator
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from bench.algorithms import ALGORITHMS
from bench.arguments import chosen, writing
from bench.first import append, make_parser, parsed, profiled, reason
from bench.machine import free_bytes
from bench.measure import held_and_moved, host_seconds
from bench.store import BASELINE, COMPILED, OURS, Row, short
from bench.text import figure, percent, table
from bench.workloads import Shapes, llama3_8b, parameters
from fusedrms import FusedRMSProp
from fusedrms.kernels import devices
from fusedrms.tools.variants import words
from gpt import GPT

Step = Callable[[], object]
Rows = Iterator[Row]
ADAMW = "torch AdamW fused"
LLAMA: Shapes = [*llama3_8b(4), (128256, 1024)]  # 1.004 billion parameters: 4 layers and an embedding
FEW: Shapes = [(128, 128), (128,)] * 42 + [(640, 100), (100,)]  # 86 tensors of 757,604 parameters
LEAST_ROUNDS, MOST_SECONDS = 5, 8.0  # of a measurement: no more rounds after so long
MOST_BUSY = 100  # copies: the host waits where more launches are queued than about a thousand
COMPARE: dict[str, Callable[[float, float], bool]] = {"≥": operator.ge, "≤": operator.le, "=": operator.eq}


class Unmeasured(Exception):
    """Why a figure cannot be had here, though nothing is wrong."""


class Size(NamedTuple):
    """How much is measured."""

    smaller: int  # every dimension, and numbers of tensors
    rounds: int
    seconds: float  # of warming up
    copied: int  # float32
    gpt: dict[str, int]
    tokens: tuple[int, int]


SIZES = {
    False: Size(1, 51, 0.5, 2**28, dict(layers=28, width=1024, context=1024, heads=16), (8, 1024)),  # 354 million parameters
    True: Size(100, 3, 0.0, 2**16, dict(layers=1, width=16, context=8, heads=2), (2, 8)),
}


class Scene:
    """The device, how much is measured on it, and a copy to measure it by."""

    def __init__(self, device: torch.device, quick: bool):
        self.device, self.size = device, SIZES[quick]
        self._source = torch.ones(self.size.copied, device=device)
        self._target = torch.empty_like(self._source)
        self.copied_bytes = 2 * self._source.nbytes
        self._busy_seconds = math.inf if devices.is_gpu(device) else 0.0  # of a copy; 0: the host does the work itself
        if self._busy_seconds:
            self._busy_seconds = self.times({"copy": self.copy})["copy"]

    def copy(self) -> None:
        self._target.copy_(self._source)

    def smaller(self, shapes: Shapes) -> Shapes:
        return [tuple(-(-n // self.size.smaller) for n in shape) for shape in shapes]

    def params(self, shapes: Shapes, n_held: int = 12) -> list[torch.nn.Parameter]:
        """float32 with gradients; n_held: bytes for each that a step needs, for which memory must do."""
        needed, free = n_held * numel(shapes), free_bytes(self.device)
        if needed > free:
            raise Unmeasured(f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")
        return parameters(shapes, self.device)

    def _busy(self, run: Step, repeats: int) -> int:
        """Copies that take the device longer than the host takes to launch all repeats; runs it once."""
        if not self._busy_seconds:
            run()
            return 0
        devices.synchronize(self.device)
        start = time.perf_counter()
        run()
        host = time.perf_counter() - start
        devices.synchronize(self.device)
        return min(MOST_BUSY, 1 + int(1.5 * repeats * host / self._busy_seconds))

    def times(self, runs: dict[str, Step], repeats: int = 1) -> dict[str, float]:
        """Name -> median seconds of a run, all in turns; repeats: of each, one right after the other."""

        def one(run: Step, busy: int) -> float:
            for _ in range(busy):
                self.copy()
            return devices.seconds(self.device, lambda: [run() for _ in range(repeats)]) / repeats

        start = time.perf_counter()
        busy = {name: self._busy(run, repeats) for name, run in runs.items()}
        while time.perf_counter() < start + self.size.seconds:
            busy = {name: self._busy(run, repeats) for name, run in runs.items()}
        return in_turns({name: functools.partial(one, run, busy[name]) for name, run in runs.items()}, self.size.rounds)

    def rate(self, times: dict[str, float]) -> float:
        """Bytes a second of the copy."""
        return self.copied_bytes / times["copy"]


def in_turns(clocks: dict[str, Callable[[], float]], most: int) -> dict[str, float]:
    """The median of what each clock says, in rounds."""
    found: dict[str, list[float]] = {name: [] for name in clocks}
    start = time.perf_counter()
    for n in range(most):
        if n >= LEAST_ROUNDS and time.perf_counter() > start + MOST_SECONDS:
            break
        for name, clock in clocks.items():
            found[name].append(clock())
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def numel(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes))


def row(what: str, value: float | None, unit: str, aim: tuple[str, float] | None = None, **details: Any) -> Row:
    """A figure; aim: a sign of COMPARE and a number in the same unit."""
    met = None if aim is None or value is None else COMPARE[aim[0]](value, aim[1])
    shown = aim and f"{aim[0]} {aim[1]:g}"
    return dict(what=what, value=short(value), unit=unit, aim=shown, met=met, **{name: short(each) for name, each in details.items()})


def ready(scene: Scene, algorithm: str, name: str, shapes: Shapes) -> Step:
    """A step that has run before."""
    chosen = ALGORITHMS[algorithm][name]
    step = chosen.make(scene.params(shapes, chosen.n_held))
    for _ in range(2):
        step()
    devices.synchronize(scene.device)
    return step


def tidy(device: torch.device) -> None:
    """Give back the memory of what was measured before."""
    gc.collect()  # optimizers hold themselves
    devices.empty_cache(device)


# the measurements


def in_rounds(scene: Scene, others: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of plain steps in the same rounds, ours and a copy among them; of others that fail, why."""
    shapes = scene.smaller(LLAMA)
    steps, failed = {OURS: ready(scene, "plain", OURS, shapes), "copy": scene.copy}, {}
    for name in others:
        try:
            steps[name] = ready(scene, "plain", name, shapes)
        except Exception as error:  # on this device, or with this version of torch
            failed[name] = reason(error)
    return scene.times(steps), failed


def beside(scene: Scene, others: list[str]) -> dict[str, dict[str, float] | str]:
    """For each other the seconds of its rounds, or why there are none: all in the same rounds where memory does for them."""
    needed = numel(scene.smaller(LLAMA)) * sum(ALGORITHMS["plain"][name].n_held for name in (OURS, *others))
    groups = [others] if needed < free_bytes(scene.device) else [[name] for name in others]
    found: dict[str, dict[str, float] | str] = {}
    for group in groups:
        times, failed = in_rounds(scene, group)
        found |= {name: failed.get(name, times) for name in group}
        tidy(scene.device)
    return found


def compared(scene: Scene, name: str, times: dict[str, float] | str, least: float) -> Row:
    """Bytes a second of ours as a multiple of another's."""
    unit = f"× {name}"
    if isinstance(times, str):
        return row("float32, 10⁹ parameters", None, unit, ("≥", least), note=times)
    bytes_of = {each: ALGORITHMS["plain"][each].n_bytes or 0 for each in (OURS, name)}
    value = bytes_of[OURS] / times[OURS] * times[name] / bytes_of[name]
    return row("float32, 10⁹ parameters", value, unit, ("≥", least), ms=1e3 * times[OURS], other_ms=1e3 * times[name])


def of_copy(scene: Scene, what: str, n_bytes: float, shapes: Shapes, times: dict[str, float], least: float) -> Row:
    rate = n_bytes * numel(shapes) / times[OURS]
    figures = dict(ms=1e3 * times[OURS], gb_per_s=rate / 1e9, copy_gb_per_s=scene.rate(times) / 1e9)
    return row(what, rate / scene.rate(times), "of copy", ("≥", least), **figures, bytes=n_bytes, tensors=len(shapes), numel=numel(shapes))


def plain(scene: Scene) -> Rows:
    found = beside(scene, [BASELINE, ADAMW])
    times = next((times for times in found.values() if not isinstance(times, str)), None)
    times = times or in_rounds(scene, [])[0]  # every other has failed
    yield of_copy(scene, "float32, 10⁹ parameters", 20, scene.smaller(LLAMA), times, 0.95)
    for name, least in ((BASELINE, 2.5), (ADAMW, 1.0)):
        yield compared(scene, name, found[name], least)


def compiled(scene: Scene) -> Rows:
    yield compared(scene, COMPILED, beside(scene, [COMPILED])[COMPILED], 1.0)


def share(scene: Scene, what: str, algorithm: str, name: str, least: float) -> Rows:
    shapes = scene.smaller(LLAMA)
    step = ready(scene, algorithm, name, shapes)
    n_bytes = ALGORITHMS[algorithm][name].n_bytes or (held_and_moved(step) or (0.0, 0.0))[1]
    yield of_copy(scene, what, n_bytes, shapes, scene.times({OURS: step, "copy": scene.copy}), least)


def clipped(scene: Scene) -> Rows:
    """What a limit of the norm takes beside the same without one."""
    shapes = scene.smaller(LLAMA)
    steps = {name: ready(scene, name, OURS, shapes) for name in ("plain", "clip-norm")}
    times = scene.times({**steps, "copy": scene.copy})
    read = 4 * numel(shapes) / scene.rate(times)
    figures = {f"{name.replace('-', '_')}_ms": 1e3 * times[name] for name in steps}
    value = (times["clip-norm"] - times["plain"]) / read
    yield row("clip_grad_norm, extra time", value, "reads of the gradients", ("≤", 1.0), **figures, read_ms=1e3 * read)


def launches(scene: Scene) -> Rows:
    """What a step does that finds everything as it was."""
    params = scene.params(scene.smaller(FEW))
    optimizer = FusedRMSProp(params)
    for _ in range(3):
        optimizer.step()
    profiled(optimizer.step, scene.device)  # the first profile of a process may miss what it sets up
    counts = profiled(optimizer.step, scene.device)
    for param in params:
        assert param.grad is not None
        param.grad = param.grad.clone()
    moved = profiled(optimizer.step, scene.device)
    buckets = len(plan._buckets) if (plan := optimizer._run.plan) else 0
    note = {} if counts["launches"] is not None else dict(note=f"torch's profiler knows no {scene.device.type}")
    for name, aim in (("launches", buckets), ("copies", 0), ("waits", 0)):
        yield row("a steady step", counts[name], name, ("=", aim), after_gradients_moved=moved[name], buckets=buckets, **note)
    yield from waits(scene, optimizer.step)


def waits(scene: Scene, step: Step) -> Rows:
    """Whether torch notices that a step waits for the device."""
    what, unit = "a steady step, by set_sync_debug_mode", "waits"
    module = devices.module(scene.device) if devices.is_gpu(scene.device) else None
    if not hasattr(module, "set_sync_debug_mode"):
        yield row(what, None, unit, ("=", 0), note=f"there is none for {scene.device.type}")
        return
    assert module is not None
    note = {}
    module.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        note = dict(note=reason(error))
    finally:
        module.set_sync_debug_mode("default")
    yield row(what, len(note), unit, ("=", 0), **note)


def on_a_gpu(scene: Scene) -> Any:
    """torch's module for it."""
    if not devices.is_gpu(scene.device):
        raise Unmeasured("no GPU")
    return devices.module(scene.device)


def few(scene: Scene) -> Rows:
    on_a_gpu(scene)
    shapes = scene.smaller(FEW)
    steps = {name: ready(scene, "plain", name, shapes) for name in (OURS, BASELINE)}
    times, cold = scene.times(steps, repeats=20), scene.times({OURS: steps[OURS]})
    figures = dict(cold_us=1e6 * cold[OURS], torch_foreach_us=1e6 * times[BASELINE], tensors=len(shapes), numel=numel(shapes))
    published = "12 µs by a fused AdamW over pointer tables, 285 µs by torch foreach, on a consumer card"
    yield row("86 tensors of 757,604 parameters", 1e6 * times[OURS], "µs on the GPU", ("≤", 10.0), **figures, published=published)


def many(scene: Scene) -> Rows:
    on_a_gpu(scene)
    step = ready(scene, "plain", OURS, [(64,)] * (10_000 // scene.size.smaller))
    times, cold = scene.times({OURS: step}, repeats=4), scene.times({OURS: step})
    yield row("10,000 tensors of 64", 1e6 * times[OURS], "µs on the GPU", ("≤", 30.0), cold_us=1e6 * cold[OURS])


def host(scene: Scene) -> Rows:
    step = ready(scene, "plain", OURS, [(64,)] * (1000 // scene.size.smaller))
    yield row("host, 1,000 tensors", 1e6 * host_seconds(step, scene.device), "µs a step", ("≤", 150.0))


def replayed(scene: Scene) -> Rows:
    module = on_a_gpu(scene)
    if not hasattr(module, "CUDAGraph"):
        raise Unmeasured(f"no graphs for {scene.device.type}")
    optimizer = FusedRMSProp(scene.params([(64,)] * (1000 // scene.size.smaller)), capturable=True)
    optimizer.step()
    devices.synchronize(scene.device)
    graph = module.CUDAGraph()
    with module.graph(graph):
        optimizer.step()
    value = host_seconds(graph.replay, scene.device)
    on_gpu = scene.times({"replay": graph.replay}, repeats=4)["replay"]
    yield row("host, 1,000 tensors, a graph", 1e6 * value, "µs a replay", ("≤", 30.0), gpu_us=1e6 * on_gpu)


def trained(scene: Scene) -> Rows:
    """Steps of training with two optimizers, in turns, as long as they take together with the host's part."""
    tokens = torch.randint(256, (2, *scene.size.tokens), device=scene.device)
    makes = {"FusedRMSProp": FusedRMSProp, BASELINE: functools.partial(torch.optim.RMSprop, foreach=True)}
    optimizers: dict[str, torch.optim.Optimizer] = {}
    clocks: dict[str, Callable[[], float]] = {}
    for name, make in makes.items():
        with scene.device:
            model = GPT(**scene.size.gpt).to(torch.bfloat16)
        optimizer = optimizers[name] = make(model.parameters())

        def one(model=model, optimizer=optimizer) -> float:
            devices.synchronize(scene.device)
            start = time.perf_counter()
            optimizer.zero_grad()
            model(*tokens).backward()
            optimizer.step()
            devices.synchronize(scene.device)
            return time.perf_counter() - start

        one()
        clocks[name] = one
    in_turns(clocks, LEAST_ROUNDS)  # clocks are warm then
    steps = in_turns(clocks, scene.size.rounds)
    parts = scene.times({name: optimizer.step for name, optimizer in optimizers.items()})
    n = sum(param.numel() for param in optimizers[BASELINE].param_groups[0]["params"])
    what = f"GPT of {n / 1e6:.0f}M parameters, bfloat16"
    ours, torchs = (dict(step_ms=1e3 * steps[name], optimizer_ms=1e3 * parts[name]) for name in makes)
    both = {**ours, **{f"torch_{name}": each for name, each in torchs.items()}, "tokens": math.prod(scene.size.tokens)}
    yield row(what, steps[BASELINE] / steps["FusedRMSProp"], f"× {BASELINE}, a step of training", None, **both)
    yield row(
        what, parts["FusedRMSProp"] / steps["FusedRMSProp"], "of a step is the optimizer's", None, torch=parts[BASELINE] / steps[BASELINE]
    )


def _share(what: str, algorithm: str, name: str, least: float) -> Callable[[Scene], Rows]:
    return functools.partial(share, what=what, algorithm=algorithm, name=name, least=least)


MEASUREMENTS: dict[str, Callable[[Scene], Rows]] = {
    "plain": plain,
    "launches": launches,
    "few": few,
    "many": many,
    "stochastic": _share("bfloat16, stochastic", "plain", f"{OURS} stochastic", 0.90),
    "split": _share("bfloat16, split", "plain", f"{OURS} split", 0.90),
    "8bit": _share("bfloat16, split, 8bit", "plain", f"{OURS} split, 8bit", 0.85),
    "centered": _share("centered + momentum, float32", "centered+momentum", OURS, 0.90),
    "graves": _share("Graves, float32", "Graves", OURS, 0.90),
    "smorms3": _share("SMORMS3, float32", "SMORMS3", OURS, 0.90),
    "clip": clipped,
    "host": host,
    "graph": replayed,
    "gpt": trained,
    "compiled": compiled,  # last, since torch takes long to compile
}


def measured(scene: Scene, name: str) -> Rows:
    """The rows of a measurement, whatever happens to it."""
    try:
        yield from MEASUREMENTS[name](scene)
    except Unmeasured as error:
        yield row(name, None, "", note=str(error))
    except Exception as error:  # the next may be right
        yield row(name, None, "", failed=reason(error))


def line(found: Row) -> str:
    """For people."""
    if found.get("failed"):
        return f"FAILED: {found['what']}: {found['failed']}"
    value = found.get("note", "") if found["value"] is None else figure(found["value"])
    aim = f" (aim {found['aim']}{': MISSED' if found['met'] is False else ''})" if found["aim"] else ""
    figures = {name: each for name, each in found.items() if name not in ("what", "value", "unit", "aim", "met", "published")}
    details = ", ".join(f"{name} {figure(each)}" for name, each in figures.items() if isinstance(each, (int, float)))
    return f"{found['what']}: {value} {found['unit']}{aim}" + (f"; {details}" if details else "")


# tables for documents


def _shares(results: dict) -> list[str]:
    found = [row for row in results["headline"] if row["unit"] == "of copy"]
    figures = ((row, *map(figure, (row["bytes"], row["ms"], row["gb_per_s"]))) for row in found)
    lines = [(row["what"].partition(", 10⁹")[0], *numbers, percent(row["value"])) for row, *numbers in figures]
    return table(("step of 10⁹ parameters", "bytes a parameter", "ms", "GB/s", "of a copy's"), lines)


def _figures(results: dict) -> list[str]:
    found = [row for row in results["headline"] if row["unit"] != "of copy" and row["value"] is not None]

    def value(row: Row) -> str:
        return (percent if row["unit"].startswith("of a step") else figure)(row["value"])

    return table(("", "measured"), [(row["what"], f"{value(row)} {row['unit']}") for row in found])


TABLES: dict[str, Callable[[dict], list[str]]] = {"shares": _shares, "figures": _figures}


def main(argv: list[str] | None = None) -> int:
    """Exit code: 1 if a measurement failed; an aim that is missed is none."""
    parser = make_parser("bench.headline", __doc__)
    parser.add_argument("--only", type=words, metavar="NAME,...", help=f"of {', '.join(MEASUREMENTS)}")
    given, device = parsed(parser, argv)
    only = chosen(parser, given.only, MEASUREMENTS)
    scene = Scene(device, given.quick)
    rows: list[Row] = []
    for name in only:
        for found in measured(scene, name):
            if given.quick and found["value"] is not None:  # aims are for what it is called, not for a small part of it
                found |= dict(what=f"{found['what']}, in small", aim=None, met=None)
            print(line(found), flush=True)
            with writing(parser):
                append(given.rows, found)
            rows.append(found)
        tidy(device)
    failed, missed = sum(bool(found.get("failed")) for found in rows), sum(found["met"] is False for found in rows)
    print(f"{len(rows)} figures, {failed} failed, {missed} missed their aim")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
