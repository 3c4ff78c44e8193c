"""Locks that steps hold while they read and write what processes share."""

import contextlib
import os
import tempfile
import threading
import weakref
from collections.abc import Iterable
from multiprocessing import reduction
from multiprocessing.context import assert_spawning
from multiprocessing.reduction import ForkingPickler
from typing import IO, Any

from torch import Tensor

from ..kernels import devices

try:
    import fcntl
except ImportError:  # Windows
    fcntl: Any = None

_ONCE = type(contextlib.contextmanager(lambda: iter(()))())  # what can be entered once
_OF_THREADS = type(threading.Lock()), type(threading.RLock()), threading.Semaphore, threading.Condition


class FileLock:
    """Held by one thread of one process at a time; the operating system takes it away from a process that dies.

    A record lock of POSIX, on a file that has no name. Who waits for it sleeps. A forked child does not hold what its parent holds.

    Args:
        file: opened for reading and writing. The only descriptor of a process: a process that closes any of a file loses its locks on it.
    """

    # One for all such locks, since to the kernel a process holds or waits, not a thread of it: it would refuse two threads that wait for
    # two locks what it takes for a deadlock. It knows its owner, so that what an interrupt has left held can be told from another's.
    threads: Any = threading.RLock()

    def __init__(self, file: IO[bytes] | None = None):
        self._file = file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed at the end of this
        weakref.finalize(self, self._file.close)

    def __enter__(self) -> None:
        self.threads.acquire()
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give up what this thread holds, if anything."""
        while self.threads._is_owned():
            fcntl.lockf(self._file, fcntl.LOCK_UN)
            self.threads.release()

    def __reduce__(self) -> tuple:
        assert_spawning(self)
        return _opened, (reduction.DupFd(self._file.fileno()),)


def _opened(descriptor: Any) -> FileLock:
    """In a spawned process, which inherits the descriptor."""
    return FileLock(os.fdopen(descriptor.detach(), "r+b", buffering=0))


def _begin_anew() -> None:
    """In a forked process, which lacks the thread that may have held it."""
    FileLock.threads = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


class Held:
    """What the steps of an optimizer hold. It goes where the states are shared: into no copy that has its own, and into no file."""

    def __init__(self, lock: Any):
        self.lock = lock

    def release(self) -> None:
        """After an error: an interrupt may have come before or after the lock's own methods had done their work."""
        if isinstance(self.lock, FileLock):
            self.lock.release()

    def __reduce__(self) -> tuple:
        return type(None), ()


ForkingPickler.register(Held, lambda held: (Held, (held.lock,)))


def held(lock: Any, params: Iterable[Tensor], in_backward: bool) -> Held:
    """What `lock=` of share_memory() asks for; TypeError or ValueError for what no step of these parameters can hold."""
    if in_backward:
        raise ValueError(f"lock={lock!r} is not supported with apply_in_backward, whose steps are one for each parameter: leave it out")
    if gpu := next((param.device for param in params if devices.is_gpu(param.device)), None):
        raise ValueError(f"lock={lock!r} excludes nobody on {gpu}, which updates after step() has returned: share a model on the CPU")
    if lock is True:
        if fcntl is None:
            raise ValueError("lock=True needs the record locks of POSIX, which this system lacks: pass lock=torch.multiprocessing.Lock()")
        return Held(FileLock())
    if not (hasattr(type(lock), "__enter__") and hasattr(type(lock), "__exit__")):
        raise TypeError(f"lock={lock!r} is no context manager: pass True, torch.multiprocessing.Lock(), or None for none")
    if isinstance(lock, _ONCE):
        raise ValueError(f"lock={lock!r} can be entered once, and each step enters it: pass True or torch.multiprocessing.Lock()")
    if isinstance(lock, _OF_THREADS):
        raise ValueError(f"lock={lock!r} is of this process alone, each other has its own: pass True or torch.multiprocessing.Lock()")
    return Held(lock)
