"""Wrong states and counts: an error that names the thing, its value and the remedy, and nothing has changed."""

import math

import pytest
import torch

from fusedrms import FusedRMSProp
from tools import parameters, random_grads


def test_state_of_another_shape():
    """As pruning leaves it behind."""
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    param.data = param.data[:4].clone()
    param.grad = None
    random_grads([param])
    before = param.detach().clone()
    with pytest.raises(ValueError, match=r"square_avg of params\[0\] has shape \(6,\).*state\.clear"):
        optimizer.step()
    assert torch.equal(param, before)


STEPS = {
    "text": ("3", r"the value '3'"),
    "none": (None, r"the value None"),
    "two": (torch.zeros(2, device="cpu"), r"shape \(2,\)"),
    "complex": (torch.tensor(1j, device="cpu"), "torch.complex64"),
    "without memory": (torch.zeros((), device="meta"), "on meta"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_count_that_is_no_number(step):
    params = parameters([(6,), (2,)])
    optimizer = FusedRMSProp(params)
    random_grads(params)
    optimizer.step()
    value, what = STEPS[step]
    optimizer.state[params[1]]["step"] = value
    before = params[0].detach().clone()
    with pytest.raises(ValueError, match=rf"the step of params\[1\] has .*{what}.*one real number.*state\.clear"):
        optimizer.step()
    assert torch.equal(params[0], before)
    assert optimizer.state[params[0]]["step"] == 1
    with pytest.raises(ValueError, match=r"the step of params\[1\].*one real number"):
        optimizer.prepare()
    if value is not None:
        checkpoint = FusedRMSProp(params).state_dict()
        checkpoint["state"] = {1: dict(square_avg=torch.ones(2, device="cpu"), step=value)}
        with pytest.raises(ValueError, match=rf"the step of params\[1\] has .*{what}.*one real number"):
            optimizer.load_state_dict(checkpoint)


@pytest.mark.parametrize("step", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_count_that_no_parameter_reaches(step, as_tensor):
    params = parameters([(6,), (2,)])
    optimizer = FusedRMSProp(params, bias_correction=True)
    random_grads(params)
    optimizer.step()
    checkpoint = optimizer.state_dict()
    value = torch.tensor(step, device="cpu") if as_tensor else step
    checkpoint["state"][1] = {**checkpoint["state"][1], "step": value}
    before = [param.detach().clone() for param in params]
    message = rf"the step of params\[1\] has the value {step}; it must be a finite number >= 0.*state\.clear"
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(checkpoint)
    assert optimizer.state[params[1]]["step"] == 1
    optimizer.state[params[1]]["step"] = value
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert all(map(torch.equal, params, before))
    assert optimizer.state[params[0]]["step"] == 1


def test_text_in_a_state_stays():
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    optimizer.state[param]["origin"] = "imported"
    other = FusedRMSProp([param])
    other.load_state_dict(optimizer.state_dict())
    assert other.state[param]["origin"] == "imported"


def test_a_count_of_pythons_is_shared():
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    optimizer.state[param]["step"] = 3
    optimizer.share_memory()
    assert optimizer.state[param]["step"].is_shared() or param.is_cuda
    optimizer.step()
    assert optimizer.state[param]["step"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [(torch.Tensor.to_sparse, "torch.sparse_coo"), (lambda value: value.to("meta"), "on meta")],
    ids=["sparse", "meta"],
)
def test_a_state_that_takes_no_values(change, message):
    params = parameters([(6,), (2,)])
    optimizer = FusedRMSProp(params)
    random_grads(params)
    optimizer.step()
    optimizer.state[params[1]]["square_avg"] = change(optimizer.state[params[1]]["square_avg"])
    before = params[0].detach().clone()
    with pytest.raises(ValueError, match=rf"the square_avg of params\[1\] is .*{message}.*state\.clear"):
        optimizer.step()
    assert torch.equal(params[0], before)


def test_a_state_that_is_no_dict():
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.state[param] = [1.0]
    with pytest.raises(ValueError, match=r"the state of params\[0\] is \[1\.0\], not a dict.*state\.clear"):
        optimizer.step()
