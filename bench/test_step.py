"""The timings. Each stands beside its baseline: the ids read test[what-algorithm-implementation]."""

import numba
import numpy as np
import pytest
import torch

import fusedrms.buckets
from bench.workloads import parameters
from fusedrms import FusedRMSProp
from fusedrms.kernels import cpu

SYNCHRONIZE = {"cpu": lambda: None, "cuda": torch.cuda.synchronize}


def timed(benchmark, function, n_bytes: int, device: str, **info):
    """Time a function until the device is done; n_bytes is what it must move at least."""

    def run():
        function()
        SYNCHRONIZE[device]()

    benchmark.extra_info |= dict(n_bytes=n_bytes, **info)
    seconds = n_bytes / (1e10 if device == "cpu" else 1e12) + 1e-4  # about
    benchmark.pedantic(run, rounds=int(min(100, max(9, 0.7 / seconds))), iterations=int(max(1, 1e-3 / seconds)), warmup_rounds=3)


def test_copy(benchmark, device):
    """What the machine can do: bytes read and written by a copy of 256 MiB (4 GiB on a GPU)."""
    source = torch.ones(2**26 if device == "cpu" else 2**30, device=device)
    target = torch.empty_like(source)
    timed(benchmark, lambda: target.copy_(source), 2 * source.nbytes, device)


@numba.njit(nogil=True)
def _stream(a, b, c):
    for i in range(a.size):
        b[i] += a[i]
        c[i] += a[i]


def test_stream(benchmark, device):
    """The same bytes as a plain step of two tensors of 4096x4096, three arrays read and two written, and hardly any arithmetic."""
    if device != "cpu":
        pytest.skip("the copy is the limit there")
    n_threads = torch.get_num_threads()
    n = 2 * 4096**2 // n_threads * n_threads
    arrays = [torch.ones(n).numpy() for _ in range(3)]
    parts = list(zip(*(np.split(array, n_threads) for array in arrays), strict=True))

    def run():
        others = [cpu._pool().submit(_stream, *part) for part in parts[1:]]
        _stream(*parts[0])
        for other in others:
            other.result()

    timed(benchmark, run, 20 * n, device)


def test_step(benchmark, device, shapes, timed_step):
    params = parameters(shapes, device)
    n_bytes, step = timed_step
    timed(benchmark, step(params), n_bytes * sum(param.numel() for param in params), device, n_tensors=len(shapes))


@pytest.mark.parametrize("moved", [False, True], ids=["nothing moved", "all gradients moved"])
def test_host(benchmark, device, moved, monkeypatch):
    """What step() costs the host for 1,000 tensors, the launch excluded."""
    monkeypatch.setattr(fusedrms.buckets, "launch", lambda *args: None)
    params = parameters([(64,)] * 1000, device)
    optimizer = FusedRMSProp(params)
    gradients = [[torch.randn_like(param) for param in params] for _ in range(2)]

    def setup():
        if moved:
            gradients.reverse()
            for param, grad in zip(params, gradients[0], strict=True):
                param.grad = grad
        SYNCHRONIZE[device]()

    benchmark.pedantic(optimizer.step, setup=setup, rounds=200, warmup_rounds=3)


def test_host_and_launch(benchmark, device, plain_step):
    """What step() costs the host for 1,000 tensors until it returns; on a GPU the work goes on after that."""
    run = plain_step(parameters([(64,)] * 1000, device))
    benchmark.pedantic(run, setup=SYNCHRONIZE[device], rounds=100, warmup_rounds=3)
