"""What a result file says about where it comes from."""

import platform

import cpuinfo
import numba
import torch
from pytest_benchmark.utils import get_commit_info

from fusedrms.kernels import lang


def machine(device: str, command: str) -> dict:
    """device: "cpu" or "cuda"; command: what gives the results again."""
    name = torch.cuda.get_device_name() if device == "cuda" else cpuinfo.get_cpu_info().get("brand_raw", platform.machine())
    return dict(
        device=name,
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        triton=lang.triton and lang.triton.__version__,
        numba=numba.__version__,
        system=platform.system(),
        commit=get_commit_info()["id"],
        command=command,
    )
