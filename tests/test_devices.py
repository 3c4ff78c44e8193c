"""The room for devices, and what steps do on a GPU alone."""

import types

import pytest
import torch

import gpu
from fusedrms import FusedRMSProp
from fusedrms.kernels import devices
from tools import parameters, random_grads, step_and_check, step_both, twins

CPU = torch.device("cpu")


def test_cpu():
    assert (devices.target(CPU), devices.stack(CPU), devices.multiprocessors(CPU)) == (None, None, 1)
    assert devices.find("cpu") == CPU
    assert devices.model(CPU)
    devices.synchronize(CPU)
    assert devices.seconds(CPU, lambda: None) >= 0


def test_names_of_targets(monkeypatch):
    """As Triton has them, for NVIDIA's and AMD's GPUs."""
    fake = types.SimpleNamespace(get_device_capability=lambda device: (9, 0), get_device_properties=lambda device: arch)
    arch = types.SimpleNamespace(gcnArchName="gfx942")
    monkeypatch.setattr(devices, "module", lambda device: fake)
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.version, "hip", None)
    assert (devices.target(device), devices.warp_size()) == ("sm_90", 32)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert (devices.target(device), devices.warp_size()) == ("gfx942", 64)
    monkeypatch.setattr(devices.pathlib.Path, "read_text", lambda path: "580.1\n")
    assert devices.stack(device) == "580.1"

    def missing(path):
        raise FileNotFoundError

    monkeypatch.setattr(devices.pathlib.Path, "read_text", missing)
    assert devices.stack(device) == "ROCm 7.0"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_such_gpu():
    with pytest.raises(LookupError, match="torch finds no CUDA or ROCm device"):
        devices.find("cuda")


@pytest.mark.gpu
def test_gpu():
    assert gpu.DEVICE in devices.gpus()
    assert devices.find().type == devices.find(gpu.KIND).type == gpu.KIND
    assert devices.target(gpu.DEVICE).startswith(("sm_", "gfx"))
    assert devices.multiprocessors(gpu.DEVICE) > 1
    assert devices.model(gpu.DEVICE)
    devices.stack(gpu.DEVICE)
    devices.empty_cache(gpu.DEVICE)
    assert devices.free_bytes(gpu.DEVICE) > 1 << 20
    assert devices.peak_bytes(gpu.DEVICE, lambda: torch.ones(1 << 18, device=gpu.DEVICE)) >= 1 << 20
    assert 0 < devices.seconds(gpu.DEVICE, lambda: torch.ones(1 << 18, device=gpu.DEVICE)) < 60


