"""What processes share by optimizer.share_memory(): no lost count, no torn value, and locks that no death leaves closed."""

import itertools
import multiprocessing
import threading
import time
from functools import partial

import pytest
import torch
from torch import multiprocessing as mp

import hogwild
from fusedrms import FusedRMSProp
from tools import params_of

if "fork" not in multiprocessing.get_all_start_methods():
    pytest.skip("needs fork", allow_module_level=True)

SPAWN = pytest.param("spawn", marks=pytest.mark.exhaustive)
# a test before may have imported JAX, which has threads, and which no child uses
pytestmark = pytest.mark.filterwarnings("ignore:os.fork.. was called:RuntimeWarning")
FORK = mp.get_context("fork")


def tensors_of(optimizer):
    return [*params_of(optimizer), *(value for values in optimizer.state.values() for value in values.values())]


@pytest.mark.parametrize("start", ["fork", SPAWN])
@pytest.mark.parametrize("lock", [None, True, "mp.Lock"])
def test_every_step_counts(start, lock):
    """Also beside a process that is killed; with a multiprocessing.Lock the others would wait for it for ever."""
    kills, n, steps = lock != "mp.Lock", 4, 20_000
    optimizer = hogwild.shared(hogwild.lock_for(lock, start), centered=True, momentum=0.9)
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
    ours = hogwild.shared(lock, shapes=((70,), (9, 3)), **TURNS[mode])
    torch.manual_seed(1)
    one = hogwild.shared(shapes=((70,), (9, 3)), **TURNS[mode])
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
        optimizers, begin = [hogwild.shared(lock, shapes=((n,),), lr=lr) for _ in range(5)], FORK.Barrier(4)
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
