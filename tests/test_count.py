"""Counters that a GPU counts by itself."""

import numpy as np
import pytest
import torch

from fusedrms.kernels import lang, launch
from fusedrms.kernels.cpu.count import Counters
from fusedrms.tools.compile import warm

if lang.triton is None:
    pytest.skip("needs Triton", allow_module_level=True)

N = launch.COUNTED + 5  # more than a program counts


def counters() -> list[torch.Tensor]:
    values = [0.0, 1.0, 5.0, 2.0**24, 2.0**24 - 1]
    return [torch.tensor(values[k % 5], dtype=torch.float64 if k % 3 == 0 else torch.float32, device="cpu") for k in range(N)]


def check(ours: list[torch.Tensor], skipped: float) -> None:
    """One launch, beside what a CPU counts."""
    theirs = counters()
    others = Counters([str(counter.dtype).removeprefix("torch.") for counter in theirs])
    others.addresses[:] = [counter.data_ptr() for counter in theirs]
    addresses = torch.tensor([counter.data_ptr() for counter in ours])
    double = torch.tensor([int(counter.dtype == torch.float64) for counter in ours], dtype=torch.int32)
    counted, noise = torch.zeros(N, dtype=torch.float64), torch.full((N, 3), 7, dtype=torch.int32)
    launch.prepare_count(addresses, double, counted, noise)(torch.tensor([skipped, 1.0, 0.0], dtype=torch.float64))
    expected = others.after_step().copy()
    if not skipped:
        others.count()
    assert np.array_equal(counted.numpy(), expected)
    assert torch.equal(noise[:, 2], counted.int())
    assert (noise[:, :2] == 7).all()
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.interpret
@pytest.mark.skipif(not lang.interpreted(), reason="the kernel runs in the interpreter")
@pytest.mark.parametrize("skipped", [0.0, 1.0])
def test_as_on_a_cpu(skipped):
    check(counters(), skipped)


@pytest.mark.skipif(lang.interpreted(), reason="the interpreter compiles nothing")
@pytest.mark.parametrize("skipped", [0.0, 1.0])
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_as_ptx(monkeypatch, target, skipped):
    from ptx import real

    ours, launched = counters(), []
    real.use(monkeypatch, lambda: ours, launched, target)
    check(ours, skipped)
    assert launched == ["count_kernel"]


@pytest.mark.skipif(lang.interpreted(), reason="the interpreter compiles nothing")
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_compiles(target):
    from fusedrms.kernels.gpu.count import count_kernel
    from fusedrms.tools.machine_code import target_of

    made = warm(count_kernel, launch.count_constants(), target_of(target))
    assert made.asm
