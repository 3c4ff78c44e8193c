"""Seeds of stochastic rounding: of each optimizer its own, the same when it resumes and in the next run."""

import copy
import subprocess
import sys

import pytest
import torch

from fusedrms import FusedRMSProp
from test_checkpoint import through_a_file
from tools import parameter, parameters, random_grads, set_grad, twins


def bits(optimizers, params, steps=1):
    """Which elements are rounded up."""
    for _ in range(steps):
        for param in params:
            set_grad(param, torch.zeros_like(param))
        for optimizer in optimizers:
            optimizer.step()
    return torch.stack([param.detach().clone() for param in params])


def test_one_optimizer_for_each_parameter():
    """They draw other bits by default, and those that resume draw theirs; with one seed all draw the same."""
    noisy = dict(lr=2.0**-9, weight_decay=1.0, decoupled_weight_decay=True, stochastic_rounding=True)

    def ones():
        return [parameter(torch.ones(4096, dtype=torch.bfloat16)) for _ in range(3)]

    params = ones()
    first = [FusedRMSProp([param], **noisy) for param in params]
    assert len({optimizer.param_groups[0]["seed"] for optimizer in first}) == 3
    drawn = bits(first, params)
    for k in range(3):
        agreement = (drawn[k] == drawn[k - 1]).float().mean()
        assert abs(agreement - 0.5) < 0.05
    saved = [through_a_file(optimizer.state_dict()) for optimizer in first]
    resumed = twins(params)
    second = [FusedRMSProp([param], **noisy) for param in resumed]
    for optimizer, state in zip(second, saved, strict=True):
        optimizer.load_state_dict(state)
    assert torch.equal(bits(first, params, 3), bits(second, resumed, 3))
    params = ones()
    drawn = bits([FusedRMSProp([param], **noisy, seed=7) for param in params], params)
    assert torch.equal(drawn[0], drawn[1])


def test_seeds_of_other_optimizers():
    """They differ, by shapes or by number, from those that live, and are the same again when these are gone; copies keep theirs."""
    shapes = [(3, 77), (5,)]

    def seeds():
        made = [FusedRMSProp(parameters(each)) for each in (shapes, [(77, 3), (5,)], shapes, shapes)]
        return [optimizer.param_groups[0]["seed"] for optimizer in made], made[-1]

    first, optimizer = seeds()
    assert len({*first}) == 4
    optimizer.add_param_group({"params": parameters([(2,)])})
    assert [group["seed"] for group in optimizer.param_groups] == [first[-1]] * 2
    assert copy.deepcopy(optimizer).param_groups[0]["seed"] == first[-1]
    optimizer.param_groups[0]["seed"] = None
    random_grads(optimizer.param_groups[0]["params"])
    with pytest.raises(ValueError, match="seed=None is not supported"):
        optimizer.step()
    del optimizer
    assert seeds()[0] == first


def test_the_same_function_twice():
    """In one process, by default, as by a script that repeats its run: the same bits, though torch keeps its first optimizer."""
    code = """
import torch
from fusedrms import FusedRMSProp
def run():
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.randn(500).bfloat16())
    optimizer = FusedRMSProp([param], stochastic_rounding=True)
    for _ in range(3):
        param.grad = torch.randn(500).bfloat16()
        optimizer.step()
    return param
first, second = run(), run()
assert torch.equal(first, second)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
