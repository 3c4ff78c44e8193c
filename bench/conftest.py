"""The device to time on, and what is timed."""

import gc

import pytest
import torch

from bench.common.machine import machine
from bench.common.store import complete
from bench.timing.algorithms import cases
from fusedrms.kernels import devices


def _device(config) -> torch.device:
    return devices.find(config.getoption("--device"))


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", choices=["cpu", *devices.KINDS])
    parser.addoption("--quick", action="store_true", help="only what takes less than a minute")


def pytest_generate_tests(metafunc):
    if "workload" in metafunc.fixturenames:
        timed = list(cases(_device(metafunc.config), metafunc.config.getoption("--quick")))
        metafunc.parametrize(("workload", "algorithm", "implementation"), timed, ids=["-".join(case) for case in timed])


@pytest.fixture(scope="session")
def device(request) -> torch.device:
    return _device(request.config)


@pytest.fixture(autouse=True)
def _free_memory(device):
    gc.collect()  # optimizers hold themselves; what they leave between the next one's tensors costs cache misses
    devices.empty_cache(device)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.clear()
    machine_info |= machine(device := _device(config), f"python -m bench --device {device.type}")


def pytest_benchmark_update_json(output_json):
    complete(output_json)
