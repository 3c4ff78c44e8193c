"""Several processes: what each computes is what one process computes with the global batch."""

import pytest
import torch

import workers
from fusedrms.kernels import lang

pytestmark = pytest.mark.skipif(
    lang.interpreted() or not torch.distributed.is_available(), reason="about processes, which the interpreter only slows down"
)


@pytest.fixture(scope="module", params=[2, 4])
def results(request, tmp_path_factory):
    """Of all checks, in one start of the processes, which takes longer than they do."""
    return workers.run(request.param, str(tmp_path_factory.mktemp("ranks")))


@pytest.mark.parametrize("name", workers.CHECKS)
def test_ranks(results, name):
    assert not results[name], results[name]
