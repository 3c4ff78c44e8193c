"""Threads, processes, caches, memory: what surrounds a step."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gpu
from cases import F32
from fusedrms import FusedRMSProp
from fusedrms.kernels import lang
from fusedrms.kernels.cpu import threads as cpu_threads
from tools import assert_close, parameters, random_grads, step_and_check

BIG = 4 * cpu_threads.MIN_WORK  # elements that wake several threads

natively = pytest.mark.skipif(lang.interpreted(), reason="about the Numba driver")


def run(code: str, **env) -> str:
    """Python code in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


STEP = f"""
import torch
torch.set_num_threads(2)
from fusedrms import FusedRMSProp
p = torch.nn.Parameter(torch.ones({BIG}))
p.grad = torch.ones_like(p)
optimizer = FusedRMSProp([p])
optimizer.step()
"""


@natively
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_a_step():
    """Threads do not survive a fork: the child must make its own instead of waiting for the parent's."""
    child = "optimizer.step(); os._exit(0 if p[-1].item() < a else 1)"  # nothing else of torch, which may not be forked
    out = run(
        f"import os, signal, warnings; warnings.simplefilter('ignore')\n{STEP}\na = p[-1].item()\npid = os.fork()\n"
        f"if not pid: signal.alarm(60); {child}\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert out == "0\n"


@pytest.mark.exhaustive
@natively
def test_without_triton():
    """macOS and Windows have none."""
    code = STEP + "print(p.detach().unique().tolist())"
    assert run("import sys; sys.modules['triton'] = None\n" + code) == run(code)


@pytest.mark.exhaustive
@natively
def test_compiled_code_is_kept_on_disk(tmp_path):
    code = STEP + "from fusedrms.kernels.cpu import step as cpu\nprint(sum(cpu._step.stats.cache_hits.values()))"
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)) == "0\n"
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)) == "1\n"


@natively
def test_nan_rounds_to_nan():
    """And not over into a number or an infinity, whatever its bits."""
    for dtype in (torch.bfloat16, torch.float16):
        (param,) = parameters([(4096,)], dtype=dtype)
        param.grad = torch.ones_like(param)
        nans = torch.randint(0, 2**22, (4096,), dtype=torch.int32) | 0x7F800001 | (torch.arange(4096, dtype=torch.int32) % 2 << 31)
        param.grad.data = nans.view(F32)
        FusedRMSProp([param]).step()
        assert param.isnan().all()


def tables(optimizer):
    return [table for bucket in optimizer._run.plan._buckets for table in bucket._tables]


def n_bytes(table):
    return table.nbytes if isinstance(table, np.ndarray) else table.numel() * table.element_size()


def test_memory(device):
    """Exactly the states, and tables of 84 bytes a tensor and 12 a chunk."""
    params = parameters([(1000,)] * 200 + [(100_000,)] * 3, device)
    optimizer = FusedRMSProp(params, centered=True, momentum=0.9)
    random_grads(params)
    optimizer.step()
    for p in params:
        assert {key: value.numel() for key, value in optimizer.state[p].items()} == dict(
            step=1, square_avg=p.numel(), grad_avg=p.numel(), momentum_buffer=p.numel()
        )
    (bucket,) = optimizer._run.plan._buckets
    hyper = n_bytes(bucket._tables.hyper)
    assert hyper <= 96
    assert sum(map(n_bytes, bucket._tables)) - hyper <= 84 * len(params) + 12 * len(bucket._tables.chunk_tensor)


@natively
@pytest.mark.parametrize("options", [{}, dict(centered=True, momentum=0.9)])
def test_calls_of_a_step_do_not_grow_with_the_tensors(options):
    """Python and C functions called in a steady step, counted: the same for 1,000 tensors and for 3,000."""
    counts = []
    for n in (1000, 3000):
        params = parameters([(3,)] * n)
        optimizer = FusedRMSProp(params, **options)
        random_grads(params)
        optimizer.step()
        optimizer.step()
        calls = []
        sys.setprofile(lambda frame, event, arg, calls=calls: calls.append(event))
        try:
            optimizer.step()
        finally:
            sys.setprofile(None)
        counts.append(sum("call" in event for event in calls))
    assert counts[0] == counts[1]
    assert counts[0] < 200


@pytest.mark.gpu
def test_one_launch():
    params = parameters([(1000,)] * 50 + [(3, 5)], gpu.DEVICE)
    optimizer = FusedRMSProp(params, momentum=0.9)
    random_grads(params)
    optimizer.step()
    assert gpu.launches(optimizer.step) == ["step_kernel"]


@pytest.mark.gpu
def test_other_stream_and_device_context():
    (param,) = parameters([(1 << 20,)], gpu.DEVICE)
    optimizer = FusedRMSProp([param])
    with gpu.module.stream(gpu.module.Stream()):
        random_grads([param])
        step_and_check(optimizer)
    gpu.module.synchronize()
    if gpu.module.device_count() > 1:
        (other,) = parameters([(100,)], f"{gpu.KIND}:1")
        random_grads([other])
        step_and_check(FusedRMSProp([other]))


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    on_cpu = parameters([(3000,), (7, 7)])
    on_gpu = parameters([(1,)] * 2, gpu.DEVICE)
    for p, q in zip(on_cpu, on_gpu, strict=True):
        q.data = p.data.to(gpu.DEVICE)
    a, b = FusedRMSProp(on_cpu, centered=True), FusedRMSProp(on_gpu, centered=True)
    for _ in range(5):
        random_grads(on_cpu)
        for p, q in zip(on_cpu, on_gpu, strict=True):
            q.grad = p.grad.to(gpu.DEVICE)
        a.step()
        b.step()
    assert_close(on_cpu, on_gpu, steps=5)


@pytest.mark.gpu
def test_capture_is_refused():
    (param,) = parameters([(100,)], gpu.DEVICE)
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    graph = gpu.module.CUDAGraph()
    with pytest.raises(RuntimeError, match="CUDA graph"), gpu.module.graph(graph):
        optimizer.step()


@pytest.mark.exhaustive
@natively
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile looks at that of the loss
def test_torch_compile(monkeypatch):
    """A compiled training step ends a graph before ours, without compiling anew at each; the model may be compiled beside it."""
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    torch.compiler.reset()
    inputs = [torch.randn(4, 8) for _ in range(4)]
    found = []
    for how in ("not", "step", "model"):
        torch.manual_seed(1)
        model = torch.nn.Linear(8, 8)
        optimizer = FusedRMSProp(model.parameters(), momentum=0.9)
        called = torch.compile(model, backend="aot_eager") if how == "model" else model

        def step(x, called=called, optimizer=optimizer):
            loss = called(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        run = torch.compile(step, backend="aot_eager") if how == "step" else step
        losses = [run(x) for x in inputs]
        found.append([*losses, *model.parameters()])
    for other in found[1:]:
        assert_close(found[0], other, steps=4)


@natively
def test_no_operation_of_torch_in_a_steady_step():
    """Nothing is allocated, copied or sent."""
    called = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.namespace == "aten":  # not the profiler
                called.append(function)
            return function(*args, **(kwargs or {}))

    for options in ({}, dict(centered=True, momentum=0.9, clip_weights=1.0), dict(stochastic_rounding=True, state_dtype="8bit")):
        params = parameters([(30,), (4, 5)], dtype=torch.bfloat16)
        optimizer = FusedRMSProp(params, capturable=True, **options)
        random_grads(params)
        for _ in range(2):
            called.clear()
            with Seen():
                optimizer.step()
        assert not called
