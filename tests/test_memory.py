"""optimizer.memory(planned=True): what a first step will make, which is not made for it."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from cases import F32
from fusedrms import FusedRMSProp, apply_in_backward
from fusedrms.tools.variants import MODES, RULES, make, parse_mode

SHAPES = ((65, 3), (64,), (1, 1), ())  # groups of 64 that end within a tensor, and do not


def _params(dtype: torch.dtype, device: str = "cpu") -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(shape, dtype=dtype, device=device)) for shape in SHAPES]


@pytest.mark.parametrize("mode", [*MODES, "bfloat16+split+8bit+ema"])
@pytest.mark.parametrize("rule", RULES)
def test_it_is_what_will_be_made(rule, mode):
    dtype = parse_mode(mode)[0]
    params = _params(dtype)
    optimizer = make(rule, mode, params)
    planned = optimizer.memory(planned=True)
    assert not optimizer.state
    assert all(param.grad is None for param in params)
    nowhere = make(rule, mode, _params(dtype, "meta"))
    assert nowhere.memory(planned=True) == planned
    for param in params:
        param.grad = torch.zeros_like(param)
    optimizer.prepare()
    assert optimizer.memory() == optimizer.memory(planned=True) == planned


@pytest.mark.parametrize(
    ("mode", "most"),
    [("split24+4bit", 3.6), ("stochastic+4bit", 2.6), ("split24+8bit", 4.1), ("stochastic+8bit", 3.1), ("split+8bit", 5.1)],
)
def test_the_leanest(mode, most):
    """Bytes a parameter without its gradient, as the pages have them."""
    param = torch.nn.Parameter(torch.empty(4096, 1000, dtype=torch.bfloat16, device="meta"))
    planned = make("rmsprop", f"bfloat16+{mode}", [param]).memory(planned=True)
    assert (planned.total - planned.gradients) / planned.numel <= most


def test_strides_and_complex_numbers():
    for param in (
        torch.zeros(4, 6).t(),
        torch.zeros(3, 5, 2, 2).contiguous(memory_format=torch.channels_last),
        torch.zeros(7, dtype=torch.complex64),
    ):
        optimizer = FusedRMSProp([torch.nn.Parameter(param)], momentum=0.9)
        planned = optimizer.memory(planned=True)
        optimizer.prepare()
        assert planned.states == optimizer.memory().states
        assert planned.gradients == planned.parameters


def test_only_what_a_step_updates():
    """A frozen parameter has neither gradient nor state, unless it is given a gradient; a lazy one is unknown."""
    params = _params(F32)
    params[0].requires_grad_(False)
    optimizer = FusedRMSProp([*params, torch.nn.LazyLinear(2).weight])
    first = optimizer.memory(planned=True)
    assert first.numel == 195 + 66
    assert (first.parameters, first.gradients, first.states["square_avg"]) == (4 * 261, 4 * 66, 4 * 66)
    params[0].grad = torch.zeros_like(params[0], dtype=F32)
    assert optimizer.memory(planned=True).gradients == 4 * 261


def test_gradients_of_another_dtype():
    (param, *_) = _params(torch.bfloat16)
    param.grad_dtype = None
    param.grad = torch.zeros_like(param, dtype=F32)
    assert FusedRMSProp([param]).memory(planned=True).gradients == 4 * 195


def test_in_backward():
    """Gradients are gone when it ends."""
    model = torch.nn.Linear(3, 2)
    optimizer = apply_in_backward(model, FusedRMSProp)
    planned = optimizer.memory(planned=True)
    assert planned.gradients == 0
    model(torch.zeros(1, 3)).sum().backward()
    assert optimizer.memory().states == planned.states


@pytest.fixture
def three_processes():
    """The mesh of rank 0, which talks to nobody."""
    distributed = torch.distributed
    distributed.init_process_group("fake", rank=0, world_size=3, store=FakeStore())
    yield init_device_mesh("cpu", (3,))
    distributed.destroy_process_group()


def test_a_sharded_model_that_is_nowhere(three_processes):
    """Of 65 rows the first of three ranks has 22; scales are those of its shard."""
    with torch.device("meta"):
        model = torch.nn.Linear(2, 65, bias=False, dtype=torch.bfloat16)
    fully_shard(model, mesh=three_processes)
    planned = FusedRMSProp(model.parameters(), master_weights="split", state_dtype="8bit").memory(planned=True)
    assert (planned.numel, planned.parameters, planned.gradients) == (44, 88, 88)
    assert planned.states == dict(master_param=88, square_avg=44, square_avg_scale=4, step=4)


def test_what_a_step_refuses():
    optimizer = FusedRMSProp(_params(torch.float16), master_weights="split")
    with pytest.raises(RuntimeError, match=r"params\[0\] is torch.float16, but master_weights='split'"):
        optimizer.memory(planned=True)
    assert not optimizer.state
