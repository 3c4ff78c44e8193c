"""What processes share by optimizer.share_memory(): no lost count, no torn value, and locks that no death leaves closed."""

import contextlib
import copy
import io
import itertools
import multiprocessing
import pickle
import re
import threading
import time
import weakref
from functools import partial
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import multiprocessing as mp

import hogwild
from fusedrms import FusedRMSProp, apply_in_backward
from fusedrms.engine import locks
from fusedrms.kernels import devices
from tools import parameters, params_of, random_grads, twins

if "fork" not in multiprocessing.get_all_start_methods():
    pytest.skip("needs fork", allow_module_level=True)

SPAWN = pytest.param("spawn", marks=pytest.mark.exhaustive)
FORK = mp.get_context("fork")


def shared(lock=None, shapes=((5,), (2, 3)), dtype=torch.float32, **options) -> FusedRMSProp:
    params, options = parameters(shapes, dtype=dtype), {"lr": 1e-4, **options}
    once = twins(params)
    random_grads(once)
    FusedRMSProp(once, **options).step()  # compiled here, not in each process
    return FusedRMSProp([torch.nn.Parameter(param.detach().share_memory_()) for param in params], **options).share_memory(lock=lock)


def lock_for(kind, start):
    return mp.get_context(start).Lock() if kind == "mp.Lock" else kind


def tensors_of(optimizer):
    return [*params_of(optimizer), *(value for values in optimizer.state.values() for value in values.values())]


@pytest.mark.parametrize("start", ["fork", SPAWN])
@pytest.mark.parametrize("lock", [None, True, "mp.Lock"])
def test_every_step_counts(start, lock):
    """Also beside a process that is killed; with a multiprocessing.Lock the others would wait for it for ever."""
    kills, n, steps = lock != "mp.Lock", 4, 20_000
    optimizer = shared(lock_for(lock, start), centered=True, momentum=0.9)
    exits, done, seen = hogwild.watched(optimizer, start, n, steps, kills)
    assert exits == [0] * n + [-9] * kills
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(optimizer))
    assert all(before <= after for one, next in itertools.pairwise(seen) for before, after in zip(one, next, strict=True))
    assert done[:n] == [steps] * n
    for counted in seen[-1]:  # what was killed may have counted a step that it has not reported
        assert sum(done) <= counted <= sum(done) + kills


def test_counters_are_added_to_at_once():
    """By two that do nothing else, over and over: half of it would be lost if each were read, changed and written."""
    dtypes, times = (torch.float32, torch.float64, torch.int64, torch.int32), 1000
    counters, begin = [torch.zeros((), dtype=dtype).share_memory_() for dtype in dtypes], FORK.Barrier(2)
    assert hogwild.ended(hogwild.started("fork", hogwild.count, [(counters, begin, times)] * 2)) == [0, 0]
    assert [counter.item() for counter in counters] == [2 * 100 * times] * 4


def test_a_float32_counter_ends_where_it_did():
    counter = torch.tensor(2.0**24 - 1)
    hogwild.count([counter], threading.Barrier(1), 1)
    assert counter.item() == 2**24


TURNS = {
    "all states": dict(centered=True, momentum=0.9, bias_correction=True, ema_decay=0.9, weight_decay=0.1),
    "random bits": dict(dtype=torch.bfloat16, stochastic_rounding=True, state_dtype="8bit", momentum=0.9, seed=3),
    "split": dict(dtype=torch.bfloat16, master_weights="split", clip_grad_norm=1.0),
}


