"""torchtune's optimizer in backward, emulated: it is archived, and needs packages that are no longer there."""

from typing import Any

import pytest
import torch

from fusedrms import FusedRMSProp, apply_in_backward
from pages import distance, run, values

STEPS = 4
MODES: list[tuple[torch.dtype, dict[str, Any]]] = [
    (torch.float32, dict(momentum=0.9)),
    (torch.bfloat16, dict(stochastic_rounding=True)),
    (torch.bfloat16, dict(stochastic_rounding=True, state_dtype="8bit", momentum=0.9, centered=True)),
    (torch.bfloat16, dict(master_weights="split", state_dtype="8bit")),
]


class OptimizerInBackwardWrapper:
    """What torchtune's does: the states of all optimizers by the names of their parameters."""

    def __init__(self, optimizers: dict[str, torch.optim.Optimizer]):
        self.optimizers = optimizers

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert state_dict.keys() == self.optimizers.keys()
        for name, state in state_dict.items():
            self.optimizers[name].load_state_dict(state)


def tiny(dtype: torch.dtype) -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(16, 33), torch.nn.Tanh(), torch.nn.Linear(33, 4)).to(dtype)


def loader(begin: int, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
    made = []
    for k in range(begin, begin + STEPS):
        generator = torch.Generator().manual_seed(k)
        made.append((torch.randn(8, 16, generator=generator).to(dtype), torch.randint(4, (8,), generator=generator)))
    return made


def train(model: torch.nn.Module, begin: int, optimizer: torch.optim.Optimizer | None = None) -> None:
    for inputs, labels in loader(begin, next(model.parameters()).dtype):
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad()
        else:
            assert all(param.grad is None for param in model.parameters())


def page(model: torch.nn.Module, batches: list, **options: Any) -> OptimizerInBackwardWrapper:
    names = run("torchtune's optimizer in backward", {"lr=1e-3": "lr=1e-3, **options"}, model=model, loader=batches, options=options)
    return OptimizerInBackwardWrapper(names["optimizers"])


@pytest.mark.parametrize(("dtype", "options"), MODES, ids=str)
def test_goes_on(dtype, options):
    """Through a file, bit for bit."""
    model, other = tiny(dtype), tiny(dtype)
    wrapper = page(model, loader(0, dtype), **options)
    torch.save(dict(model=model.state_dict(), optimizer=wrapper.state_dict()), "checkpoint.pt")
    train(model, STEPS)

    resumed = page(other, [], **options)
    saved = torch.load("checkpoint.pt", weights_only=True)
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    train(other, STEPS)
    assert torch.equal(values(model), values(other))


def test_as_torch():
    ours, theirs = tiny(torch.float32), tiny(torch.float32)
    page(ours, loader(0, torch.float32))
    train(theirs, 0, torch.optim.RMSprop(theirs.parameters(), lr=1e-3))
    assert distance(ours, theirs) < STEPS * 2**-22  # weights below 1: a few roundings a step
    assert distance(ours, tiny(torch.float32)) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_apply_in_backward(dtype):
    """One optimizer for all of them computes the same; random bits are keyed otherwise, so without them."""
    each, whole = tiny(dtype), tiny(dtype)
    options = dict(momentum=0.9)
    page(each, loader(0, dtype), **options)
    optimizer = apply_in_backward(whole, FusedRMSProp, lr=1e-3, **options)
    train(whole, 0)
    assert torch.equal(values(each), values(whole))
    assert {float(state["step"]) for state in optimizer.state.values()} == {STEPS}
