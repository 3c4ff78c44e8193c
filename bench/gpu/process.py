"""Runs a part of `make gpu` in a process of its own: within its time, and nothing of it is left behind."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from bench.common.arguments import ROOT
from bench.common.store import Row

GRACE = 15.0  # seconds that an interrupted part has to end by itself
POLL = 0.5  # seconds between looks at what it has found
KEPT = 3000  # characters of a part's output


class Part(NamedTuple):
    """A command of its own."""

    name: str
    limit: float  # seconds
    arguments: list[str]  # of the interpreter
    telling: str  # found in its most important line, a regular expression
    environment: dict[str, str] = {}  # noqa: RUF012


class Tee(threading.Thread):
    """Passes on what a part prints, and keeps the end of it."""

    def __init__(self, source: IO[bytes]):
        super().__init__(daemon=True)  # something that has left the part's group may hold the pipe for ever
        self._source, self._end = source, b""
        self.start()

    def run(self) -> None:
        with self._source as source:
            while block := os.read(source.fileno(), 1 << 16):
                self._end = (self._end + block)[-4 * KEPT :]  # a character has up to four bytes
                with contextlib.suppress(OSError):  # nobody reads any more
                    sys.stdout.buffer.write(block)
                    sys.stdout.buffer.flush()

    def tail(self) -> str:
        """The last characters, once the part has ended."""
        self.join(2)
        return self._end.decode(errors="replace")[-KEPT:]


def signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group that has ended
        os.killpg(process.pid, number)


class Interrupts:
    """How often the run was asked to stop, by Ctrl-C or SIGTERM: an exception could come where a part has just begun."""

    def __init__(self):
        self.count = 0

    def _note(self, number: int, frame: object) -> None:
        self.count += 1

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """A shell may have had SIGINT ignored in its background; parts are interrupted nonetheless, since there is a handler here."""
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def ended(process: subprocess.Popen, seconds: float, interrupts: Interrupts, allowed: int, look: Callable[[], None]) -> bool:
    """Whether it ends within so many seconds, and before there are more interrupts than allowed; look: what is done meanwhile."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and interrupts.count <= allowed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(POLL, left))
            return True
        look()
    return process.poll() is not None


def outcome(process: subprocess.Popen, limit: float, interrupts: Interrupts, look: Callable[[], None]) -> str:
    """How it has come to its end, after which nothing of it runs any more."""
    try:
        if ended(process, limit, interrupts, 0, look):
            return "failed" if process.returncode else "passed"
        found = "interrupted" if interrupts.count else "timed out"
        signal_group(process, signal.SIGINT)
        ended(process, GRACE, interrupts, interrupts.count, look)
        return found
    finally:
        signal_group(process, signal.SIGKILL)  # also what it has left behind
        process.wait()


def run(part: Part, interpreter: list[str], limit: float, interrupts: Interrupts, look: Callable[[], None]) -> Row:
    """Run a part; its entry in gpu.json."""
    begin = time.monotonic()
    command = [*interpreter, *part.arguments]
    entry = dict(name=part.name, seconds=0.0, limit=limit, outcome="failed", code=None, tail="", command=shlex.join(command))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **part.environment}  # what is printed would be lost with a part that is killed
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return entry | dict(tail=f"{interpreter[0]}: {error.strerror}")
    assert process.stdout is not None
    tee = Tee(process.stdout)
    found = outcome(process, limit, interrupts, look)
    return entry | dict(seconds=round(time.monotonic() - begin, 1), outcome=found, code=process.returncode, tail=tee.tail())
