"""The timings, in groups of what computes the same."""

import math
import time
from typing import NamedTuple

import pytest
import torch

from bench.common.machine import free_bytes
from bench.common.store import CACHED, LIMITS, OURS
from bench.timing.algorithms import ALGORITHMS, Unavailable
from bench.timing.limits import Limits
from bench.timing.measure import extra_bytes, held_and_moved, host_seconds, timed
from bench.timing.ours import Ours
from bench.timing.switches import without_launch
from bench.timing.workloads import WORKLOADS, parameters
from fusedrms import FusedRMSProp
from fusedrms.engine.optimizer import FusedOptimizer
from fusedrms.kernels import devices

pytestmark = pytest.mark.filterwarnings("ignore")  # those of torch.compile and of guests are theirs
FEW = 10  # tensors; compiling a step of so few takes seconds
COMPILING = {"cpu": 180, "gpu": 45}  # seconds that compiling larger steps may have taken before no more is begun


class Session(NamedTuple):
    """What all timings share."""

    device: torch.device
    limits: Limits
    ours: Ours
    compiling: list[float]  # seconds of each step that torch has compiled


@pytest.fixture(scope="session")
def session(device) -> Session:
    return Session(device, Limits(device), Ours(device), [])


@pytest.mark.parametrize("limit", LIMITS)
def test_limit(benchmark, session, limit):
    """What steps are held against; see Limits."""
    device, limits, *_ = session
    if limit not in limits.runs:
        pytest.skip("on a GPU the copy is the limit")
    benchmark.group = "what the device can do"
    n_bytes, run = limits.runs[limit]
    limits.rates(rounds=1)
    timed(benchmark, run, device)
    benchmark.extra_info["n_bytes"] = n_bytes


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def test_step(benchmark, session, workload, algorithm, implementation):
    benchmark.group = f"{workload}, {algorithm}"
    reason = _step(benchmark, session, workload, algorithm, implementation)
    if reason:
        pytest.skip(reason)


def _step(benchmark, session: Session, workload: str, algorithm: str, implementation: str) -> str | None:
    """Why it cannot be timed, if so; a function of its own, so that no frame keeps the memory of a step that failed."""
    device, limits, ours, compiling = session
    (family, shapes), chosen = WORKLOADS[workload], ALGORITHMS[algorithm][implementation]
    numel = sum(map(math.prod, shapes))
    needed = chosen.n_held * numel
    beside = ours.beside(workload, algorithm, needed)
    free = free_bytes(device)
    if needed > free:
        return f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
    if chosen.compiled and len(shapes) > FEW and sum(compiling) > devices.on(device, COMPILING):
        return f"compiling has taken {sum(compiling):.0f} s of this run already"
    try:
        step = chosen.make(parameters(shapes, device))
        begin = time.perf_counter()
        step()
        devices.synchronize(device)
        if chosen.compiled:
            compiling += [time.perf_counter() - begin] if len(shapes) > FEW else []
        step()
    except Unavailable as error:
        return str(error)
    except torch.OutOfMemoryError as error:
        return f"out of memory: {_first_line(error)}"
    except Exception as error:
        if not chosen.guest:
            raise
        return f"{type(error).__name__}: {_first_line(error)}"
    held, moved = held_and_moved(step) or (None, None)
    n_bytes = chosen.n_bytes or moved
    assert n_bytes is not None
    rates = [limits.rates()] if n_bytes * numel > CACHED else []
    found = {"against_ours": 1.0} if implementation == OURS else {}
    found |= timed(benchmark, step, device, None if found else beside)
    rates += [limits.rates()] if rates else []
    info = dict(
        family=family,
        n_tensors=len(shapes),
        numel=numel,
        n_bytes=n_bytes,
        held=held,
        extra_bytes=extra_bytes(step, device),
        **found,
        **{name: max(rate[name] for rate in rates) for name in limits.runs if rates},
    )
    if devices.is_gpu(device):
        info["host_us"] = host_seconds(step, device) * 1e6
    elif isinstance(optimizer := getattr(step, "__self__", None), FusedOptimizer):
        with without_launch():
            optimizer.release()
            step()
            info["host_us"] = host_seconds(step, device) * 1e6
    benchmark.extra_info |= info
    return None


@pytest.mark.parametrize("gradients", ["unmoved", "moved"])
@pytest.mark.parametrize("n_tensors", [100, 1000, 10000])
def test_host(benchmark, device, n_tensors, gradients):
    """What step() costs the host for tensors of 64 elements, the launch excluded."""
    benchmark.group = "the host's part of a step"
    params = parameters([(64,)] * n_tensors, device)
    optimizer = FusedRMSProp(params)
    others = [[torch.randn_like(param) for param in params] for _ in range(2)]

    def setup():
        if gradients == "moved":
            others.reverse()
            for param, grad in zip(params, others[0], strict=True):
                param.grad = grad
        devices.synchronize(device)

    with without_launch():
        benchmark.pedantic(optimizer.step, setup=setup, rounds=100, warmup_rounds=3)
