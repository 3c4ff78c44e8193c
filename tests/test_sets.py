"""Other parameters have gradients from step to step: experts, two heads, the two networks of a GAN. Tables are made once for each set."""

import gc
import weakref

import pytest
import torch

from fusedrms import FusedRMSProp
from fusedrms.engine import step as steps
from fusedrms.engine.tables.plan import Plan
from tools import parameters, params_of, random_grads, step_and_check, twins

pytestmark = pytest.mark.usefixtures("reading")
ALL = 5
SETS = {
    "experts": [[0, 1], [2, 3], [4]],
    "two heads": [[0, 1, 2], [0, 1, 3, 4]],
    "a part and all": [[0, 1], list(range(ALL))],
    "none now and then": [[0, 1, 2, 3, 4], []],
}


@pytest.fixture
def made(monkeypatch) -> list[Plan]:
    """The plans that are made."""
    plans = []

    class Counted(Plan):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            plans.append(weakref.ref(self))

    monkeypatch.setattr(steps, "Plan", Counted)
    return plans


def give(optimizer, indices) -> None:
    optimizer.zero_grad()
    random_grads([params_of(optimizer)[k] for k in indices])


def make(device, **options) -> FusedRMSProp:
    return FusedRMSProp(parameters([(33,), (4, 6), (200,), (1,), (7,)], device), **options)


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
@pytest.mark.parametrize("options", [{}, dict(momentum=0.9, bias_correction=True, clip_grad_norm=1.0)], ids=str)
def test_tables_are_made_once_for_each_set(device, sets, options, made):
    optimizer = make(device, **options)
    for n in range(6 * len(sets)):
        if n == 3 * len(sets):  # two rounds: a state that begins changes what the tables before were made from
            known = len(made)
        give(optimizer, sets[n % len(sets)])
        optimizer.param_groups[0]["lr"] *= 0.9
        step_and_check(optimizer)
    assert len(made) == known


def test_they_are_the_last_few(device, made):
    """And what there is no more step with keeps nothing."""
    optimizer = make(device)
    optimizer.prepare()
    for n in range(2 * ALL):
        give(optimizer, [n % ALL])
        step_and_check(optimizer)
    assert len(made) == 2 * ALL
    gc.collect()
    assert sum(plan() is not None for plan in made) == len(optimizer._run.tables) == steps.MOST_SETS
    few = optimizer.memory().tables
    optimizer.release()
    assert few > optimizer.memory().tables == 0


def test_what_changes_in_between_is_seen(device, made):
    """While another set is stepped, what the first one's tables were made from is replaced."""
    optimizer = make(device, momentum=0.9)
    changes = [
        lambda p: p.data.copy_(torch.randn_like(p)),
        lambda p: setattr(p, "data", torch.randn_like(p)),
        lambda p: optimizer.state[p].update(square_avg=optimizer.state[p]["square_avg"].clone()),
        lambda p: optimizer.state[p].update(step=optimizer.state[p]["step"] + 7),
        lambda p: optimizer.load_state_dict(optimizer.state_dict()),
        lambda p: optimizer.param_groups[0].update(weight_decay=0.1),
        lambda p: optimizer.param_groups[0].update(centered=True),
        lambda p: optimizer.add_param_group(dict(params=parameters([(3,)], device))),
    ]
    for change in changes:
        for indices in ([0, 1], [2, 3], [0, 1]):
            give(optimizer, indices)
            step_and_check(optimizer)
        change(params_of(optimizer)[2])
        for indices in ([2, 3], [0, 1], [2, 3]):
            give(optimizer, indices)
            step_and_check(optimizer)


def test_a_step_that_fails_leaves_none(device):
    optimizer = make(device)
    for indices in ([0], [1], [0], [1]):
        give(optimizer, indices)
        step_and_check(optimizer)
    assert len(optimizer._run.tables) == 2
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="learning rate"):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.1
    params_of(optimizer)[1].grad = torch.zeros(4, 6, device=device).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert not optimizer._run.tables
    give(optimizer, [1])
    step_and_check(optimizer)


def test_tables_that_did_not_hold_never_do_again(device):
    """As after a capture that was refused, which keeps them: what lies elsewhere has been taken down, but not where they say it."""
    optimizer = make(device)
    give(optimizer, range(ALL))
    step_and_check(optimizer)
    plan, recipes = optimizer._run.plan, optimizer._recipes()
    for p in params_of(optimizer):
        p.grad = torch.randn(p.numel() + 1, device=p.device)[1:].view(p.shape)
    arguments = optimizer.param_groups, recipes, optimizer.state
    found = [plan.holds(*arguments, {}) is None for _ in range(2)]
    assert found[0] == found[1]
    assert plan.holds(*arguments, {params_of(optimizer)[0]: params_of(optimizer)[0].grad}) is None
    assert plan.holds(*arguments, {}) is None
    step_and_check(optimizer)


def test_norm_of_the_last_set(device):
    optimizer = make(device, clip_grad_norm=1e9)
    for indices in ([0], [1, 2], [0], [1, 2]):
        give(optimizer, indices)
        optimizer.step()
        norm = torch.cat([params_of(optimizer)[k].grad.flatten().double() for k in indices]).norm()
        torch.testing.assert_close(optimizer.last_grad_norm, norm)


def test_bits_are_those_of_new_tables(device):
    ours, fresh = make(device, momentum=0.9, clip_grad_norm=1.0), None
    fresh = FusedRMSProp(twins(params_of(ours)), momentum=0.9, clip_grad_norm=1.0)
    for n in range(8):
        give(ours, SETS["two heads"][n % 2])
        for p, q in zip(params_of(ours), params_of(fresh), strict=True):
            q.grad = None if p.grad is None else p.grad.clone()
        fresh.release()
        ours.step()
        fresh.step()
        assert all(map(torch.equal, params_of(ours), params_of(fresh)))
