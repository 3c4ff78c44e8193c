"""Processes that step one optimizer, whose parameters, states and counters they share."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.sharedctypes import RawArray
from typing import Any

import torch
from torch import Tensor
from torch import multiprocessing as mp

from fusedrms import FusedRMSProp
from fusedrms.kernels.cpu.count import Counters
from tools import parameters, params_of, random_grads, twins

PATIENCE = 300  # seconds, on a busy machine and where all is to be compiled


def shared(lock=None, shapes=((5,), (2, 3)), dtype=torch.float32, **options) -> FusedRMSProp:
    params, options = parameters(shapes, dtype=dtype), {"lr": 1e-4, **options}
    once = twins(params)
    random_grads(once)
    FusedRMSProp(once, **options).step()  # compiled here, not in each process
    return FusedRMSProp([torch.nn.Parameter(param.detach().share_memory_()) for param in params], **options).share_memory(lock=lock)


def lock_for(kind, start):
    return mp.get_context(start).Lock() if kind == "mp.Lock" else kind


def started(start: str, function: Callable[..., None], each: Sequence[tuple]) -> list[Any]:
    """A process for each tuple of arguments."""
    processes = [mp.get_context(start).Process(target=function, args=arguments, daemon=True) for arguments in each]
    for process in processes:
        process.start()
    return processes


def ended(processes: Sequence[Any]) -> list[int]:
    """Their exit codes; what has not ended in time is killed."""
    until = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def counters(optimizer: FusedRMSProp) -> list[int]:
    return [int(values["step"]) for values in optimizer.state.values()]


def set_grads(params: Sequence[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)


def run(optimizer: FusedRMSProp, done: Any, k: int, steps: int | None) -> None:
    """So many steps, or, None, until it is killed; done: of each process, how many it has made."""
    torch.set_num_threads(1)
    set_grads(params_of(optimizer), k)
    for n in itertools.count(1) if steps is None else range(1, steps + 1):
        optimizer.step()
        done[k] = n


def watched(optimizer: FusedRMSProp, start: str, n: int, steps: int, kills: bool) -> tuple[list[int], list[int], list[list[int]]]:
    """n processes that make so many steps each, and, if it kills, one more, killed at some moment in the middle of its own.

    Returns:
        Their exit codes, how many steps each has reported, and the counters as they were seen from time to time, at last at the end.
    """
    done = RawArray("q", n + 1)
    victims = [(optimizer, done, n, None)] if kills else []
    processes = started(start, run, [(optimizer, done, k, steps) for k in range(n)] + victims)
    seen, since = [counters(optimizer)], time.monotonic()
    last = 100 + os.getpid() % 900  # steps of the one that is killed: others at each run
    while any(process.is_alive() for process in processes) and time.monotonic() < since + PATIENCE:
        seen.append(counters(optimizer))
        time.sleep(0.001)
        if kills and done[n] >= last:
            os.kill(processes[n].pid, signal.SIGKILL)
            kills = False
    return ended(processes), list(done), [*seen, counters(optimizer)]


def take_turns(optimizer: FusedRMSProp, turns: Sequence[Any], k: int, steps: int) -> None:
    """Steps k, k + n, ... of a run, each when it is its turn."""
    torch.set_num_threads(1)
    for step in range(k, steps, len(turns)):
        turns[k].acquire()
        set_grads(params_of(optimizer), step)
        optimizer.step()
        turns[(k + 1) % len(turns)].release()


def descend(optimizers: Sequence[FusedRMSProp], begin: Any, k: int, steps: int) -> None:
    """With each of them down |w|² / 2, whose gradient is w, with noise of size 1."""
    torch.set_num_threads(1)
    for seed, optimizer in enumerate(optimizers):
        (param,), generator = params_of(optimizer), torch.Generator().manual_seed(100 * seed + k)
        begin.wait()
        for _ in range(steps):
            param.grad = param.detach() + torch.randn(param.shape, generator=generator)
            optimizer.step()


def write(optimizer: FusedRMSProp, value: float, ends: Any) -> None:
    """Steps that make all of the parameter this value; of the gradient's and of its square's all states."""
    torch.set_num_threads(1)
    (param,) = params_of(optimizer)
    param.grad = torch.full_like(param, -value)
    optimizer.param_groups[0]["clip_weights"] = value
    while not ends.is_set():
        for _ in range(100):
            optimizer.step()


def count(counters: Sequence[Tensor], begin: Any, times: int) -> None:
    """So often each of these a hundred times, without anything in between."""
    made = Counters([str(counter.dtype).removeprefix("torch.") for counter in counters] * 100)
    made.addresses[:] = [counter.data_ptr() for counter in counters] * 100
    begin.wait()
    for _ in range(times):
        made.count()


def hold(optimizer: FusedRMSProp, held: Any) -> None:
    """The lock, for ever."""
    with optimizer._lock.lock:
        held.set()
        time.sleep(PATIENCE)


def wait_and_step(optimizer: FusedRMSProp, waits: Any, seconds: Any) -> None:
    """A step, and how long it has kept a core busy."""
    set_grads(params_of(optimizer), 0)
    waits.set()
    before = time.process_time()
    optimizer.step()
    seconds.value = time.process_time() - before
