"""What a result file says about where it comes from, and what is free there."""

import contextlib
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

import numba
import torch

from bench.common.arguments import ROOT
from fusedrms.kernels import devices, lang

GUESTS = ("bitsandbytes", "timm", "heavyball", "deepspeed")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """What is measured; GIT_COMMIT names that of a copy without its repository, or with another's."""
    if known := os.environ.get("GIT_COMMIT"):
        return known
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unversioned"


def machine(device: torch.device, command: str) -> dict:
    """command: what gives the results again."""
    return dict(
        device=devices.model(device),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        triton=lang.triton and lang.triton.__version__,
        numba=numba.__version__,
        **{package: found for package in GUESTS if (found := _version(package))},
        system=platform.system(),
        commit=commit(),
        date=datetime.now(timezone.utc).date().isoformat(),
        command=command,
    )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Such small sums take longer on several; torch's random numbers are left as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


def free_bytes(device: torch.device) -> float:
    """Memory that can still be had; infinite where the system does not tell."""
    if devices.is_gpu(device):
        return devices.free_bytes(device)
    meminfo, found = pathlib.Path("/proc/meminfo"), [float("inf")]
    if meminfo.exists():
        found += [1024 * float(line.split()[1]) for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable")]
    limit, used = (pathlib.Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if limit.exists() and (most := limit.read_text().strip()) != "max":  # of a container
        found.append(float(most) - float(used.read_text()))
    return min(found)