@pytest.mark.parametrize("mode", TURNS)
@pytest.mark.parametrize("lock", [None, True])
@pytest.mark.parametrize("start", ["fork", SPAWN])
def test_turns_are_one_run(start, lock, mode):
    """Processes that step one after the other: parameters, states and counters of one process that makes all steps, bit for bit."""
    torch.manual_seed(1)
    ours = shared(lock, shapes=((70,), (9, 3)), **TURNS[mode])
    torch.manual_seed(1)
    one = shared(shapes=((70,), (9, 3)), **TURNS[mode])
    turns = [mp.get_context(start).Semaphore(k == 0) for k in range(3)]
    processes = hogwild.started(start, hogwild.take_turns, [(ours, turns, k, 40) for k in range(3)])
    assert hogwild.ended(processes) == [0] * 3
    for step in range(40):
        hogwild.set_grads(params_of(one), step)
        one.step()
    assert all(map(torch.equal, tensors_of(ours), tensors_of(one)))
    assert hogwild.counters(ours) == [40, 40]


def test_without_a_lock_as_near_as_with_one():
    """Down a quadratic with noise, all w end in a ball about 0, whose size overwritten updates must not change.

    Each w is drawn towards 0 by a of itself and pushed by a of the noise at each step, a = lr / sqrt(mean of squared gradients), here
    lr: its variance comes to a / 2. They are independent of each other, and so are the runs: the mean of the squares of n = 5,000 is off
    by a relative sqrt(2 / n) = 2 % (a standard deviation), the ratio of two by 2.8 %. That gradients are a few steps old, of w that
    others have updated since, changes the variance by a times so many steps, 2 % for each, with a lock and without. 30 % leave room for
    six standard deviations and 13 %. One of 5,000 normal numbers is 6.5 deviations off once in a million times; an update that eps alone
    divides would be at each.
    """
    n, lr, found = 1000, 0.02, {}
    for lock in (None, True):
        optimizers, begin = [shared(lock, shapes=((n,),), lr=lr) for _ in range(5)], FORK.Barrier(4)
        workers = hogwild.started("fork", hogwild.descend, [(optimizers, begin, k, 300) for k in range(4)])
        assert hogwild.ended(workers) == [0] * 4
        found[lock] = torch.cat([params_of(optimizer)[0].detach() for optimizer in optimizers])
    free, locked = (found[lock].square().mean().item() for lock in (None, True))
    assert free / locked == pytest.approx(1, abs=0.3)
    assert locked / (lr / 2) == pytest.approx(1, abs=0.3)
    assert found[None].abs().max() < 6.5 * locked**0.5


def test_no_value_is_torn():
    """8-byte values of one process or another, never half of each, at all places of a vector and behind the last one."""
    first, second = 1 / 3, 0.7  # whose upper and lower halves all differ
    base = torch.full((4008,), first, dtype=torch.float64).share_memory_()
    param = torch.nn.Parameter(base[1:])  # not where a vector begins
    optimizer = FusedRMSProp([param], lr=1e9, alpha=0.0, centered=True).share_memory()
    ends = FORK.Event()
    processes = hogwild.started("fork", hogwild.write, [(optimizer, value, ends) for value in (first, second)])
    state, double = optimizer.state[param], partial(torch.tensor, dtype=torch.float64)
    allowed = [
        (param.detach(), double([first, second])),
        (state["square_avg"], double([0, first**2, second**2])),
        (state["grad_avg"], double([0, -first, -second])),
    ]
    seen, since = set(), time.monotonic()
    while time.monotonic() < since + (2 if len(seen) == 2 else hogwild.PATIENCE):  # until both have been at it, for a while
        seen.update(param.detach()[::1000].tolist())
        assert all(torch.isin(tensor.clone(), values).all() for tensor, values in allowed)
    ends.set()
    assert hogwild.ended(processes) == [0, 0]
    assert seen == {first, second}


def test_a_lock_is_taken_from_the_dead():
    optimizer, held = shared(True), FORK.Event()
    (process,) = hogwild.started("fork", hogwild.hold, [(optimizer, held)])
    assert held.wait(hogwild.PATIENCE)
    process.kill()
    hogwild.set_grads(params_of(optimizer), 0)
    optimizer.step()
    assert hogwild.ended([process]) == [-9]
    assert hogwild.counters(optimizer) == [1, 1]


