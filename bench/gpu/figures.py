"""The measurements of `bench.gpu.headline`, each a function from a Scene to rows."""

import functools
import math
import operator
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench.common.machine import free_bytes
from bench.common.store import BASELINE, COMPILED, OURS, Row, short
from bench.gpu.rows import reason
from bench.gpu.scene import LEAST_ROUNDS, Scene, Step, Unmeasured, in_turns, numel
from bench.timing.algorithms import ALGORITHMS
from bench.timing.measure import held_and_moved, host_seconds
from bench.timing.profiler import profiled
from bench.timing.workloads import Shapes, llama3_8b
from fusedrms import FusedRMSProp
from fusedrms.kernels import devices
from gpt import GPT

Rows = Iterator[Row]
ADAMW = "torch AdamW fused"
LLAMA: Shapes = [*llama3_8b(4), (128256, 1024)]  # 1.004 billion parameters: 4 layers and an embedding
FEW: Shapes = [(128, 128), (128,)] * 42 + [(640, 100), (100,)]  # 86 tensors of 757,604 parameters
COMPARE: dict[str, Callable[[float, float], bool]] = {"≥": operator.ge, "≤": operator.le, "=": operator.eq}


def row(what: str, value: float | None, unit: str, aim: tuple[str, float] | None = None, **details: Any) -> Row:
    """A figure; aim: a sign of COMPARE and a number in the same unit."""
    met = None if aim is None or value is None else COMPARE[aim[0]](value, aim[1])
    shown = aim and f"{aim[0]} {aim[1]:g}"
    return dict(what=what, value=short(value), unit=unit, aim=shown, met=met, **{name: short(each) for name, each in details.items()})


def in_rounds(scene: Scene, others: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of plain steps in the same rounds, ours and a copy among them; of others that fail, why."""
    shapes = scene.smaller(LLAMA)
    steps, failed = {OURS: scene.ready("plain", OURS, shapes), "copy": scene.copy}, {}
    for name in others:
        try:
            steps[name] = scene.ready("plain", name, shapes)
        except Exception as error:  # on this device, or with this version of torch
            failed[name] = reason(error)
    return scene.times(steps), failed


def in_same_rounds(scene: Scene, others: list[str]) -> dict[str, dict[str, float] | str]:
    """For each other the seconds of its rounds, or why there are none: all in the same rounds where memory does for them."""
    needed = numel(scene.smaller(LLAMA)) * sum(ALGORITHMS["plain"][name].n_held for name in (OURS, *others))
    groups = [others] if needed < free_bytes(scene.device) else [[name] for name in others]
    found: dict[str, dict[str, float] | str] = {}
    for group in groups:
        times, failed = in_rounds(scene, group)
        found |= {name: failed.get(name, times) for name in group}
        scene.tidy()
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
    found = in_same_rounds(scene, [BASELINE, ADAMW])
    times = next((times for times in found.values() if not isinstance(times, str)), None)
    times = times or in_rounds(scene, [])[0]  # every other has failed
    yield of_copy(scene, "float32, 10⁹ parameters", 20, scene.smaller(LLAMA), times, 0.95)
    for name, least in ((BASELINE, 2.5), (ADAMW, 1.0)):
        yield compared(scene, name, found[name], least)


def compiled(scene: Scene) -> Rows:
    yield compared(scene, COMPILED, in_same_rounds(scene, [COMPILED])[COMPILED], 1.0)


def share(scene: Scene, what: str, algorithm: str, name: str, least: float) -> Rows:
    shapes = scene.smaller(LLAMA)
    step = scene.ready(algorithm, name, shapes)
    n_bytes = ALGORITHMS[algorithm][name].n_bytes or (held_and_moved(step) or (0.0, 0.0))[1]
    yield of_copy(scene, what, n_bytes, shapes, scene.times({OURS: step, "copy": scene.copy}), least)


def clipped(scene: Scene) -> Rows:
    """What a limit of the norm takes beside the same without one."""
    shapes = scene.smaller(LLAMA)
    steps = {name: scene.ready(name, OURS, shapes) for name in ("plain", "clip-norm")}
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


def few(scene: Scene) -> Rows:
    scene.gpu()
    shapes = scene.smaller(FEW)
    steps = {name: scene.ready("plain", name, shapes) for name in (OURS, BASELINE)}
    times, cold = scene.times(steps, repeats=20), scene.times({OURS: steps[OURS]})
    figures = dict(cold_us=1e6 * cold[OURS], torch_foreach_us=1e6 * times[BASELINE], tensors=len(shapes), numel=numel(shapes))
    published = "12 µs by a fused AdamW over pointer tables, 285 µs by torch foreach, on a consumer card"
    yield row("86 tensors of 757,604 parameters", 1e6 * times[OURS], "µs on the GPU", ("≤", 10.0), **figures, published=published)


def many(scene: Scene) -> Rows:
    scene.gpu()
    step = scene.ready("plain", OURS, [(64,)] * (10_000 // scene.size.smaller))
    times, cold = scene.times({OURS: step}, repeats=4), scene.times({OURS: step})
    yield row("10,000 tensors of 64", 1e6 * times[OURS], "µs on the GPU", ("≤", 30.0), cold_us=1e6 * cold[OURS])


def host(scene: Scene) -> Rows:
    step = scene.ready("plain", OURS, [(64,)] * (1000 // scene.size.smaller))
    yield row("host, 1,000 tensors", 1e6 * host_seconds(step, scene.device), "µs a step", ("≤", 150.0))


def replayed(scene: Scene) -> Rows:
    module = scene.gpu()
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
