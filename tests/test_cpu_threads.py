"""Threads of the CPU's driver: torch's own or a pool's, woken only where there is enough to do; no bit depends on them."""

import sys
import threading

import pytest
import torch

from cases import F32
from fusedrms import FusedRMSProp
from fusedrms.engine.tables import configs
from fusedrms.kernels import lang
from fusedrms.kernels.cpu import threads as cpu_threads
from fusedrms.kernels.launch import CPUConfig
from tools import copy_grads, parameters, random_grads, twins

pytestmark = pytest.mark.skipif(lang.interpreted(), reason="about the Numba driver")

BIG = 4 * cpu_threads.MIN_WORK  # elements that wake several threads


def test_two_threads_step_two_optimizers():
    """Numba's own workqueue would abort the process."""
    optimizers = [FusedRMSProp(parameters([(BIG,), (5,)])) for _ in range(4)]
    expected = [FusedRMSProp(twins(o.param_groups[0]["params"])) for o in optimizers]
    for a, b in zip(optimizers, expected, strict=True):
        random_grads(a.param_groups[0]["params"])
        copy_grads(a.param_groups[0]["params"], b.param_groups[0]["params"])
        for _ in range(30):
            b.step()
    threads = [threading.Thread(target=lambda o=o: [o.step() for _ in range(30)]) for o in optimizers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(optimizers, expected, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.param_groups[0]["params"], b.param_groups[0]["params"], strict=True))


@pytest.mark.parametrize("openmp", [True, False], ids=["openmp", "pool"])
def test_little_work_waits_for_no_thread(monkeypatch, openmp):
    """On a busy machine another would come 8 ms late; and a tuned configuration cannot ask for one."""
    params = parameters([(64,)] * 1000)
    random_grads(params)
    threads, parallel = torch.get_num_threads(), cpu_threads._parallel if openmp else lambda: 0
    asked = []
    monkeypatch.setattr(cpu_threads, "_parallel", lambda: asked.append(1) or parallel())
    optimizer = FusedRMSProp(params, clip_grad_norm=1.0)
    try:
        torch.set_num_threads(4)
        with configs.forced(CPUConfig(1 << 14, 1)):
            optimizer.step()
            assert not asked
            large = parameters([(BIG,)])
            random_grads(large)
            FusedRMSProp(large).step()
            assert asked
    finally:
        torch.set_num_threads(threads)


def test_threads_of_openmp_and_of_the_pool(monkeypatch):
    """As macOS has it, which knows no GOMP_parallel, and a process that was forked."""
    assert sys.platform != "linux" or cpu_threads._parallel()
    first = parameters([(BIG,), (3,)], dtype=F32)
    others = twins(first)
    for params, parallel in ((first, cpu_threads._parallel), (others, lambda: 0)):
        monkeypatch.setattr(cpu_threads, "_parallel", parallel)
        optimizer = FusedRMSProp(params, clip_grad_norm=1.0)
        for seed in range(2):
            torch.manual_seed(seed)
            for param in params:
                param.grad = torch.randn_like(param)
            optimizer.step()
    assert all(map(torch.equal, first, others))


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("options", [{}, dict(clip_grad_norm=1e-20), dict(centered=True, momentum=0.9)], ids=str)
def test_subnormal_numbers_do_not_depend_on_threads(monkeypatch, options, flush):
    """Each thread has a mode of its own, in which it flushes them to 0 or not; torch sets only the caller's."""
    (start,) = parameters([(BIG,)], dtype=F32)
    start.data *= 1e-38
    grads = [torch.randn(BIG) * 10 ** (4 * torch.rand(BIG) - 23) for _ in range(3)]
    n_threads, openmp, found = torch.get_num_threads(), cpu_threads._parallel, []
    if flush and not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        for threads, parallel in ((1, openmp), (2, openmp), (3, openmp), (2, lambda: 0), (3, lambda: 0)):
            monkeypatch.setattr(cpu_threads, "_parallel", parallel)
            torch.set_num_threads(threads)
            (param,) = twins([start])
            optimizer = FusedRMSProp([param], **options)
            for grad in grads:
                param.grad = grad.clone()
                optimizer.step()
            values = [param.detach(), *optimizer.state[param].values()]
            found.append([value.view(torch.int32).clone() for value in values] + [optimizer.last_grad_norm])  # 0 equals what is flushed
            assert (torch.full((), 1e-40) * 1 == 0) == flush  # the caller's mode has stayed
    finally:
        torch.set_num_threads(n_threads)
        torch.set_flush_denormal(False)
    for other in found[1:]:
        assert all(a is b or torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
