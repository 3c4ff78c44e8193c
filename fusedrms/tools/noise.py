"""Other programs on the machine, which a timing must know of."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

# ends when whoever has started it does
_BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(10000))"
AWAKE = 0.2  # seconds in which such a process has begun


def taken_by_others() -> float:
    """Seconds, of all cores together, that other programs have had so far; NaN where the system does not tell."""
    stat = pathlib.Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.read_text().partition("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


@contextlib.contextmanager
def busy() -> Iterator[list[subprocess.Popen]]:
    """A process on each core that computes all the time."""
    processes = [subprocess.Popen([sys.executable, "-S", "-c", _BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(AWAKE)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
