"""How a step is measured: its time, the host's part of it, its memory."""

import itertools
import operator
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from fusedrms.kernels import devices
from fusedrms.tools.noise import share_of_others

Step = Callable[[], object]
SECONDS = {"cpu": 0.7, "gpu": 0.15}  # of rounds, but at least 5 of them
MOST_ROUNDS = 1000
HOST_ROUNDS = 20


def timed(benchmark, step: Step, device: torch.device, ours: Step | None = None) -> dict[str, float]:
    """Time a step that has run before, until the device is done.

    Args:
        ours: to be compared with, one before each round, so that both meet the same moments of a machine that others use as well.

    Returns:
        others: the share of the cores that other programs had meanwhile.
        against_ours: the median of how many times as fast as ours it was, if there are ours.
    """

    def run(one: Step = step) -> None:
        one()
        devices.synchronize(device)

    def seconds(one: Step) -> float:
        begin = time.perf_counter()
        run(one)
        return time.perf_counter() - begin

    before: list[float] = []
    setup = None if ours is None else lambda: before.append(seconds(ours))
    rounds = min(MOST_ROUNDS, max(5, int(devices.on(device, SECONDS) / seconds(step))))
    others = share_of_others()
    benchmark.pedantic(run, setup=setup, rounds=rounds)
    found = {"others": others()}
    if before:
        found["against_ours"] = statistics.median(map(operator.truediv, before, benchmark.stats.stats.data))
    return found


def extra_bytes(step: Step, device: torch.device) -> int:
    """The most that a steady-state step has allocated at a time beyond what was there before."""
    if devices.is_gpu(device):
        return devices.peak_bytes(device, step)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events: Any = profiler.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(itertools.accumulate((n_bytes for _, n_bytes in changes), initial=0))


def host_seconds(step: Step, device: torch.device) -> float:
    """Median time until step() returns, with nothing else under way on the device."""
    seconds = []
    for _ in range(HOST_ROUNDS):
        devices.synchronize(device)
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _states(found: dict) -> Iterator[Tensor]:
    """Also of dictionaries within, as HeavyBall has them."""
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _states(value)
        elif isinstance(value, Tensor) and key != "step":
            yield value


def held_and_moved(step: Step) -> tuple[float, float] | None:
    """Bytes a parameter that parameters and states take up, and that a step moves: these read and written, the gradient read.

    None if the step is not an optimizer's.
    """
    optimizer = getattr(step, "__self__", None)
    if not isinstance(optimizer, torch.optim.Optimizer):
        return None
    params = [param for group in optimizer.param_groups for param in group["params"]]
    numel = sum(param.numel() for param in params)
    held = sum(tensor.nbytes for tensor in (*params, *_states(optimizer.state))) / numel
    return held, 2 * held + sum(param.grad.nbytes for param in params) / numel
