"""What is timed of two commits. Only what both of them have is used here: a worker imports it above the other commit's package."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from bench.common.store import BASELINE, BIG, COMPILED, OURS, SMALL
from bench.studies.against.table import GRID
from bench.timing.algorithms import ALGORITHMS, CENTERED
from bench.timing.foreach import Make
from bench.timing.workloads import COUNT, MODELS, SCALE, Shapes
from fusedrms import FusedRMSProp


def nothing(params: list[torch.nn.Parameter]) -> Callable[[], object]:
    return lambda: None


class Side(NamedTuple):
    """One of the two that take turns."""

    make: Make  # of parameters with gradients, a step
    between: Make = nothing  # what is done before each step, which is not timed
    threads: int = 0  # 0: as many as torch has
    busy: bool = False  # while as many other processes compute as there are cores
    without: str = ""  # a name in bench.timing.switches.SWITCHES


class Case(NamedTuple):
    row: str
    name: str
    shapes: Shapes
    ours: Side
    against: str = ""  # what the baseline is
    baseline: Side | None = None
    at_least: float | None = None  # aim: times as fast as the baseline
    at_most: float | None = None  # aim: microseconds
    per: int = 1  # tensors that the microseconds are shared among

    @property
    def sides(self) -> tuple[Side, ...]:
        return (self.ours,) if self.baseline is None else (self.ours, self.baseline)

    @property
    def key(self) -> str:
        return f"{self.row}: {self.name}"


def _ours(**options: Any) -> Make:
    return lambda params: FusedRMSProp(params, **options).step


def _foreach(**options: Any) -> Make:
    return lambda params: torch.optim.RMSprop(params, foreach=True, **options).step


def _other_step(params: list[torch.nn.Parameter]) -> Callable[[], object]:
    """A step of torch's with other tensors of the same shapes: caches are cold after it, as after a backward."""
    others = [torch.nn.Parameter(torch.randn_like(param)) for param in params]
    for other in others:
        other.grad = torch.randn_like(other)
    return torch.optim.RMSprop(others, foreach=True).step


def _moved(params: list[torch.nn.Parameter]) -> Callable[[], object]:
    """Gradients elsewhere than at the step before."""
    both = itertools.cycle([[torch.randn_like(param) for param in params] for _ in range(2)])

    def move():
        for param, grad in zip(params, next(both), strict=True):
            param.grad = grad

    return move


def _alternating(share: float) -> Make:
    """New gradients, after set_to_none, for some tensors in even steps and for others in odd ones: that share of all, the rest always."""

    def make(params):
        grads, steps = [param.grad for param in params], itertools.count()
        always = round(len(params) * (1 - share))

        def give():
            odd = next(steps) % 2
            for param in params:
                param.grad = None
            for n, (param, grad) in enumerate(zip(params, grads, strict=True)):
                if n < always or n % 2 == odd:
                    param.grad = grad.clone()

        return give

    return make


PLAIN, TORCH = Side(_ours()), Side(_foreach())
CELLS: dict[str, Shapes] = {
    **{name: shapes for name, shapes in COUNT.items() if len(shapes) <= 1000},
    **{name: shapes for name, shapes in SCALE.items() if shapes[0][0] in (10**3, 10**4, 10**5, 10**6, 10**7)},
    **{name: MODELS[name] for name in ("EfficientNet-B0", "A2C MLP")},
}
OPTIONS: dict[str, dict[str, Any]] = {"plain": {}, "centered+momentum": CENTERED}


def _both(**changes: Any) -> tuple[Side, str, Side]:
    """Ours and torch foreach under the same conditions."""
    return PLAIN._replace(**changes), BASELINE, TORCH._replace(**changes)


def _everywhere(quick: bool) -> Iterator[Case]:
    """No step is to be slower than torch's, whatever its size and whatever else the machine does."""
    for name, shapes in CELLS.items():
        for algorithm, options in OPTIONS.items():
            for threads in sorted({1, torch.get_num_threads()}):
                for busy in (False, True):
                    sides = (Side(make(**options), threads=threads, busy=busy) for make in (_ours, _foreach))
                    what = f"{name}, {algorithm}, {threads} thread{'s' * (threads > 1)}, {'busy' if busy else 'quiet'}"
                    if not quick or (name in ("10 of 64", "1,000 parameters") and algorithm == "plain"):
                        yield Case(GRID, what, shapes, next(sides), BASELINE, next(sides), at_least=1.0)


def cases(quick: bool) -> dict[str, Case]:
    """By key; quick: without most of the last row."""
    plain = ALGORITHMS["plain"]
    busy, alone = PLAIN._replace(busy=True), PLAIN._replace(threads=1)
    thousand, hundred, a2c = COUNT["1,000 of 64"], [(64, 64)] * 100, MODELS["A2C MLP"]
    one_thread = "itself on one thread of a quiet machine"
    found = [
        Case("compiled", BIG, MODELS[BIG], PLAIN, COMPILED, Side(plain[COMPILED].make), at_least=1.0),
        Case("busy", "1,000 of 64", thousand, busy, one_thread, alone, at_least=0.67),
        Case("busy", "1,000 of 64, without GOMP", thousand, busy._replace(without="gomp"), one_thread, alone, at_least=0.67),
        Case("busy", "1,000 of 64, both busy", thousand, *_both(busy=True)),
        Case("alternating", "every second of 100", hundred, *_both(between=_alternating(1)), at_least=2.0),
        Case("alternating", "two heads of 10, 80 always", hundred, *_both(between=_alternating(0.2)), at_least=2.0),
        Case("cold", SMALL, MODELS[SMALL], *_both(between=_other_step), at_least=20.0),
        Case("A2C", "cold", a2c, *_both(between=_other_step), at_least=5.0, at_most=50.0),
        Case("A2C", "warm", a2c, *_both(), at_least=5.0, at_most=35.0),
    ]
    for n, at_most in ((1000, 0.30), (10000, 0.40)):
        for gradients, between, aim in (("unmoved", nothing, at_most), ("moved", _moved, None)):
            side = PLAIN._replace(between=between, without="launch")
            found.append(Case("host", f"{n:,} tensors, gradients {gradients}", COUNT[f"{n:,} of 64"], side, at_most=aim, per=n))
    for name, ours, baseline in (
        ("8-bit state", _ours(state_dtype="8bit"), _ours()),
        ("split master, 8-bit state", plain[f"{OURS} split, 8bit"].make, plain[f"{OURS} split"].make),
    ):
        found.append(Case("8-bit", f"{BIG}, {name}", MODELS[BIG], Side(ours), "float32 state", Side(baseline), at_least=1 / 1.6))
    return {case.key: case for case in (*found, *_everywhere(quick))}
