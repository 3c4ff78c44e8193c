"""Options of a rule that are tuples of numbers, as torch's betas."""

import re

import numpy as np
import pytest
import torch

import fusedrms
from fusedrms import Number
from tools import parameters


@fusedrms.rule(betas=(0.5, Number(0.25, most=1.0)), betas_0=0.375)
def Pair(grad, param, state, lr, n):
    first, second = n.betas
    return lr * (first * grad + second * param) * n.betas_0, state


def test_a_tuple():
    """It is one option, a tuple in the function and in parameter groups, which may change as a whole, or in a tensor."""
    (param,) = params = parameters([(5,)])
    live = torch.tensor(0.5)
    optimizer = Pair(params, lr=1.0, betas=[0.125, np.float64(0.5)])
    assert optimizer.param_groups[0]["betas"] == optimizer.defaults["betas"] == (0.125, 0.5)
    assert all(type(one) is float for one in optimizer.param_groups[0]["betas"])
    for betas in ((0.125, 0.5), (0.25, 1.0), [0.5, 0.0], (live, live)):
        for value in (0.5, 0.25):
            live.fill_(value)
            before = param.detach().clone()
            param.grad = torch.ones_like(param)
            optimizer.param_groups[0]["betas"] = betas
            optimizer.step()
            first, second = map(float, betas)
            torch.testing.assert_close(param.detach(), before - (first + second * before) * 0.375)
    saved = optimizer.state_dict()
    other = Pair(parameters([(5,)]))
    other.load_state_dict(saved)
    assert other.param_groups[0]["betas"] == (0.25, 0.25)


WRONG_TUPLES = {
    "too few": ((0.5,), ValueError, "betas=(0.5,) is not supported: it must be a tuple of 2 numbers, (0.5, 0.25) say"),
    "too many": ((0.5, 0.5, 0.5), ValueError, "betas=(0.5, 0.5, 0.5) is not supported: it must be a tuple of 2 numbers"),
    "a number": (0.5, ValueError, "betas=0.5 is not supported: it must be a tuple of 2 numbers"),
    "a tensor": (torch.ones(2), ValueError, "betas=tensor([1., 1.]) is not supported: it must be a tuple of 2 numbers"),
    "none": (None, ValueError, "betas=None is not supported"),
    "a word": ((0.5, "half"), TypeError, "Invalid betas[1] value: 'half' is a str; pass a number from 0 to 1"),
    "negative": ((-0.5, 0.5), ValueError, "Invalid betas[0] value: -0.5; it must be a finite number >= 0"),
    "above its range": ((0.5, 1.5), ValueError, "Invalid betas[1] value: 1.5; it must be a finite number from 0 to 1"),
}


@pytest.mark.parametrize("case", WRONG_TUPLES)
def test_errors_of_a_tuple(case):
    """When it is made, when a group is added, and when a group was changed: nothing changes."""
    value, error, message = WRONG_TUPLES[case]
    with pytest.raises(error, match=re.escape(message)):
        Pair(parameters([(3,)]), betas=value)
    (param,) = params = parameters([(3,)])
    optimizer = Pair(params)
    with pytest.raises(error, match=re.escape(message)):
        optimizer.add_param_group(dict(params=parameters([(2,)]), betas=value))
    before, param.grad = param.detach().clone(), torch.ones_like(param)
    optimizer.param_groups[0]["betas"] = value
    with pytest.raises(error, match=re.escape(f"parameter group 0: {message}")):
        optimizer.step()
    assert torch.equal(param, before)


def test_a_tuple_called_number():
    """What the kernel calls numbers that the host computes is another thing."""

    @fusedrms.rule(number=(0.5, 0.25))
    def Called(grad, param, state, lr, n):
        first, second = n.number
        return lr * (first * grad + (1 - second) * grad + second * param), state

    (param,) = params = parameters([(5,)])
    before, param.grad = param.detach().clone(), torch.ones_like(param)
    Called(params, lr=1.0).step()
    torch.testing.assert_close(param.detach(), before - (1.25 + 0.25 * before))
