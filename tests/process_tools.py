"""Commands and their children: started, deaf to Ctrl-C, gone."""

import os
import pathlib
import subprocess
import sys
import time
from typing import NoReturn

from torch import distributed

ROOT = pathlib.Path(__file__).parent.parent
DEAF = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf'); time.sleep(60)"


def leave_group() -> NoReturn:
    """End a rank, all of which have met: at Python's own end a thread of gloo that still holds a tensor would abort the process."""
    distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)


def child(code: str, file: pathlib.Path) -> str:
    """Code that starts another process, which leaves its id in a file."""
    started = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {DEAF!r}])"
    return f"{started}; open({str(file)!r}, 'w').write(str(child.pid)); {code}"


def running(number: str) -> bool:
    """Whether a process runs; one that has ended may wait for its parent to ask."""
    try:
        return pathlib.Path("/proc", number, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(*numbers: str) -> bool:
    """Whether processes end that have been told to."""
    until = time.monotonic() + 5
    while any(map(running, numbers)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(running, numbers))


def started(arguments: list[str], *, environment: dict[str, str] | None = None, **options) -> subprocess.Popen:
    """A command under way, which need not know that a test has started it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**kept, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
