"""Recipes of parameter groups, made anew where an option has changed, and only there."""

from collections import OrderedDict

import pytest
import torch

from fusedrms import FusedRMSProp
from fusedrms.engine.recipes import Recipes
from tools import parameters, random_grads

CHANGES = dict(
    lr=0.5,
    alpha=0.5,
    eps=1e-3,
    weight_decay=0.1,
    momentum=0.9,
    centered=True,
    maximize=True,
    clip_grad_norm=1.0,
    skip_nonfinite=True,
    skip_above=(5.0, 128),
)


def stepped(n=2, **options):
    params = parameters([(3,)] * n)
    optimizer = FusedRMSProp([dict(params=[param]) for param in params], seed=1, **options)
    random_grads(params)
    for _ in range(2):
        optimizer.step()
    return optimizer


@pytest.fixture
def renewed(monkeypatch):
    """One entry for each time that options are looked at one by one."""
    times, renew = [], Recipes._renew

    def note(self, optimizer):
        times.append(1)
        renew(self, optimizer)

    monkeypatch.setattr(Recipes, "_renew", note)
    return times


@pytest.mark.parametrize("option", CHANGES)
def test_an_option_that_changes(option, renewed):
    optimizer = stepped()
    before = optimizer._recipes()
    renewed.clear()
    optimizer.step()
    assert not renewed
    optimizer.param_groups[1][option] = CHANGES[option]
    optimizer.step()
    first, second = optimizer._recipes()
    assert (first is before[0], second != before[1], len(renewed)) == (True, True, 1)
    assert [second] == stepped(1, **{option: CHANGES[option]})._recipes()


def test_a_schedule_makes_no_recipe_from_all_options(monkeypatch):
    optimizer = stepped()
    monkeypatch.setattr(FusedRMSProp, "recipe", lambda *args: pytest.fail("made anew"))
    for step in range(1, 4):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / step
        optimizer.step()
        assert [recipe.common[0] for recipe in optimizer._recipes()] == [0.1 / step] * 2


def test_a_key_in_place_of_another_that_held_the_same():
    optimizer = stepped()
    group = optimizer.param_groups[0]
    assert list(group)[-1] == "model_parallel_group"
    assert group["clip_grad_norm"] is group.pop("model_parallel_group") is None
    group["model_parallel_groop"] = None
    with pytest.raises(ValueError, match="has no 'model_parallel_group'"):
        optimizer.step()
    group["model_parallel_group"] = group.pop("model_parallel_groop")
    optimizer.step()


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_group_in_another_order(kind, renewed):
    optimizer = stepped()
    optimizer.param_groups[1] = kind(reversed(optimizer.param_groups[1].items()))
    before = optimizer._recipes()
    renewed.clear()
    for _ in range(3):
        optimizer.step()
    assert len(renewed) <= 1
    assert optimizer._recipes() is before
    optimizer.param_groups[1]["momentum"] = 0.9
    optimizer.step()
    assert "momentum_buffer" in optimizer.state[optimizer.param_groups[1]["params"][0]]


@pytest.mark.parametrize("kind", [tuple, lambda groups: groups[:1], lambda groups: []])
def test_other_groups(kind):
    optimizer = stepped()
    counters = [optimizer.state[group["params"][0]]["step"] for group in optimizer.param_groups]
    groups = optimizer.param_groups = kind(optimizer.param_groups)
    for _ in range(2):
        optimizer.step()
    assert [int(counter) for counter in counters] == [4 if g < len(groups) else 2 for g in range(2)]


def test_a_rate_that_is_a_tensor(renewed):
    lr = torch.tensor(0.1)
    optimizer = stepped(lr=lr)
    (param,) = optimizer.param_groups[0]["params"]
    renewed.clear()
    lr.zero_()
    before = param.detach().clone()
    optimizer.step()
    assert torch.equal(param, before)
    assert not renewed


def test_infinities_that_one_group_hides_from_another():
    """As where one group has all three options: at construction, in a new group, at a step, and from a checkpoint."""
    params = parameters([(5,), (6,), (7,)])
    clips, skips = dict(clip_grad_norm=1.0, clip_grad_value=2.0), dict(skip_nonfinite=True)
    message = r"skip_nonfinite=True with clip_grad_norm=1\.0 and clip_grad_value=2\.0 is not supported, because an infinity does not show"
    with pytest.raises(ValueError, match=message):
        FusedRMSProp([dict(params=params[:1], **clips), dict(params=params[1:], **skips)])
    optimizer = FusedRMSProp([dict(params=params[:1], clip_grad_value=2.0), dict(params=params[1:2], **skips)])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group(dict(params=params[2:], clip_grad_norm=1.0))
    random_grads(params)
    optimizer.step()
    other = FusedRMSProp([dict(params=params[:1], **clips), dict(params=params[1:2])])
    other.step()
    optimizer.param_groups[1]["clip_grad_norm"] = 1.0
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    optimizer.param_groups[1]["clip_grad_norm"] = None
    saved = other.state_dict()
    saved["param_groups"][1]["foreach"] = '{"skip_nonfinite": true}'
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    assert "clip_grad_norm" not in str(optimizer.state_dict()["param_groups"])
