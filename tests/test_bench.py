"""What the benchmarks compare computes the same thing."""

import pytest
import torch

from tools import assert_close, twins

workloads = pytest.importorskip("bench.workloads")


@pytest.mark.parametrize("name", workloads.ALGORITHMS)
def test_implementations_agree(name):
    first = workloads.parameters([(3, 5), (1030,), (7,)], "cpu")
    results = []
    for make in (make for kind, make in workloads.ALGORITHMS[name].steps.items() if kind not in workloads.MODES):
        params = twins(first)
        step = make(params)
        torch.manual_seed(1)
        for _ in range(4):
            for param in params:
                param.grad = torch.randn_like(param)
            step()
        results.append(params)
    assert not any(torch.equal(p, q) for p, q in zip(first, results[0], strict=True))
    for other in results[1:]:
        assert_close(results[0], other, steps=20)
