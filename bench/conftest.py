"""The device to time on, and what a result file says about where it comes from."""

import gc
import platform

import numba
import pytest
import torch

from bench.workloads import ALGORITHMS, GPU_WORKLOADS, WORKLOADS
from fusedrms.kernels import lang


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", choices=["cpu", "cuda"])


def pytest_generate_tests(metafunc):
    gpu = metafunc.config.getoption("--device") == "cuda"
    steps = {name: {**algorithm.steps, **(algorithm.gpu_steps or {} if gpu else {})} for name, algorithm in ALGORITHMS.items()}
    timed = {f"{name}-{kind}": (ALGORITHMS[name], step) for name, kinds in steps.items() for kind, step in kinds.items()}
    workloads = {**WORKLOADS, **(GPU_WORKLOADS if gpu else {})}
    for name, table in (("shapes", workloads), ("timed_step", timed), ("plain_step", steps["plain"])):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, table.values(), ids=table)


@pytest.fixture(scope="session")
def device(request) -> str:
    return request.config.getoption("--device")


@pytest.fixture(autouse=True)
def _free_memory(device):
    gc.collect()  # optimizers hold themselves; what they leave between the next one's tensors costs cache misses
    yield
    if device == "cuda":
        torch.cuda.empty_cache()


def pytest_benchmark_update_machine_info(config, machine_info):
    gpu = config.getoption("--device") == "cuda"
    name = torch.cuda.get_device_name() if gpu else machine_info["cpu"].get("brand_raw", platform.machine())
    machine_info.clear()
    machine_info |= dict(
        device=name,
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        triton=lang.triton and lang.triton.__version__,
        numba=numba.__version__,
        system=platform.system(),
        command=f"python -m bench --device {config.getoption('--device')}",
    )
