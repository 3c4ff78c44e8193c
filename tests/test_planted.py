"""Faults that a CPU would forgive, planted: the simulated GPU shows each, and none where nothing is planted."""

import contextlib

import pytest
import torch

import gpu
from fusedrms import FusedRMSProp
from fusedrms.engine.tables.uploads import Uploads
from fusedrms.kernels import devices
from tools import assert_close, parameters, random_grads, step_and_check

if gpu.KIND != "simulated":
    pytest.skip("for the simulated GPU: TEST_GPU=simulated", allow_module_level=True)

from simulated import Fault, reset

pytestmark = pytest.mark.gpu


def optimizer_of(shapes=((1000,), (3, 5)), device=gpu.DEVICE, **options) -> FusedRMSProp:
    return FusedRMSProp(parameters(shapes, device), **options)


def params_of(optimizer: FusedRMSProp) -> list:
    return optimizer.param_groups[0]["params"]


def steps(optimizer: FusedRMSProp) -> None:
    """Several with other gradients and another lr each, before anyone waits for the first; beside the same on a CPU."""
    twin = FusedRMSProp([torch.nn.Parameter(param.detach().cpu()) for param in params_of(optimizer)])
    for lr in (1e-2, 3e-3, 0.5, 1e-3, 0.1):
        random_grads(params_of(twin))
        for each, other in zip(params_of(optimizer), params_of(twin), strict=True):
            each.grad = other.grad.pin_memory().to(gpu.DEVICE, non_blocking=True)
        for each in (optimizer, twin):
            each.param_groups[0]["lr"] = lr
            each.step()
    assert_close(params_of(optimizer), params_of(twin), steps=1)


def replays(optimizer: FusedRMSProp) -> None:
    """A captured step, after eager ones with other numbers, does as it was captured."""
    random_grads(params_of(optimizer))
    optimizer.step()
    graph = gpu.module.CUDAGraph()
    with gpu.module.graph(graph):
        optimizer.step()
    for _ in range(5):  # what was pinned for the capture would be used again
        optimizer.param_groups[0]["weight_decay"] += 1.0
        optimizer.step()
    twin = FusedRMSProp([torch.nn.Parameter(param.detach().clone()) for param in params_of(optimizer)], 1e-2)
    twin.load_state_dict(optimizer.state_dict())
    twin.param_groups[0]["weight_decay"] = 0.0
    for param, other in zip(params_of(optimizer), params_of(twin), strict=True):
        other.grad = param.grad.clone()
    graph.replay()
    twin.step()
    for param, other in zip(params_of(optimizer), params_of(twin), strict=True):
        assert torch.equal(param, other)


def given_away(optimizer: FusedRMSProp) -> None:
    """Tables made on one stream are let go while a launch on another one has not begun; others get their memory."""
    random_grads(params_of(optimizer))
    optimizer.step()
    side = gpu.module.Stream()
    side.wait_stream(gpu.module.current_stream())
    with gpu.module.stream(side):
        optimizer.step()
    optimizer.release()
    gpu.module.current_stream().synchronize()
    side.synchronize()


def other_device(optimizer: FusedRMSProp) -> None:
    """Parameters on a GPU that is not the current one."""
    random_grads(params_of(optimizer))
    step_and_check(optimizer)


class Elsewhere(Uploads):
    """Sends on a stream that no launch waits for."""

    def send(self, capturing):
        with gpu.module.stream(gpu.module.Stream()):
            super().send(capturing)


class Forgetful(Uploads):
    """Leaves out a table."""

    def _copy(self, names, pinned):
        super()._copy([name for name in names if name != "hyper"], pinned)


class Hasty(Uploads):
    """Writes pinned memory before it was read."""

    def send(self, capturing):
        for pinned in self._ring:
            pinned.read = gpu.module.Event()
        super().send(capturing)


class Careless(Uploads):
    """Lets a graph upload from memory that later steps write."""

    def send(self, capturing):
        for_a_graph = self._for_a_graph
        super().send(capturing)
        if capturing:
            self._ring.append(for_a_graph)


class Unpinned(Uploads):
    """Copies in a captured step from memory that a GPU cannot read by itself."""

    def _copy(self, names, pinned):
        for name in names:
            self._on_device[name].copy_(torch.from_numpy(self._host[name]))


def uploads(planted):
    return lambda patch: patch.setattr("fusedrms.engine.tables.buckets.Uploads", planted)


CASES = {
    "an upload nobody waits for": (steps, uploads(Elsewhere), {}, (AssertionError, Fault)),
    "a table that is not sent": (steps, uploads(Forgetful), {}, AssertionError),
    "pinned memory written too early": (steps, uploads(Hasty), {}, AssertionError),
    "a graph's memory used again": (replays, uploads(Careless), dict(capturable=True), AssertionError),
    "a copy in a captured step": (replays, uploads(Unpinned), dict(capturable=True), RuntimeError),
    "memory given away": (given_away, lambda patch: patch.setattr(devices, "keep", lambda *args: None), {}, Fault),
    "another device's stream": (
        other_device,
        lambda patch: patch.setattr(devices, "current", lambda device: contextlib.nullcontext()),
        dict(device=torch.device(gpu.KIND, 1)),
        (AssertionError, Fault),
    ),
}


@pytest.mark.parametrize("planted", [False, True], ids=["sound", "planted"])
@pytest.mark.parametrize("case", CASES)
def test_planted(case, planted, monkeypatch):
    run, plant, options, error = CASES[case]
    if planted:
        plant(monkeypatch)
    with pytest.raises(error) if planted else contextlib.nullcontext():
        run(optimizer_of(**options))
    if planted:
        reset()
