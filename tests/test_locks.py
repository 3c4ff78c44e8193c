"""The locks of share_memory(lock=): no death, interrupt or error leaves one closed, and none is where it cannot be."""

import contextlib
import copy
import io
import itertools
import multiprocessing
import os
import pickle
import re
import sys
import threading
import weakref
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import multiprocessing as mp

import hogwild
from fusedrms import FusedRMSProp, apply_in_backward
from fusedrms.engine import locks
from fusedrms.kernels import devices
from tools import parameters, params_of, random_grads

if "fork" not in multiprocessing.get_all_start_methods():
    pytest.skip("needs fork", allow_module_level=True)

# a test before may have imported JAX, which has threads, and which no child uses
pytestmark = pytest.mark.filterwarnings("ignore:os.fork.. was called:RuntimeWarning")
FORK = mp.get_context("fork")


def test_a_lock_is_taken_from_the_dead():
    optimizer, held = hogwild.shared(True), FORK.Event()
    (process,) = hogwild.started("fork", hogwild.hold, [(optimizer, held)])
    assert held.wait(hogwild.PATIENCE)
    process.kill()
    hogwild.set_grads(params_of(optimizer), 0)
    optimizer.step()
    assert hogwild.ended([process]) == [-9]
    assert hogwild.counters(optimizer) == [1, 1]


def test_a_child_forked_under_the_lock_waits_for_it():
    """Without keeping a core busy; it is held by a thread that the child has not."""
    optimizer, held, ends = hogwild.shared(True), threading.Event(), threading.Event()
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
    lock = hogwild.lock_for(lock, "fork")
    optimizer = hogwild.shared(lock)
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


def test_an_interrupt_anywhere_leaves_no_lock():
    """At each bytecode of taking the lock and giving it back, as Ctrl-C may come."""
    optimizer, left = hogwild.shared(True), []
    random_grads(params_of(optimizer))

    def is_free(lock: locks.FileLock) -> bool:
        """To other threads and, as a child finds, other processes."""
        if not (pid := os.fork()):
            with contextlib.suppress(OSError):
                locks.fcntl.lockf(lock._file, locks.fcntl.LOCK_EX | locks.fcntl.LOCK_NB)
                os._exit(0)
            os._exit(1)
        return not lock.threads._is_owned() and os.waitpid(pid, 0)[1] == 0

    def trace(frame, event, arg):
        if frame.f_code.co_filename == locks.__file__ or frame.f_code.co_name == "_locked_step":
            frame.f_trace_opcodes = True
            left[0] -= event == "opcode"
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    for n in itertools.count(1):
        left[:] = [n]
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            optimizer.step()
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            sys.settrace(before)
        assert is_free(optimizer._lock.lock), n
    assert n > 50
    optimizer.step()


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
    optimizer = hogwild.shared(True)
    random_grads(params_of(optimizer))
    optimizer.step()
    gone = weakref.ref(optimizer)
    del optimizer
    assert gone() is None


@pytest.mark.parametrize("kind", [True, "mp.Lock"])
def test_copies_and_pickles(kind):
    """The lock goes with the memory."""
    optimizer = hogwild.shared(hogwild.lock_for(kind, "fork"))
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
