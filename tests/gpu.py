"""The GPU of the tests marked gpu: the machine's, or else the one of tests/simulated; TEST_GPU names one of the two."""

import os
from collections.abc import Callable

import pytest
import torch

import simulated

KIND = os.environ.get("TEST_GPU") or ("simulated" if simulated.available() and not torch.cuda.is_available() else "cuda")
if KIND == "simulated":
    simulated.install()
module = torch.get_device_module(KIND)
DEVICE = torch.device(KIND, 0)
EXISTS = module.is_available()
real = pytest.mark.skipif(KIND == "simulated", reason="a device written in Python cannot")


def finish() -> None:
    """Between tests: what nobody has waited for may yet fail."""
    if KIND == "simulated":
        try:
            simulated.finish()
        finally:
            simulated.reset()


def launches(run: Callable[[], object]) -> list[str]:
    """The kernels that it launches, by name, copies left out."""
    if KIND == "simulated":
        simulated.state.launched.clear()
        run()
        return [name for name, *_ in simulated.state.launched]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        run()
        module.synchronize()
    there = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return [name for name in there if "Mem" not in name]
