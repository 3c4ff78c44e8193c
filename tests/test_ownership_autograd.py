"""Autograd knows of every step, and steps in a backward keep nothing alive."""

import copy
import gc
import io
import warnings
import weakref

import pytest
import torch
from torch import nn

from fusedrms import FusedRMSProp, apply_in_backward
from tools import parameter, parameters


def test_autograd_sees_steps_of_swapped_parameters(reading):
    """A value that a backward has saved is gone, whichever version counter the parameter has by now."""
    weight = parameter(torch.randn(5))
    optimizer = FusedRMSProp([weight])
    for _ in range(3):
        weight.grad = torch.randn(5)
        optimizer.step()
        torch.utils.swap_tensors(weight, parameter(weight.data))
        weight.grad = torch.randn(5)
        output = (weight * weight).sum()
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.backward()
        del output


@pytest.mark.parametrize("shape", [(5,), (1, 1, 1, 1, 1, 5)], ids=["1 dim", "6 dims"])
def test_autograd_sees_steps_of_parameters_that_were_swapped_twice(reading, shape):
    """What torch keeps of it may be at the address where that of the one before was."""
    weight = parameter(torch.randn(shape))
    optimizer = FusedRMSProp([weight])
    for _ in range(10):
        weight.grad = torch.randn(shape)
        before = weight._version
        optimizer.step()
        assert weight._version > before
        for _ in range(2):
            torch.utils.swap_tensors(weight, parameter(weight.data.clone()))


def test_autograd_sees_steps_of_more_sorts_than_are_told_apart(reading):
    params = [*parameters([(5,)] * 70), parameter(torch.randn(5, dtype=torch.float64))]
    optimizer = FusedRMSProp(params)
    for n, param in enumerate(params):
        param.grad = torch.randn_like(param).as_subclass(type(f"Gradient{n}", (torch.Tensor,), {}))
    for _ in range(3):
        before = [param._version for param in params]
        optimizer.step()
        assert all(param._version > version for param, version in zip(params, before, strict=True))
        for param in params:
            grad, param.grad = param.grad, None
            torch.utils.swap_tensors(param, parameter(param.data.clone()))
            param.grad = grad


def in_backward(**options):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    groups = [dict(params=list(layer.parameters()), lr=0.1 * (1 + k), momentum=0.5 * k) for k, layer in enumerate(model)]
    return model, apply_in_backward(groups, FusedRMSProp, **options)


@pytest.mark.parametrize("change", [lambda groups: groups.reverse(), lambda groups: groups.pop(0)], ids=["reverse", "pop"])
def test_groups_that_move_within_steps_in_a_backward(change):
    model, optimizer = in_backward()
    plain = copy.deepcopy(model)
    groups = [dict(group, params=list(layer.parameters())) for group, layer in zip(optimizer.param_groups, plain, strict=True)]
    other = FusedRMSProp(groups)
    for n in range(4):
        x = torch.randn(3, 4)
        model(x).square().sum().backward()
        plain(x).square().sum().backward()
        other.step()
        other.zero_grad()
        model.zero_grad()
        assert all(map(torch.equal, model.parameters(), plain.parameters()))
        if n == 1:
            change(optimizer.param_groups)
            change(other.param_groups)


def test_what_steps_in_a_backward_are_freed():
    model, optimizer = in_backward()
    model(torch.randn(3, 4)).sum().backward()
    old = weakref.ref(model), weakref.ref(optimizer)
    del model, optimizer
    gc.collect()
    assert [ref() for ref in old] == [None, None]


@pytest.mark.parametrize(
    "let_go",
    [lambda optimizer, kept: optimizer.state.clear(), lambda optimizer, kept: optimizer.load_state_dict(kept)],
    ids=["clear", "load"],
)
def test_states_of_steps_in_a_backward_are_freed(let_go):
    model, optimizer = in_backward()
    kept = copy.deepcopy(optimizer.state_dict())
    model(torch.randn(3, 4)).sum().backward()
    states = [weakref.ref(value) for values in optimizer.state.values() for value in values.values()]
    let_go(optimizer, kept)
    assert len(states) >= 8
    assert [ref() for ref in states] == [None] * len(states)


def test_steps_in_a_backward_need_no_one_to_hold_the_optimizer():
    model, optimizer = in_backward()
    before = model[0].weight.detach().clone()
    del optimizer
    gc.collect()
    model(torch.randn(3, 4)).sum().backward()
    assert not torch.equal(model[0].weight, before)
    file = io.BytesIO()
    torch.save(list(model.parameters()), file)
    assert len(file.getvalue()) < 10000  # no optimizer with it
    file.seek(0)
    assert len(torch.load(file, weights_only=True)) == 4


def test_a_schedule_sees_steps_in_a_backward():
    model, optimizer = in_backward()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(torch.randn(3, 4)).sum().backward()
        schedule.step()


def test_reentrant_checkpoints_of_a_shared_weight():
    """As documented: a backward of its own, and so a step, for each part; none with use_reentrant=False."""
    from torch.utils.checkpoint import checkpoint

    for reentrant, steps in ((True, 2), (False, 1)):
        layer = nn.Linear(4, 4)
        optimizer = apply_in_backward(layer, FusedRMSProp)
        x = torch.randn(3, 4, requires_grad=True)
        for _ in range(2):
            x = checkpoint(layer, x, use_reentrant=reentrant)
        x.sum().backward()
        assert optimizer.state[layer.weight]["step"] == steps
