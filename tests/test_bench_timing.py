"""What the benchmarks compare computes the same thing, and is timed in the same rounds."""

import math
import weakref
from types import SimpleNamespace

import pytest
import torch

from tools import assert_close, twins

algorithms = pytest.importorskip("bench.timing.algorithms")
measure = pytest.importorskip("bench.timing.measure")
ours = pytest.importorskip("bench.timing.ours")
store = pytest.importorskip("bench.common.store")
workloads = pytest.importorskip("bench.timing.workloads")

CPU = torch.device("cpu")
SHAPES = [(3, 5), (1030,), (7,)]
STEPS = [(algorithm, name) for algorithm, implementations in algorithms.ALGORITHMS.items() for name in implementations]


def made(algorithm: str, name: str, params: list[torch.nn.Parameter]):
    """A step; None where the implementation cannot be had."""
    try:
        return algorithms.ALGORITHMS[algorithm][name].make(params)
    except algorithms.Unavailable:
        return None


@pytest.mark.parametrize("algorithm", algorithms.ALGORITHMS)
def test_implementations_agree(algorithm):
    first = workloads.parameters(SHAPES, CPU)
    results = []
    for name, implementation in algorithms.ALGORITHMS[algorithm].items():
        params = twins(first)
        step = made(algorithm, name, params) if implementation.agrees and not implementation.compiled else None
        if step is None:
            continue
        torch.manual_seed(1)
        for _ in range(4):
            for param in params:
                param.grad = torch.randn_like(param)
            step()
        results.append(params)
    assert len(results) > 1
    assert not any(torch.equal(p, q) for p, q in zip(first, results[0], strict=True))
    for other in results[1:]:
        assert_close(results[0], other, steps=20)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("algorithm", "name"), STEPS)
def test_bytes(algorithm, name):
    """What is declared for a step is what its parameters, states and gradients come to."""
    implementation = algorithms.ALGORITHMS[algorithm][name]
    step = None if implementation.compiled else made(algorithm, name, workloads.parameters([(64, 64)], CPU))
    if step is None:
        return
    step()
    counted = measure.held_and_moved(step)
    if counted is None:
        assert implementation.n_bytes
        return
    held, moved = counted
    again = 4 if algorithm == "clip-norm" else 0  # gradients are read once more, for their norm
    assert moved + again == pytest.approx(implementation.n_bytes or moved)
    assert held < implementation.n_held


@pytest.mark.parametrize(
    ("name", "n_tensors", "numel"),
    [
        ("ResNet-50", 161, 25_557_032),
        ("EfficientNet-B0", 213, 5_288_548),
        ("GPT-2 small", 148, 124_439_808),
        ("Llama-3-8B, 1 layer", 9, 218_112_000),
        ("A2C MLP", 12, 11_079),
        ("1,000,000,000 parameters", 1, 10**9),
        ("10,000 of 64", 10_000, 640_000),
    ],
)
def test_shapes(name, n_tensors, numel):
    _, shapes = workloads.WORKLOADS[name]
    assert (len(shapes), sum(map(math.prod, shapes))) == (n_tensors, numel)


def test_parameters():
    (param,) = workloads.parameters([(3, 2**19 + 1)], CPU)
    assert param.shape == param.grad.shape == (3, 2**19 + 1)
    assert param.is_contiguous()
    assert not torch.equal(param, param.grad)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_selection(device):
    cases = list(algorithms.cases(torch.device(device), quick=False))
    assert len(set(cases)) == len(cases)
    assert {(algorithm, name) for _, algorithm, name in cases} == set(STEPS)
    for workload, algorithm, _ in cases:  # ratios can be had, while it runs
        assert next(case for case in cases if case[:2] == (workload, algorithm))[2] == store.BASELINE
    assert set(algorithms.cases(torch.device(device), quick=True)) < set(cases)


def test_extra_bytes():
    def step():
        first = torch.ones(1000)
        del first
        return torch.ones(250) + torch.ones(250)

    assert measure.extra_bytes(step, CPU) == 4000
    assert measure.extra_bytes(lambda: None, CPU) == 0


class Benchmark:
    """As much of pytest-benchmark's fixture as a timing needs, by a clock of its own."""

    def __init__(self):
        self.now, self.stats = 0.0, SimpleNamespace(stats=SimpleNamespace(data=[]))

    def clock(self) -> float:
        return self.now

    def pedantic(self, run, setup, rounds):
        for _ in range(rounds):
            if setup:
                assert setup() is None
            begin = self.now
            run()
            self.stats.stats.data.append(self.now - begin)


def test_rounds_are_shared_with_ours(monkeypatch):
    """Ratios hold on a machine that becomes slower and slower."""
    benchmark = Benchmark()
    monkeypatch.setattr(measure.time, "perf_counter", benchmark.clock)
    monkeypatch.setattr(measure, "share_of_others", lambda: lambda: 0.25)

    def taking(seconds: float):
        def step():
            benchmark.now += seconds * (1 + benchmark.now)

        return step

    alone = measure.timed(benchmark, taking(0.02), CPU)
    assert alone == {"others": 0.25}
    benchmark.stats.stats.data.clear()
    found = measure.timed(benchmark, taking(0.02), CPU, taking(0.01))
    assert found["against_ours"] == pytest.approx(0.5, rel=0.02)
    data = benchmark.stats.stats.data
    assert data[-1] > 1.1 * data[0]


def test_ours_are_kept_while_there_is_memory(monkeypatch):
    free = 10**9
    monkeypatch.setattr(ours, "free_bytes", lambda device: free)
    kept = ours.Ours(CPU)
    first = kept.beside("A2C MLP", "plain", needed=0)
    optimizer = weakref.ref(first.__self__)
    assert kept.beside("A2C MLP", "plain", needed=10**6) is first
    assert kept.beside("A2C MLP", "plain", needed=2 * 10**9) is None
    del first
    assert optimizer() is None
    assert kept.beside("A2C MLP", "plain", needed=10**9) is None, "both at once do not fit"
    assert type(kept.beside("A2C MLP", "SMORMS3", needed=0).__self__).__name__ == "FusedSMORMS3"
