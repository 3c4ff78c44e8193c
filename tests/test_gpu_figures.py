"""What two parts of `make gpu` measure and compare, and that they go on after a failure."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from fusedrms import FusedRMSProp
from fusedrms.kernels import lang

figures = pytest.importorskip("bench.gpu.figures")
first = pytest.importorskip("bench.gpu.first")
headline = pytest.importorskip("bench.gpu.headline")
profiler = pytest.importorskip("bench.timing.profiler")
scene = pytest.importorskip("bench.gpu.scene")

pytestmark = pytest.mark.skipif(lang.interpreted(), reason="about commands, which need compiled kernels")
CPU = torch.device("cpu")


def test_headline_goes_on(monkeypatch, tmp_path, capsys):
    """After a measurement that fails; and what a guest cannot do is no failure."""

    def raises(*args, **kwargs):
        raise RuntimeError("so it is\nand more")

    monkeypatch.setitem(headline.MEASUREMENTS, "host", raises)
    guest = figures.ALGORITHMS["plain"][figures.ADAMW]._replace(make=raises)
    monkeypatch.setitem(figures.ALGORITHMS["plain"], figures.ADAMW, guest)
    arguments = ["--device", "cpu", "--quick", "--rows", str(tmp_path / "rows")]
    assert headline.main([*arguments, "--only", "plain"]) == 0
    assert headline.main([*arguments, "--only", "host,clip"]) == 1
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    *plain, failed, clip = rows
    assert {row["unit"]: row.get("note") for row in plain}[f"× {figures.ADAMW}"] == "RuntimeError: so it is"
    assert failed["failed"] == "RuntimeError: so it is"
    assert clip["what"] == "clip_grad_norm, extra time, in small"
    assert "2 figures, 1 failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        headline.main(["--device", "cpu", "--only", "clips"])
    assert "--only clips: give at least one of plain, launches" in capsys.readouterr().err


def test_headline_pairs_what_memory_cannot_hold_together(monkeypatch):
    small = scene.Scene(CPU, quick=True)
    numel = scene.numel(small.smaller(figures.LLAMA))
    for free, rounds in ((1e12, 1), (40 * numel, 2)):
        seen = []
        monkeypatch.setattr(figures, "free_bytes", lambda device, free=free: free)
        monkeypatch.setattr(figures, "in_rounds", lambda scene, others, seen=seen: (seen.append(others) or {"copy": 1.0}, {}))
        figures.in_same_rounds(small, [figures.BASELINE, figures.ADAMW])
        assert len(seen) == rounds
    monkeypatch.setattr(scene, "free_bytes", lambda device: 1000)
    (row,) = figures.measured(small, "smorms3")
    assert row["note"].startswith("needs 0.0 GB of memory")
    assert row["value"] is None


def test_sizes():
    assert (scene.numel(figures.LLAMA), len(figures.LLAMA)) == (1_003_782_144, 37)
    assert (scene.numel(figures.FEW), len(figures.FEW)) == (757_604, 86)
    with torch.device("meta"):
        model = figures.GPT(**scene.SIZES[False].gpt)
    assert 340e6 < sum(param.numel() for param in model.parameters()) < 360e6


def test_first_goes_on(monkeypatch, tmp_path, capsys):
    """After a rule that is wrong."""
    step = FusedRMSProp.step

    def wrong(self, closure=None):
        step(self, closure)
        with torch.no_grad():
            self.param_groups[0]["params"][0].mul_(1.01)

    monkeypatch.setattr(FusedRMSProp, "step", wrong)
    assert first.main(["--device", "cpu", "--quick", "--rows", str(tmp_path / "rows")]) == 1
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [bool(row["failed"]) for row in rows] == [True, False, True, False]
    assert rows[0]["failed"].startswith("AssertionError: param of torch.float32")
    assert "4 rules and dtypes, 2 failed" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_units_of_the_last_place(dtype):
    """Of the largest of a value, its rival, and what it was before."""
    unit = torch.finfo(dtype).eps
    nan, inf, worst = float("nan"), float("inf"), sys.float_info.max
    one = torch.tensor([1.0, 1.0, 1.0, -1.0, 0.0, 0.0, nan, nan, inf, inf], dtype=dtype)
    other = torch.tensor([1.0, 1 + unit, 1 + unit, -1 - unit, -0.0, unit * 0.25, nan, 1.0, inf, 1.0], dtype=dtype)
    before = torch.tensor([1.0, nan, 8.0, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0, inf], dtype=dtype)
    assert first.apart(one, other, before).tolist() == [0.0, 1.0, 0.125, 0.5, 0.0, 0.25, 0.0, worst, 0.0, worst]


def test_distances_of_codes():
    one, other = torch.tensor([5, 3], dtype=torch.uint8), torch.tensor([5, 250], dtype=torch.uint8)
    assert first.apart(one, other, one).tolist() == [0, 247]


def test_distances():
    """Of all elements of all parameters, by name."""
    optimizers = []
    for _ in range(2):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(100)) for _ in range(2)]
        for param in params:
            param.grad = torch.randn(100)
        optimizers.append(FusedRMSProp(params))
        optimizers[-1].step()
    one, other = optimizers
    with torch.no_grad():
        for param, n in zip(other.param_groups[0]["params"], (1, 3), strict=True):
            param[:n] = torch.nextafter(torch.nextafter(param[:n], torch.tensor(9.0)), torch.tensor(9.0))
    found = first.distances(one, other, [value for _, value in first.values(one)])
    assert found == dict(param=dict(most_ulp=2, differ=4, of=200), square_avg=dict(most_ulp=0, differ=0, of=200))


def test_tally():
    """Events as the profiler of an NVIDIA GPU names them; it waits by itself after the step."""

    def event(kind, name, start=0):
        return SimpleNamespace(name=name, device_type=SimpleNamespace(name=kind), time_range=SimpleNamespace(start=start, end=start + 10))

    events = [
        event("CPU", profiler.SPAN, 100),
        event("CUDA", profiler.SPAN, 104),
        event("CPU", "Optimizer.step#FusedRMSProp.step", 101),
        event("CUDA", "Optimizer.step#FusedRMSProp.step", 104),
        event("CPU", "cuLaunchKernelEx", 101),
        event("CUDA", "step_kernel", 200),
        event("CUDA", "void at::native::vectorized_elementwise_kernel<...>", 210),
        event("CUDA", "Memset (Device)", 215),
        event("CUDA", "Memcpy HtoD (Pinned -> Device)", 220),
        event("CUDA", "Memcpy DtoD (Device -> Device)", 230),
        event("CPU", "cudaStreamSynchronize", 105),
        event("CPU", "cudaDeviceSynchronize", 300),
    ]
    assert profiler.tally(events) == dict(launches=2, copies=1, waits=1)
    assert profiler.tally([]) == dict(launches=0, copies=0, waits=0)


def test_a_profile_has_what_is_counted():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.profiler.record_function(profiler.SPAN):
        torch.ones(3).add_(1)
    assert profiler.tally(profile.events()) == dict(launches=0, copies=0, waits=0)
    assert any(event.name == profiler.SPAN for event in profile.events())
