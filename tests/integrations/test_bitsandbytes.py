"""bitsandbytes: its checkpoints, which its kernels for CPUs have made, as docs/migrating.md converts them."""

import copy

import bitsandbytes
import pytest
import torch

from fusedrms import FusedRMSProp
from pages import distance
from test_docs import run_blocks

pytestmark = pytest.mark.filterwarnings("default")  # its own are its
STEPS = 5
OPTIONS = dict(lr=1e-3, alpha=0.95, eps=1e-4, weight_decay=0.1)


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for param in model.parameters():
        param.grad = torch.randn(param.shape, generator=generator)
    optimizer.step()


@pytest.mark.parametrize(
    ("cls", "given", "ours", "bound"),
    [
        (bitsandbytes.optim.RMSprop32bit, {}, {}, 1e-6),
        (bitsandbytes.optim.RMSprop, {}, {}, 1e-6),
        (bitsandbytes.optim.RMSprop32bit, dict(momentum=0.9), {}, 1e-6),  # which it ignores
        (bitsandbytes.optim.RMSprop8bit, {}, {}, 2e-3),  # its states go on being rounded
        (bitsandbytes.optim.RMSprop32bit, {}, dict(state_dtype="8bit", seed=0), 5e-4),
    ],
)
def test_resume(cls, given, ours, bound):
    """A run goes on as it would."""
    convert = run_blocks("docs/migrating.md")["from_bitsandbytes"]
    model = torch.nn.Linear(80, 80)
    theirs = cls(model.parameters(), **OPTIONS, **given)
    for number in range(STEPS):
        step(model, theirs, number)
    before, other = copy.deepcopy(model), copy.deepcopy(model)
    optimizer = FusedRMSProp(other.parameters(), **ours)
    with pytest.raises(ValueError, match="but no 'square_avg'"):
        optimizer.load_state_dict(theirs.state_dict())
    optimizer.load_state_dict(convert(theirs.state_dict()))
    for number in range(STEPS, 2 * STEPS):
        step(model, theirs, number)
        step(other, optimizer, number)
    assert distance(model, other) < bound
    assert distance(model, before) > 3e-3