@pytest.mark.gpu
def test_a_kind_that_nobody_has_tried(monkeypatch):
    """An accelerator of torch's without a row in KINDS is refused before anything changes."""
    (param,) = parameters([(3,)], gpu.DEVICE)
    random_grads([param])
    optimizer = FusedRMSProp([param])
    monkeypatch.setattr(devices, "KINDS", {"xpu": devices.KINDS["cuda"]})
    with pytest.raises(RuntimeError, match=rf"params\[0\] is on {gpu.DEVICE}; FusedRMSProp runs on xpu .* and cpu: move the model there"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.gpu
def test_second_capture():
    """What a graph uploads is pinned outside of captures, for one at a time."""
    params = parameters([(3,)], gpu.DEVICE)
    optimizer = FusedRMSProp(params, capturable=True)
    random_grads(params)
    optimizer.step()
    graphs = [gpu.module.CUDAGraph() for _ in range(3)]
    with gpu.module.graph(graphs[0]):
        optimizer.step()
    with pytest.raises(RuntimeError, match="second CUDA graph"), gpu.module.graph(graphs[1]):
        optimizer.step()
    optimizer.step()
    with gpu.module.graph(graphs[2]):
        optimizer.step()
    expected = FusedRMSProp(twins(params))
    expected.load_state_dict(optimizer.state_dict())
    for ours, theirs in zip(params, expected.param_groups[0]["params"], strict=True):
        theirs.grad = ours.grad.clone()
    for graph in (graphs[0], graphs[2]):
        graph.replay()
        expected.step()
    assert torch.equal(params[0], expected.param_groups[0]["params"][0])


@pytest.mark.gpu
def test_capture_before_tables_are_made():
    params = parameters([(3,), (4,)], gpu.DEVICE)
    optimizer = FusedRMSProp(params, capturable=True)
    random_grads(params[:1])
    optimizer.step()
    random_grads(params)
    before = params[0].detach().clone()
    with pytest.raises(RuntimeError, match="make one step before"), gpu.module.graph(gpu.module.CUDAGraph()):
        optimizer.step()
    assert torch.equal(params[0], before)
    step_and_check(optimizer)


@pytest.mark.gpu
def test_steady_steps_send_nothing(monkeypatch):
    """Unless gradients move or numbers change; and then no host waits."""
    if gpu.KIND != "simulated":
        pytest.skip("copies are counted by the simulated GPU")
    from simulated import state

    params = parameters([(1000,), (3, 5)], gpu.DEVICE)
    optimizer = FusedRMSProp(params, momentum=0.9)
    random_grads(params)
    optimizer.step()
    counts = []
    for change in ("nothing", "lr", "gradients", "nothing"):
        if change == "lr":
            optimizer.param_groups[0]["lr"] *= 0.5
        if change == "gradients":
            random_grads(params)
        state.n_uploads = state.n_synchronized = 0
        optimizer.step()
        counts.append((state.n_uploads, state.n_synchronized))
    assert counts == [(0, 0), (1, 0), (1, 0), (0, 0)]


@pytest.mark.gpu
def test_pinned_memory_is_used_again():
    """Three blocks suffice where the GPU keeps up."""
    params = parameters([(1000,)], gpu.DEVICE)
    optimizer = FusedRMSProp(params)
    random_grads(params)
    for step in range(10):
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        optimizer.step()
        gpu.module.synchronize()
    (bucket,) = optimizer._run.plan._buckets
    assert 1 <= len(bucket._uploads._ring) <= 3


@pytest.fixture
def mesh():
    """Of the GPU, in one process; several are tested on CPUs."""
    if gpu.KIND != "simulated":
        pytest.skip("test_distributed has DTensors on GPUs")
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("cpu:fake,simulated:fake", rank=0, world_size=1, store=FakeStore())
    yield init_device_mesh(gpu.KIND, (1,))
    distributed.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.parametrize("options", [dict(momentum=0.9), dict(clip_grad_norm=0.1, skip_nonfinite=True), dict(capturable=True)], ids=str)
def test_dtensors(mesh, options):
    from torch.distributed.tensor import DTensor, Shard

    theirs = parameters([(6, 4), (7,)], gpu.DEVICE)
    placed = [DTensor.from_local(param.detach().clone(), mesh, [Shard(0)], run_check=False) for param in theirs]
    ours = [torch.nn.Parameter(tensor) for tensor in placed]
    a, b = FusedRMSProp(ours, **options), FusedRMSProp(theirs, **options)
    for _ in range(3):
        random_grads(theirs)
        for param, other in zip(ours, theirs, strict=True):
            param.grad = DTensor.from_local(other.grad.clone(), mesh, [Shard(0)], run_check=False)
        a.step()
        b.step()
    for param, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(param.to_local(), other, rtol=1e-6, atol=0)
    assert a.state[ours[0]]["square_avg"].placements == ours[0].placements


@pytest.mark.gpu
def test_offloaded_dtensors(mesh):
    """FSDP2's offloading leaves parameters on the CPU, on a mesh of GPUs; so do their states, at the addresses that a launch writes."""
    from torch.distributed.tensor import DTensor, Shard

    theirs = parameters([(6, 4), (7,)], CPU, torch.bfloat16)
    spec = [DTensor.from_local(param.detach().to(gpu.DEVICE), mesh, [Shard(0)], run_check=False)._spec for param in theirs]

    def offloaded(tensor, spec):
        return DTensor(tensor.detach().clone(), spec, requires_grad=False)

    ours = [torch.nn.Parameter(offloaded(param, s)) for param, s in zip(theirs, spec, strict=True)]
    options = dict(momentum=0.9, master_weights="split", state_dtype="8bit", seed=0)
    a, b = FusedRMSProp(ours, **options), FusedRMSProp(theirs, **options)
    for _ in range(3):
        random_grads(theirs)
        for param, other, s in zip(ours, theirs, spec, strict=True):
            param.grad = offloaded(other.grad, s)
        a.step()
        b.step()
    for param, other in zip(ours, theirs, strict=True):
        assert torch.equal(param._local_tensor, other)
        for name, value in a.state[param].items():
            here = value._local_tensor if isinstance(value, DTensor) else value
            assert here.device == CPU
            assert torch.equal(here, b.state[other][name])


@pytest.mark.gpu
def test_parameters_on_two_gpus():
    """And on a CPU: one norm for all, each launch on its own device."""
    if gpu.module.device_count() < 2:
        pytest.skip("there is one")
    for options in ({}, dict(clip_grad_norm=0.1)):
        spread = [param for device in (torch.device(gpu.KIND, 1), CPU, gpu.DEVICE) for param in parameters([(300,), (5,)], device)]
        optimizer = FusedRMSProp(spread, momentum=0.5, **options)
        for _ in range(2):
            random_grads(spread)
            step_and_check(optimizer)
    theirs = twins(spread)
    a, b = FusedRMSProp(spread), FusedRMSProp(theirs)
    step_both(a, b, spread, theirs, steps=2)
    assert all(map(torch.equal, spread, theirs))
