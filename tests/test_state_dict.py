"""What a state_dict holds and takes: options, states switched on and off, copies that are written, groups."""

import copy
import io
import json
import math
import pickle

import pytest
import torch
from torch import nn

from cases import MODES
from fusedrms import FusedRMSProp
from test_checkpoint import go_on, through_a_file, trained
from tools import parameters, random_grads, set_grad, twins


def test_options_come_along():
    """Those that torch lacks, in the value of foreach; what a checkpoint does not say stays, and so does how values are stored."""
    options = dict(
        eps_placement="both", clip_grad_norm=0.1 + 0.2, rescale_grad=torch.tensor(0.5), skip_nonfinite=True, initial_square_avg=1
    )
    a, params = trained(options)
    saved = a.state_dict()
    assert json.loads(saved["param_groups"][0]["foreach"]) == {**options, "rescale_grad": 0.5}
    b = FusedRMSProp(twins(params), clip_weights=3.0, state_dtype="8bit", foreach=True)
    b.load_state_dict(through_a_file(saved))
    group = b.param_groups[0]
    assert {key: float(group[key]) if key == "rescale_grad" else group[key] for key in options} == {**options, "rescale_grad": 0.5}
    assert (group["clip_weights"], group["state_dtype"], group["foreach"]) == (3.0, "8bit", True)
    assert trained({})[0].state_dict()["param_groups"][0]["foreach"] is None


def test_an_infinite_limit_comes_along():
    """In JSON's words as Python has them, which have no other number that an option takes."""
    a, params = trained(dict(clip_grad_norm=math.inf))
    saved = through_a_file(a.state_dict())
    assert saved["param_groups"][0]["foreach"] == '{"clip_grad_norm": Infinity}'
    b = FusedRMSProp(twins(params))
    b.load_state_dict(saved)
    assert b.param_groups[0]["clip_grad_norm"] == math.inf
    go_on([(a, params), (b, [param for group in b.param_groups for param in group["params"]])])
    for each in (a, copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert each.param_groups[0]["clip_grad_norm"] == math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"clip_grad_norm": NaN}', "clip_grad_norm=nan is not supported"),
        ('{"clip_grad_norm": -Infinity}', "clip_grad_norm=-inf is not supported"),
        ('{"clip_weights": Infinity}', "clip_weights=inf is not supported"),
        ("{", r"foreach of parameter group 0 in the checkpoint is '\{', not options in JSON"),
        ("[1]", "not options in JSON: load another checkpoint"),
        ("[" * 100_000, "not options in JSON: load another checkpoint"),
        ('{"clip": 3}', "checkpoint has clip=3, which this version, or this rule, does not know"),
        ('{"clip_weights": -3}', "clip_weights=-3 is not supported"),
        ('{"lr": 3}', "has lr=3, which"),
    ],
)
def test_damaged_options(text, message):
    a, params = trained({})
    saved = copy.deepcopy(a.state_dict())
    saved["param_groups"][0]["foreach"] = text
    before = a.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=message):
        a.load_state_dict(saved)
    assert a.param_groups[0]["lr"] == before
    go_on([(a, params)])


def test_a_switch_while_a_parameter_has_no_gradient():
    """The checkpoint has what the next step would begin, so the optimizer that wrote it takes it."""
    a, params = trained({}, steps=2)
    a.param_groups[0].update(momentum=0.9, centered=True)
    for param in params[1:]:
        set_grad(param, torch.ones_like(param))
    params[0].grad = None
    a.step()
    saved = through_a_file(a.state_dict())
    assert not saved["state"][0]["momentum_buffer"].any()
    resumed = twins(params)
    b = FusedRMSProp(resumed)
    b.load_state_dict(saved)
    go_on([(a, params), (b, resumed)])
    assert all(torch.equal(p, q) for p, q in zip(params, resumed, strict=True))


def test_an_average_switched_off():
    """What was kept as variance and mean goes on as the square average, and the mean waits in full precision."""
    for mode in (dict(state_dtype="8bit"), dict(state_dtype=torch.bfloat16)):
        a, params = trained(dict(centered=True, seed=0, **mode), steps=2)
        expected = a.state_dict()["state"][2]
        expected = expected["square_avg"].float(), expected["grad_avg"].clone()
        a.param_groups[0]["centered"] = False
        a.prepare()
        found = a.state_dict()["state"][2]
        torch.testing.assert_close(found["square_avg"], expected[0], rtol=0.02, atol=expected[0].max().item() / 255)
        assert torch.equal(found["grad_avg"], expected[1])
        a.param_groups[0]["centered"] = True
        go_on([(a, params)])


