"""The simulated GPU: it forgives less than a real one."""

import copy
import io

import pytest
import torch

import gpu

if gpu.KIND != "simulated":
    pytest.skip("there is a real one, or none can be simulated", allow_module_level=True)

from simulated import Fault, memory, module, reset, state

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]
DTYPES += [torch.int8, torch.int16, torch.int64, torch.uint8, torch.bool]
OPERATIONS = {
    "add": lambda x: x + x,
    "in place": lambda x: x.clone().mul_(x),
    "scalar": lambda x: x * 2,
    "host scalar": lambda x: x + torch.tensor(1, dtype=x.dtype),
    "view": lambda x: x.t().reshape(-1)[1::2],
    "write to a view": lambda x: x.clone().t()[1].fill_(1),
    "sum": lambda x: x.sum(0),
    "cat": lambda x: torch.cat([x, x[:1]]),
    "stack": lambda x: torch.stack([x, x]),
    "where": lambda x: torch.where(x == x[0], x, x[1]),
    "index": lambda x: x[x != 0],
    "cast": lambda x: x.to(torch.complex64).to(torch.complex128),
    "sort": lambda x: (x.real if x.is_complex() else x).sort(0)[0],
    "split": lambda x: torch.cat(x.split(2)),
    "unique": lambda x: x.real.unique() if x.is_complex() else x.unique(),
    "bits": lambda x: x.view(torch.uint8),
    "strided": lambda x: x.as_strided((2, 2), (1, 3)),
    "foreach": lambda x: torch._foreach_add([x, x[0]], 1)[1],
    "resized": lambda x: torch.add(x, x, out=torch.empty(0, dtype=x.dtype, device=x.device)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operations(operation, dtype):
    x = torch.randint(0, 2, (5, 3)) if dtype == torch.bool else torch.randn(5, 3, dtype=torch.float64) * 3
    x = x.abs().to(dtype) if dtype == torch.uint8 else x.to(dtype)
    try:
        expected = OPERATIONS[operation](x)
    except (RuntimeError, NotImplementedError):
        pytest.skip("the CPU has it neither")
    found = OPERATIONS[operation](x.to(gpu.DEVICE))
    assert found.device == gpu.DEVICE
    assert found.dtype == expected.dtype
    assert torch.equal(found.cpu(), expected)


def test_nothing_runs_before_it_is_waited_for():
    x = torch.zeros(3, device=gpu.DEVICE)
    side = module.Stream()
    x.fill_(1)
    with module.stream(side):
        old = x + 0  # does not wait for the fill
    side.synchronize()
    assert not (old == 1).any()
    side.wait_stream(module.current_stream())
    with module.stream(side):
        new = x + 0
    side.synchronize()
    with module.stream(side):
        assert (new == 1).all()


def test_memory_given_away_is_poisoned():
    side = module.Stream()
    for recorded in (True, False):
        x = torch.ones(3, device=gpu.DEVICE)
        side.wait_stream(module.current_stream())
        with module.stream(side):
            y = x + 0
        if recorded:
            x.record_stream(side)
        del x
        module.current_stream().synchronize()
        side.synchronize()
        with module.stream(side):
            assert (y == 1).all() == recorded


def test_pinned_memory():
    host = torch.ones(3).pin_memory()
    assert host.is_pinned()
    assert not torch.ones(3).is_pinned()
    x = torch.zeros(3, device=gpu.DEVICE)
    x.copy_(host, non_blocking=True)
    host.fill_(2)  # before it was read
    assert x.tolist() == [2, 2, 2]
    x.copy_(host, non_blocking=True)
    del host  # the copy keeps it
    assert x.tolist() == [2, 2, 2]
    back = torch.zeros(3).pin_memory()
    back.copy_(x, non_blocking=True)
    assert back.tolist() == [0, 0, 0]
    module.synchronize()
    assert back.tolist() == [2, 2, 2]


def test_events():
    begin, end = module.Event(enable_timing=True), module.Event(enable_timing=True)
    assert begin.query()
    begin.record()
    torch.ones(1000, device=gpu.DEVICE).sum()
    end.record()
    assert not end.query()
    with pytest.raises(RuntimeError, match="completed"):
        begin.elapsed_time(end)
    end.synchronize()
    assert begin.elapsed_time(end) > 0


def test_graph():
    x, host = torch.zeros(3, device=gpu.DEVICE), torch.ones(3).pin_memory()
    graph = module.CUDAGraph()
    with module.graph(graph):
        assert module.is_current_stream_capturing()
        y = x * 2 + 1
        x += 1
    assert x.tolist() == [0, 0, 0]
    for expected in (1, 3, 5):
        graph.replay()
        assert y.tolist() == [expected] * 3
    pageable = torch.ones(3)
    for wrong in (x.tolist, lambda: x.copy_(pageable), lambda: x.__setitem__(0, 1.0), pageable.pin_memory, module.synchronize):
        with pytest.raises(RuntimeError, match="capturing"), module.graph(module.CUDAGraph()):
            wrong()
    assert not module.is_current_stream_capturing()
    with module.graph(graph):
        x.copy_(host, non_blocking=True)
    graph.replay()
    assert x.tolist() == [1, 1, 1]
    del host
    graph.replay()
    assert x.isnan().all()


def test_synchronisations_are_seen():
    x = torch.ones(3, device=gpu.DEVICE)
    module.set_sync_debug_mode("error")
    y = x * x + x.sum()

    def assign():
        x[0] = 1.0

    def make():
        torch.tensor(1.0, device=gpu.DEVICE)

    for waits in (assign, make, y.tolist, y[0].item, lambda: torch.equal(x, y), y.cpu, module.synchronize):
        with pytest.raises(RuntimeError, match="synchronizing"):
            waits()
    module.set_sync_debug_mode("default")
    state.n_synchronized = 0
    assert y.tolist() == [4, 4, 4]
    assert state.n_synchronized == 1


def test_two_devices():
    x, y = torch.ones(3, device=gpu.DEVICE), torch.ones(3, device=f"{gpu.KIND}:1")
    with pytest.raises(RuntimeError, match="same device"):
        x + y
    assert (x + y.to(x.device)).tolist() == [2, 2, 2]
    with module.device(1):
        assert torch.ones(3, device=gpu.KIND).device == y.device
    assert module.current_device() == 0


def test_memory_is_counted():
    before = module.memory_allocated()
    x = torch.ones(1000, device=gpu.DEVICE)
    assert module.memory_allocated() == before + 4000
    module.reset_peak_memory_stats()
    torch.ones(500, device=gpu.DEVICE)
    assert module.max_memory_allocated() == before + 6000
    address = x.data_ptr()
    memory.checked("x", address, 4000, 0)
    for wrong in ((address, 4001, 0), (address + 8, 4000, 0), (address, 8, 1), (torch.ones(3).data_ptr(), 4, 0)):
        with pytest.raises(Fault):
            memory.checked("x", *wrong)
    del x
    module.synchronize()
    with pytest.raises(Fault):
        memory.checked("x", address, 4, 0)


def test_a_fault_is_no_crash():
    """Of a launch whose addresses are of the host, or nobody's."""
    from fusedrms import FusedRMSProp
    from tools import parameters, random_grads

    params = parameters([(100,)], gpu.DEVICE)
    random_grads(params)
    optimizer = FusedRMSProp(params)
    optimizer.step()
    (bucket,) = optimizer._run.plan._buckets
    for address in (torch.ones(100).data_ptr(), 0, params[0].data_ptr() + 64):
        bucket._host.addresses[1] = address
        bucket.send(False)
        bucket.launch(optimizer._run.plan._scalars.on[gpu.DEVICE])
        with pytest.raises(Fault):
            module.synchronize()
    reset()


def test_training_copies_and_files():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    there = copy.deepcopy(model).to(gpu.DEVICE)
    x = torch.randn(16, 4)
    for each, data in ((model, x), (there, x.to(gpu.DEVICE))):
        each(data).square().mean().backward()
    again = copy.deepcopy(there)
    for a, b, c in zip(model.parameters(), there.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad.cpu())
        assert torch.equal(b, c)
        assert b.data_ptr() != c.data_ptr()
    file = io.BytesIO()
    torch.save(there.state_dict(), file)
    for where in (None, "cpu"):
        file.seek(0)
        loaded = torch.load(file, map_location=where)
        for name, tensor in there.state_dict().items():
            assert loaded[name].device.type == (where or gpu.KIND)
            assert torch.equal(loaded[name].cpu(), tensor.cpu())
