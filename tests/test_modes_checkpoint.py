"""Checkpoints of each precision mode: going on exactly, from one mode into another, to torch and back."""

import copy
import itertools
import pickle

import pytest
import torch

from cases import BF16, F32, MODES, OPTIONS
from fusedrms import FusedRMSProp, FusedRMSPropGraves
from mode_tools import RULES, made, modes, rules, same_state
from test_checkpoint import go_on, through_a_file
from tools import random_grads, step_and_check, twins


@modes
@rules
def test_resume_is_exact(device, rule, mode):
    """From a checkpoint in full precision, from a pickle and from a copy: the same states, the same bits ever after."""
    a, params = made(rule, mode, device=device, steps=3)
    pairs = [(a, params)]
    resumed = twins(params)
    b = rule[0](resumed, **rule[1], **mode)
    b.load_state_dict(through_a_file(a.state_dict()))
    pairs.append((b, resumed))
    for again in (copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        pairs.append((again, again.param_groups[0]["params"]))
    for optimizer, others in pairs[1:]:
        assert all(same_state(a.state[p], optimizer.state[q]) for p, q in zip(params, others, strict=True))
    go_on(pairs)
    for optimizer, others in pairs[1:]:
        assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
        assert all(same_state(a.state[p], optimizer.state[q]) for p, q in zip(params, others, strict=True))


@pytest.mark.exhaustive
def test_any_mode_into_any_other():
    """Full precision on the way: what a mode holds exactly arrives exactly; a trip into a leaner one and back changes nothing there."""
    kinds = [{}, *MODES.values()]
    for a, b in itertools.product(kinds, kinds):
        first, params = made(RULES["Graves"], a, [(7,), (3, 43)], steps=2)
        saved = first.state_dict()
        second = FusedRMSPropGraves(twins(params), **b)
        second.load_state_dict(through_a_file(saved))
        assert second.param_groups[0]["state_dtype"] == b.get("state_dtype", F32)  # how to store is its own business
        back = second.state_dict()
        third = FusedRMSPropGraves(twins(params), **b)
        third.load_state_dict(back)
        for p, q in zip(second.state.values(), third.state.values(), strict=True):
            assert same_state(p, q)
        if not b:
            for p, q in zip(saved["state"].values(), back["state"].values(), strict=True):
                for key, value in q.items():
                    torch.testing.assert_close(value, p[key].to(value.dtype), rtol=1e-7, atol=0)


@modes
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_to_torch_and_back(mode, options):
    for dtype in (BF16, F32):
        optimizer, params = made((FusedRMSProp, options), mode, [(7,), (3, 43)], dtype, steps=3)
        others = twins(params)
        theirs = torch.optim.RMSprop(others)
        theirs.load_state_dict(through_a_file(optimizer.state_dict()))
        random_grads(others)
        theirs.step()
        resumed = twins(others)
        again = FusedRMSProp(resumed, **mode)
        again.load_state_dict(through_a_file(theirs.state_dict()))
        for p, q in zip(resumed, others, strict=True):
            for key in ("square_avg", "momentum_buffer", "grad_avg"):
                assert (key in theirs.state[q]) == (key in again.state_dict()["state"][0])
            assert again.state[p]["step"] == 4
        random_grads(resumed)
        again.step()
        assert all(p.isfinite().all() for p in resumed)


def test_a_mode_switched_on_in_the_middle():
    """Options of a group may change between steps; states follow."""
    optimizer, params = made(RULES["Graves"], {}, steps=2)
    names = {"square_avg", "grad_avg", "momentum_buffer", "step"}
    lean = {"square_avg", "square_avg_scale", "grad_avg", "grad_avg_scale", "momentum_buffer", "momentum_buffer_scale", "step"}
    for mode, expected in (
        (MODES["split, 8-bit state"], lean | {"master_param"}),
        (MODES["split24, 4-bit state"], lean | {"master_param"}),
        (MODES["split, 8-bit state"], lean | {"master_param"}),
        (dict(state_dtype="4bit", master_weights=None), lean),
        (dict(state_dtype="8bit", master_weights="float32"), lean | {"master_param"}),
        (dict(state_dtype=BF16, master_weights=None), names),
        (dict(state_dtype=F32), names),
    ):
        optimizer.param_groups[0].update(mode)
        random_grads(params)
        optimizer.step()
        step_and_check(optimizer)
        assert optimizer.state[params[0]].keys() == expected
