"""Worker processes: started together, watched, and ended together."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from torch import multiprocessing


class WorkerDied(RuntimeError):
    """A worker has ended before it was told to."""


class Workers:
    """Processes, each with a pipe to this one."""

    def __init__(self) -> None:
        self.processes: list[BaseProcess] = []
        self.pipes: list[Connection] = []

    def start(self, count: int, work: Callable[..., None], *arguments: Any) -> None:
        """Have each call work(number, its end of the pipe, *arguments).

        They are spawned: a fork would inherit torch's and Numba's threads in whatever state they are. SIGINT is blocked meanwhile, and
        so it stays in them: a terminal sends Ctrl-C to all processes, and this one ends the others.
        """
        context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # else the first start does it, which ends with SIGINT unblocked
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for number in range(count):
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=work, args=(number, there, *arguments), daemon=True)
                process.start()
                there.close()  # the worker alone holds it, so that its end is seen
                self.processes.append(process)
                self.pipes.append(here)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def messages(self) -> Iterator[Any]:
        """What workers send, until all have ended.

        Raises:
            WorkerDied: one has ended otherwise than by returning.
        """
        running = dict(zip(self.pipes, range(len(self.pipes)), strict=True))
        while running:
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                try:
                    yield pipe.recv()
                except (EOFError, OSError):  # at the end of a message, or within one
                    self._check(running.pop(pipe))

    def _check(self, number: int) -> None:
        """Raise unless a worker whose pipe is closed has returned."""
        process = self.processes[number]
        process.join()
        if process.exitcode:
            ended = f"was ended by {signal.Signals(-process.exitcode).name}" if process.exitcode < 0 else f"failed ({process.exitcode})"
            raise WorkerDied(f"worker {number} (process {process.pid}) {ended}; the others were stopped")


@contextmanager
def workers() -> Iterator[Workers]:
    """Ends those that still run, at once, however the block ends."""
    started = Workers()
    try:
        yield started
    finally:
        for process in started.processes:
            process.kill()
        for process in started.processes:
            process.join()