def test_a_users_own_state_stays():
    a, params = trained({})
    a.state[params[0]]["ema"] = params[0].detach().bfloat16()
    assert a.state_dict()["state"][0]["ema"].dtype == torch.bfloat16


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_written_but_not_loaded(mode):
    """Whoever writes into a copy is told; reading, saving and loading it is what it is for."""
    a, params = trained({**mode, "momentum": 0.9}, torch.bfloat16)
    saved = a.state_dict()
    copied = [value for value in saved["state"][2].values() if all(value is not kept for kept in a.state[params[2]].values())]
    through_a_file(saved)
    go_on([(a, params)])
    saved = a.state_dict()
    if not copied:
        return
    key = "master_param" if "master_param" in saved["state"][2] else "square_avg"
    saved["state"][2][key].view(-1)[:1].mul_(2)
    if any(saved["state"][2][key] is kept for kept in a.state[params[2]].values()):
        return
    before = [param.detach().clone() for param in params]
    random_grads(params)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=rf"the {key} of params\[2\] that state_dict\(\) returned has been written to"):
            a.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    a.load_state_dict(saved)
    go_on([(a, params)])


def test_a_group_that_is_passed_is_copied():
    given = {"params": parameters([(2,)]), "lr": 0.5}
    optimizer = FusedRMSProp([given])
    given["lr"] = 7.0
    assert optimizer.param_groups[0]["lr"] == 0.5
    group = copy.deepcopy(optimizer).param_groups[0]
    assert type(group) is type(optimizer.param_groups[0])
    assert {*group} == {*optimizer.param_groups[0]}


@pytest.mark.parametrize("copied", [lambda o, saved: o.param_groups[0].update(saved), None], ids=["updated", "added"])
def test_options_of_a_group_that_is_copied(copied):
    """From a checkpoint into a live group, as ZeroRedundancyOptimizer does, or into a new one; a constructor says what to do."""
    a, params = trained(dict(eps_placement="inside", clip_weights=5.0))
    saved = {key: value for key, value in a.state_dict()["param_groups"][0].items() if key != "params"}
    with pytest.raises(ValueError, match=r"foreach='.*clip_weights.*' is not supported\. In a checkpoint it carries"):
        FusedRMSProp(twins(params), **saved)
    resumed = twins(params)
    b = FusedRMSProp(resumed)
    if copied:
        copied(b, saved)
    else:
        b.add_param_group({**saved, "params": parameters([(3,)]), "clip_weights": 7.0})
    go_on([(b, resumed)])
    group = b.param_groups[-1]
    assert (group["eps_placement"], group["clip_weights"], group["foreach"]) == ("inside", 5.0 if copied else 7.0, None)
    assert json.loads(b.state_dict()["param_groups"][-1]["foreach"])["eps_placement"] == "inside"


def test_groups_are_dicts():
    """Whatever iterates over one sees all options; a dict in its place does as well, and is the one that counts."""
    model = nn.Linear(3, 3)
    optimizer = FusedRMSProp(model.parameters(), eps_placement="inside", clip_weights=5.0)
    group = optimizer.param_groups[0]
    assert [*group] == [*group.keys()] == list(group)
    assert len(group) == len([*group])
    other = FusedRMSProp([torch.ones(2)])
    other.add_param_group({**{key: group[key] for key in group if key != "params"}, "params": [torch.ones(3)]})
    assert other.param_groups[1]["eps_placement"] == "inside"
    file = io.BytesIO()
    torch.save(optimizer.param_groups, file)
    assert torch.load(io.BytesIO(file.getvalue()))[0].keys() == group.keys()
    random_grads(list(model.parameters()))
    optimizer.step()
    optimizer.param_groups = [{**group}]
    (own,) = optimizer.param_groups
    optimizer.step()
    optimizer.state_dict()
    own["lr"] = 0.0
    before = [param.detach().clone() for param in model.parameters()]
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["float32", *MODES])
def test_inference_mode(mode):
    """A checkpoint that is saved or loaded in it is as any other."""
    a, params = trained(mode, torch.bfloat16)
    resumed = twins(params)
    b = FusedRMSProp(resumed, **mode)
    with torch.inference_mode():
        a.param_groups[0]["momentum"] = 0.9
        b.load_state_dict(a.state_dict())
    b.param_groups[0]["momentum"] = 0.9
    assert not any(value.is_inference() for each in (a, b) for values in each.state.values() for value in values.values())
    go_on([(a, params), (b, resumed)])
    a.state_dict()
    assert all(torch.equal(p, q) for p, q in zip(params, resumed, strict=True))


@pytest.mark.parametrize("mode", [dict(state_dtype="8bit", seed=0), dict(master_weights="split")])
def test_what_was_written_is_not_forgotten(mode):
    """Another state_dict hides nothing; the way out that the error names leaves everything as it was, the count too."""
    a, params = trained(mode, torch.bfloat16)
    b = copy.deepcopy(a)
    others = b.param_groups[0]["params"]
    saved = a.state_dict()
    key = "square_avg" if "state_dtype" in mode else "master_param"
    saved["state"][0][key].add_(1)
    saved["state"][0]["step"].add_(7)
    a.state_dict()
    random_grads(params)
    with pytest.raises(RuntimeError, match=rf"the {key} of params.0. that state_dict"):
        a.step()
    a.load_state_dict(a.state_dict())
    go_on([(a, params), (b, others)])
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert a.state_dict()["state"][0]["step"] == b.state_dict()["state"][0]["step"]
