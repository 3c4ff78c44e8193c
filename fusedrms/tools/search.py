"""Finds the best configuration of a launch: runs each on scratch tensors, checks its bits and takes its time."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..engine.tables import configs
from ..engine.tables.configs import Key, Row
from ..engine.tables.plan import Plan
from ..kernels import devices, lang
from ..kernels.cpu.threads import MIN_WORK
from ..kernels.launch import Config, CPUConfig, GPUConfig, is_valid
from ..kernels.storage import Storage
from .noise import busy
from .variants import make, parse_mode, variant

BLOCK = [(2304, 768), (2304,), (768, 768), (768,), (3072, 768), (3072,), (768, 3072), (768,), *[(768,)] * 4]  # of GPT-2 small
SHAPES = {
    "cpu": {"small": [(64,)] * 2000, "mixed": BLOCK, "huge": [(4096, 4096)] * 2},
    "gpu": {"small": [(64,)] * 4000 + [(1024,)] * 400 + [(8000,)] * 100, "mixed": BLOCK * 12, "huge": [(4096, 4096)] * 16},
}
NOISE = (1 << 20) - 1  # numbers that scratch tensors repeat
SCRUB = {"cpu": 1 << 24, "gpu": 1 << 26}  # float32 that flush the caches
HEATS, SEARCH_ROUNDS, CHECK_ROUNDS = 3, 15, 31  # at most, and half of them at least
HOPELESS = 1.15  # times the best, after the heats
LEAST_GAIN = 1.03  # less is noise: the default stays
LEAST_BESIDE_OTHERS = 0.9  # of busy processes: what is lost there, by threads that wait for each other, is lost by far more
_OUT_OF_RESOURCES = lang.triton.runtime.errors.OutOfResources if lang.triton else ()


class Result(NamedTuple):
    """What came out for a Key."""

    key: Key
    mode: str
    default: Config
    row: Row
    n_tried: int

    @property
    def gain(self) -> float:
        return self.row.default_us / self.row.best_us


def stages(storage: Storage) -> dict[type, list[list[dict[str, int]]]]:
    """What is tried, by kind of configuration: one stage after the other, each beside the best of those before."""
    registers = [0, 64, 72, 96] if storage.quantized else [0]
    return {
        CPUConfig: [
            [dict(chunk=1 << n) for n in range(11, 18)],
            [dict(min_work=MIN_WORK << n) for n in (0, 1, 2, 3, 21)],
        ],
        GPUConfig: [
            [dict(threads=t, vectors=v, registers=r) for t in (64, 128, 256, 512) for v in (1, 2) for r in registers],
            [dict(chunk=1 << n) for n in range(10, 18)],
            [dict(programs=n) for n in (0, 2, 4, 8, 16)],
        ],
    }


def bits(tensor: Tensor) -> Tensor:
    """Integers, of which NaN and -0 are equal to themselves alone."""
    return tensor.detach().view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize])


def spills(run: partial) -> int:
    """Registers that a launch keeps in memory."""
    return getattr(run.func, "spills", 0)


class Scratch:
    """A model of one rule, mode and size, whose launches are timed."""

    def __init__(self, rule: str, mode: str, size: str, device: torch.device):
        self.device = device
        dtype, generator = parse_mode(mode)[0], torch.Generator().manual_seed(0)
        noise = torch.randn(NOISE, generator=generator, device="cpu").to(device, dtype)
        noises = noise, noise.roll(1)
        self._params = []
        for shape in devices.on(device, SHAPES)[size]:
            n = math.prod(shape)
            param, grad = (values[:n].repeat(-(-n // NOISE))[:n].view(shape) for values in noises)
            self._params.append(torch.nn.Parameter(param))
            self._params[-1].grad = grad
        self._optimizer = make(rule, mode, self._params)
        self._recipes = self._optimizer._recipes()
        groups, state = self._optimizer.param_groups, self._optimizer.state
        self._plan = Plan(name=type(self._optimizer).__name__, groups=groups, recipes=self._recipes, state=state, redistributed={})
        assert self._plan.holds(groups, self._recipes, state, {})
        self._tensors = [*self._params, *(state[param][name] for param in self._params for name in state[param] if name != "step")]
        self._start = [tensor.detach().clone() for tensor in self._tensors]
        self._expected: list[Tensor] = []

    @property
    def numels(self):
        (bucket,) = self._plan._buckets
        return bucket.numels

    def _bits(self) -> list[Tensor]:
        """All that a launch writes: one tensor for each size of numbers, since to compare thousands takes long."""
        by_size: dict[int, list[Tensor]] = {}
        for tensor in self._tensors:
            by_size.setdefault(tensor.itemsize, []).append(bits(tensor).flatten())
        return [torch.cat(tensors) for tensors in by_size.values()]

    @torch.no_grad()
    def launch(self, config: Config) -> partial | None:
        """The launch with a configuration; None if a multiprocessor has too few registers, or too little memory.

        Raises:
            RuntimeError: it computes something else than those before.
        """
        (run,) = self._plan.launches(self._recipes, config)
        torch._foreach_copy_(self._tensors, self._start)  # pyright: ignore[reportPrivateImportUsage]
        try:
            run()
        except _OUT_OF_RESOURCES:
            return None
        run()
        found = self._bits()
        self._expected = self._expected or found
        if not all(map(torch.equal, found, self._expected)):
            raise RuntimeError(
                f"{config} computes other results than the default configuration: the kernels or the device have a defect; please report it"
            )
        return run


def stopwatch(device: torch.device) -> Callable[[Callable[[], None]], float]:
    """Seconds that a launch takes after a backward: with cold caches, and on a CPU torch's threads still awake."""
    scrub = torch.zeros(devices.on(device, SCRUB), device=device)

    def clock(run: Callable[[], None]) -> float:
        scrub.add_(1)  # longer than it takes the host to launch
        return devices.seconds(device, run)

    return clock


