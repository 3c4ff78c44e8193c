"""Other programs on the machine, which a timing must know of."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

# until its parent ends, if it is not told to before
_BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): sum(range(10000))"
BEGUN = 0.2  # seconds until they are


def taken_by_others() -> float:
    """Seconds, of all cores together, that other programs have had so far; NaN where the system does not tell."""
    stat = pathlib.Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.read_text().partition("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def share_of_others() -> Callable[[], float]:
    """What tells the share of the cores that other programs have had since this was called; 0 where the system does not tell."""
    begin, before = time.perf_counter(), taken_by_others()
    return lambda: max(0.0, taken_by_others() - before) / (time.perf_counter() - begin) / (os.cpu_count() or 1)


@contextlib.contextmanager
def busy() -> Iterator[list[subprocess.Popen]]:
    """While as many other processes compute as there are cores."""
    processes = []
    with contextlib.ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            # in a session of its own: Ctrl-C is for who started it
            process = subprocess.Popen([sys.executable, "-S", "-c", _BUSY, str(os.getpid())], start_new_session=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        time.sleep(BEGUN)
        yield processes
