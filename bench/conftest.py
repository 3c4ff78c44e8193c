"""The device to time on, and what is timed."""

import gc

import pytest
import torch

from bench.machine import machine
from bench.selection import cases, changed
from bench.store import complete
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
    if "tuned" in metafunc.fixturenames:
        metafunc.parametrize("tuned", changed(_device(metafunc.config)), ids=", ".join)


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if "NOTSET" not in item.name]  # nothing was tuned, or nothing else than the default is best


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