def rounds(runs: list[Callable[[], None]], clock: Callable[[Callable[[], None]], float], most: int, until: float) -> list[list[float]]:
    """Seconds of each run, in rounds that take each once, so that all meet the same noise."""
    times: list[list[float]] = [[] for _ in runs]
    for n in range(most):
        if n > most // 2 and time.perf_counter() > until:
            break
        for run, own in zip(runs, times, strict=True):
            own.append(clock(run))
    return times


def medians(runs: dict[Config, Any], tried: list[Config], clock: Callable, most: int, until: float) -> dict[Config, float]:
    """Seconds of each configuration that is tried."""
    return dict(zip(tried, map(median, rounds([runs[config] for config in tried], clock, most, until)), strict=True))


def look(
    best: Callable[[], None], default: Callable[[], None], clock: Callable, until: float, least: float
) -> tuple[list[float], list[float], bool]:
    """Seconds of both in the same rounds, and whether the best is so many times as fast; if faster, in three rounds of four."""
    ours, theirs = rounds([best, default], clock, CHECK_ROUNDS, until)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return ours, theirs, median(theirs) >= least * median(ours) and (least <= 1 or quantiles(ratios)[0] > 1)


def last_looks(
    best: Callable[[], None], default: Callable[[], None], clock: Callable, until: float, beside_others: bool
) -> tuple[list[float], list[float], bool]:
    """Seconds of both, and whether the best is faster beyond doubt: by two looks at it, and no slower beside busy processes, if asked."""
    ours, theirs, confirmed = look(best, default, clock, until, LEAST_GAIN)
    if confirmed:  # what noise has made the first cannot be that of the second as well
        ours, theirs, confirmed = look(best, default, clock, until, LEAST_GAIN)
    if confirmed and beside_others:
        with busy():
            *_, confirmed = look(best, default, clock, until, LEAST_BESIDE_OTHERS)
    return ours, theirs, confirmed


def search_one(rule: str, mode: str, size: str, device: torch.device, clock: Callable, until: float) -> Result:
    """The best configuration of one rule, mode and size; the default, unless another is faster beyond doubt."""
    name, _, storage, _ = variant(rule, mode)
    scratch = Scratch(rule, mode, size, device)
    numels = scratch.numels
    default = best = configs.default_config(device, storage, int(numels.sum()))
    run = scratch.launch(default)
    if run is None:
        raise RuntimeError(
            f"this device cannot run the default configuration, {default}: its multiprocessors have too few registers, or too little memory"
        )
    runs = {default: run}
    for stage in stages(storage)[type(default)]:
        tried = [best]
        for change in stage:
            config = best._replace(**change)
            if not is_valid(config, storage) or config in tried:
                continue
            if config not in runs and (run := scratch.launch(config)) and spills(run) <= spills(runs[best]):
                runs[config] = run
            if config in runs:
                tried.append(config)
        heats = medians(runs, tried, clock, HEATS, until)
        hopeful = [config for config in tried if heats[config] < HOPELESS * min(heats.values())]
        found = medians(runs, hopeful, clock, SEARCH_ROUNDS, until)
        best = min(hopeful, key=lambda config: found[config])
    ours, theirs, confirmed = last_looks(runs[best], runs[default], clock, until, beside_others=not devices.is_gpu(device))
    if not confirmed:
        best, ours = default, theirs
    key = Key(name, storage.label, True, configs.size_of(numels))
    return Result(key, mode, default, Row(best, round(median(theirs) * 1e6, 3), round(median(ours) * 1e6, 3)), len(runs))


def search_all(
    device: torch.device, rules: Iterable[str], modes: Iterable[str], sizes: Iterable[str], budget: float
) -> Iterator[tuple[str, Result | None]]:
    """Search all sizes of all rules and modes, as far as the budget, in seconds, goes; yields what is searched, then its result."""
    wanted = [(rule, mode, size) for mode in modes for rule in rules for size in sizes]
    deadline = time.perf_counter() + budget
    clock = stopwatch(device)
    for n, one in enumerate(wanted):
        now = time.perf_counter()
        if now > deadline:
            return
        yield ", ".join(one), None
        yield ", ".join(one), search_one(*one, device, clock, now + (deadline - now) / (len(wanted) - n))
