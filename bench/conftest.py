"""The device to time on, and what is timed."""

import gc

import pytest
import torch

from bench.machine import machine
from bench.workloads import ALGORITHMS, GPU_WORKLOADS, WORKLOADS


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", choices=["cpu", "cuda"])


def pytest_generate_tests(metafunc):
    gpu = metafunc.config.getoption("--device") == "cuda"
    steps = {name: {**algorithm.steps, **(algorithm.gpu_steps or {} if gpu else {})} for name, algorithm in ALGORITHMS.items()}
    timed = {}  # name -> (bytes that a step moves for a parameter, parameters -> step)
    for name, kinds in steps.items():
        n_bytes = ALGORITHMS[name].n_bytes
        timed |= {f"{name}-{kind}": (n_bytes[kind] if isinstance(n_bytes, dict) else n_bytes, step) for kind, step in kinds.items()}
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
    device = config.getoption("--device")
    machine_info.clear()
    machine_info |= machine(device, f"python -m bench --device {device}")
