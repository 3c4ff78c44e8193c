"""Statistics: which steps are measured, what parameters are called, and where there are none."""

import copy
import csv
import io

import numpy as np
import pytest
import torch

import gpu
from fusedrms import FusedRMSProp, FusedSMORMS3
from test_stats import values
from tools import natively, parameters, random_grads, set_grad, twins


@natively
def test_groups_and_names():
    a, b, c, d = parameters([(3,)] * 4)
    groups = [
        dict(params=[("first", a), ("second", b)], momentum=0.9),
        dict(params=[("third", c)], stats=False),
        dict(params=[("fourth", d)], centered=True),
    ]
    optimizer = FusedRMSProp(groups, stats=True)
    random_grads([a, c, d])
    optimizer.step()
    stats = optimizer.stats()
    assert list(stats.parameters) == ["first", "fourth"]
    assert list(stats.groups) == [0, 2]
    assert "momentum_buffer_norm" not in stats.parameters["fourth"]
    assert {"momentum_buffer_norm", "grad_avg_norm"} <= stats.total.keys()
    torch.testing.assert_close(stats.total["grad_norm"], torch.cat([a.grad, d.grad]).double().norm())
    assert all(isinstance(value, torch.Tensor) and value.dim() == 0 for row in stats.parameters.values() for value in row.values())
    found = stats.as_dict(prefix="optimizer/")
    assert {"optimizer/first/grad_norm", "optimizer/group2/update_ratio", "optimizer/grad_zeros"} <= found.keys()
    assert all(type(value) is float for value in found.values())
    writer = csv.DictWriter(io.StringIO(), found)
    writer.writerow(found)


@natively
def test_every_so_many_steps():
    """The first, and then every k-th; in between the last that were taken."""
    (param,) = parameters([(5,)])
    optimizer = FusedRMSProp([param], stats=3)
    norms = []
    for k in range(1, 8):
        set_grad(param, torch.full((5,), float(k)))
        optimizer.step()
        norms.append(values(optimizer)["grad_max"])
    assert norms == [1, 1, 1, 4, 4, 4, 7]


@natively
def test_scale_and_skipped_steps():
    """Without the loss scale, and rescaled."""
    (param,) = parameters([(5,)])
    optimizer = FusedRMSProp([param], stats=True, rescale_grad=0.5, maximize=True)
    for found_inf, grad, most in ((0.0, 8.0, 1.0), (1.0, 80.0, np.nan), (0.0, 16.0, 2.0)):
        set_grad(param, torch.full((5,), grad))
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(found_inf)
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
        np.testing.assert_equal(values(optimizer)["grad_max"], most)


def test_of_a_step_left_out_all_are_nan(device):
    """Also of the first step, and whatever other gradients steps had before; not those of an older one."""
    params = parameters([(3,), (5,)], device)
    optimizer = FusedRMSProp(params, stats=True, skip_nonfinite=True)
    rows = [(np.nan, 1, True), (1, 1, False), (np.inf, None, True), (2, None, False), (1, np.nan, True), (1, 1, False)]
    for *gradients, left_out in rows:
        for param, value in zip(params, gradients, strict=True):
            param.grad = None if value is None else torch.full_like(param, value)
        optimizer.step()
        assert all(np.isnan(value) == left_out for value in values(optimizer).values())


@natively
def test_names_that_are_not_unique():
    """Each parameter has its row, whatever others, or parameter groups, are called."""
    params = parameters([(3,)] * 5)
    named = list(zip(("weight", "group1", "bias", "weight", "own"), params, strict=True))
    optimizer = FusedRMSProp([dict(params=named[:3]), dict(params=named[3:])], stats=True)
    for k, param in enumerate(params):
        set_grad(param, torch.full((3,), 1.0 + k))
    optimizer.step()
    stats = optimizer.stats()
    names = ["params[0]", "params[1]", "bias", "params[3]", "own"]
    assert {name: float(row["grad_max"]) for name, row in stats.parameters.items()} == dict(zip(names, range(1, 6), strict=True))
    assert stats.as_dict()["group1/grad_max"] == 5


@natively
def test_parameters_taken_out_of_a_group():
    """Statistics stay with their parameters."""
    params = parameters([(3,), (4,), (5,)])
    optimizer = FusedRMSProp(list(zip("abc", params, strict=True)), stats=True)
    random_grads(params)
    optimizer.step()
    before = values(optimizer)
    (group,) = optimizer.param_groups
    del group["params"][0], group["param_names"][0]
    after = values(optimizer)
    assert list(optimizer.stats().parameters) == ["b", "c"]
    assert all(after[key] == before[key] for key in after if key[:2] in ("b/", "c/"))


@pytest.mark.gpu
def test_captured_after_steps_that_were_not_measured():
    """The step before a capture makes all that replays need, which always measure."""
    params = parameters([(1000,)], gpu.DEVICE)
    optimizer = FusedRMSProp(params, stats=10, capturable=True)
    random_grads(params)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    graph = gpu.module.CUDAGraph()
    gpu.module.synchronize()
    with gpu.module.graph(graph):
        optimizer.step()
    params[0].grad.fill_(7.0)
    graph.replay()
    assert values(optimizer)["grad_max"] == 7


@natively
def test_nothing_but_empty_parameters():
    optimizer = FusedRMSProp(parameters([(0,), (0, 3)]), stats=True)
    random_grads(optimizer.param_groups[0]["params"])
    optimizer.step()
    assert optimizer.stats().total["grad_norm"] == 0


@natively
def test_nothing_measured():
    (param,) = parameters([(5,)])
    optimizer = FusedRMSProp([param], stats=True)
    with pytest.raises(RuntimeError, match="no step of this optimizer has been measured yet: make one"):
        optimizer.stats()
    random_grads([param])
    optimizer.step()
    optimizer.stats()
    optimizer.release()
    with pytest.raises(RuntimeError, match="no step of this optimizer has been measured yet"):
        optimizer.stats()
    with pytest.raises(RuntimeError, match="no parameter group has stats, so nothing is measured: make the optimizer with stats=True"):
        FusedRMSProp([param]).stats()


@natively
def test_checkpoints_say_nothing_of_it():
    params = parameters([(5,)])
    optimizer = FusedRMSProp(params, stats=5)
    random_grads(params)
    optimizer.step()
    saved = optimizer.state_dict()
    assert "stats" not in str(saved["param_groups"])
    again = FusedRMSProp(twins(params), stats=2)
    again.load_state_dict(saved)
    assert again.param_groups[0]["stats"] == 2
    assert copy.deepcopy(optimizer).param_groups[0]["stats"] == 5


@natively
@pytest.mark.parametrize(
    "wrong", [-1, 1.5, "yes", None, 2**63, [1], torch.tensor(1), float("nan"), b"1", 10**400], ids=lambda value: str(value)[:20]
)
@pytest.mark.parametrize("cls", [FusedRMSProp, FusedSMORMS3])
def test_wrong_options(cls, wrong):
    with pytest.raises(ValueError, match=r"stats=.* is not supported: it must be True, False, or a number of steps"):
        cls(parameters([(3,)]), stats=wrong)