def test_a_child_forked_under_the_lock_waits_for_it():
    """Without keeping a core busy; it is held by a thread that the child has not."""
    optimizer, held, ends = shared(True), threading.Event(), threading.Event()
    waits, seconds = FORK.Event(), FORK.Value("d")

    def work():
        with optimizer._lock.lock:
            held.set()
            ends.wait()

    thread = threading.Thread(target=work)
    thread.start()
    held.wait()
    (process,) = hogwild.started("fork", hogwild.wait_and_step, [(optimizer, waits, seconds)])
    try:
        assert waits.wait(hogwild.PATIENCE)
        process.join(0.5)
        assert process.is_alive()
        assert hogwild.counters(optimizer) == [0, 0]
    finally:
        ends.set()
        thread.join()
    assert hogwild.ended([process]) == [0]
    assert hogwild.counters(optimizer) == [1, 1]
    assert seconds.value < 0.3


@pytest.mark.parametrize("lock", [True, "mp.Lock"])
def test_a_step_that_fails_releases(lock):
    lock = lock_for(lock, "fork")
    optimizer = shared(lock)
    params_of(optimizer)[0].grad = torch.ones(5).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    closed = []
    held = optimizer._lock.lock

    def closure():
        with held:  # it is not held around the closure
            closed.append(True)
        random_grads(params_of(optimizer))
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert closed
    assert hogwild.counters(optimizer) == [1, 1]


@contextlib.contextmanager
def nothing():
    yield


@pytest.mark.parametrize(
    ("lock", "error", "said"),
    [
        (False, TypeError, "lock=False is no context manager"),
        (1, TypeError, "lock=1 is no context manager"),
        ("yes", TypeError, "lock='yes' is no context manager"),
        (mp.Lock, TypeError, "is no context manager: pass True, torch.multiprocessing.Lock()"),
        (nothing(), ValueError, "can be entered once"),
        (threading.Lock(), ValueError, "is of this process alone"),
        (threading.RLock(), ValueError, "is of this process alone"),
        (threading.BoundedSemaphore(), ValueError, "is of this process alone"),
    ],
)
def test_wrong_locks(lock, error, said):
    optimizer = FusedRMSProp(parameters([(5,)]))
    with pytest.raises(error, match=re.escape(said)):
        optimizer.share_memory(lock=lock)
    assert not optimizer.state


def test_where_there_can_be_no_lock(monkeypatch):
    optimizer = apply_in_backward(parameters([(5,)]), FusedRMSProp)
    with pytest.raises(ValueError, match="lock=True is not supported with apply_in_backward"):
        optimizer.share_memory(lock=True)
    optimizer = FusedRMSProp(parameters([(5,)]))
    with monkeypatch.context() as patch:
        patch.setattr(devices, "is_gpu", lambda device: True)
        with pytest.raises(ValueError, match="lock=True excludes nobody on cpu, which updates after step"):
            optimizer.share_memory(lock=True)
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(ValueError, match="lock=True needs the record locks of POSIX"):
        optimizer.share_memory(lock=True)
    assert not optimizer.state


def test_an_optimizer_with_a_lock_is_freed_at_once():
    optimizer = shared(True)
    random_grads(params_of(optimizer))
    optimizer.step()
    gone = weakref.ref(optimizer)
    del optimizer
    assert gone() is None


@pytest.mark.parametrize("kind", [True, "mp.Lock"])
def test_copies_and_pickles(kind):
    """The lock goes with the memory."""
    optimizer = shared(lock_for(kind, "fork"))
    held = optimizer._lock
    file = io.BytesIO()
    torch.save(optimizer, file)
    file.seek(0)
    for apart in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer)), torch.load(file, weights_only=False)):
        assert apart._lock is None
        random_grads(params_of(apart))
        apart.step()
    assert hogwild.counters(optimizer) == [0, 0]
    assert copy.copy(optimizer)._lock is held
    assert optimizer.share_memory()._lock is held  # as for groups that were added since
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer._lock is held
    with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
        ForkingPickler.dumps(optimizer)
