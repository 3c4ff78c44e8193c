"""skip_above: what its value may be, and that the window goes wherever the optimizer goes."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from test_amp import copies, everything
from test_checkpoint import through_a_file
from test_spikes import ABOVE, NORMS, give, go_on, made, window
from tools import parameters, params_of, random_grads, twins


@pytest.mark.parametrize("steps", [2, 8, 12])
def test_resumed(steps, device):
    """From a checkpoint, a copy and a pickle: what is left out from then on is what an uninterrupted run leaves out, bit for bit."""
    first = made(device)
    go_on([first], NORMS[:steps])
    loaded = FusedRMSProp(twins(params_of(first)), momentum=0.9, stochastic_rounding=True)
    loaded.load_state_dict(through_a_file(first.state_dict()))
    others = [loaded, copy.deepcopy(first), pickle.loads(pickle.dumps(first)), copy.deepcopy(loaded)]
    before = [optimizer.skipped_steps for optimizer in (first, *others)]
    for other in others:
        assert window(other) == window(first)
        assert other.param_groups[0]["skip_above"] == ABOVE
    go_on([first, *others], NORMS[steps:])
    left_out = {int(each.skipped_steps - count) for each, count in zip((first, *others), before, strict=True)}
    assert len(left_out) == 1
    assert left_out.pop() > 3


@pytest.mark.parametrize("flattened", [False, True])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage is deprecated")  # the latter of torch 2.9
def test_resumed_by_torch_distributed_checkpoint(flattened, tmp_path):
    models = [nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)) for _ in range(2)]
    options, optimizers = StateDictOptions(flatten_optimizer_state_dict=flattened), []
    for model, option in zip(models, (ABOVE, None), strict=True):
        groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "skip_above": option, "weight_decay": 0.1}]
        optimizers.append(FusedRMSProp(groups))
    go_on(optimizers[:1], NORMS[:9])
    dcp.save(get_optimizer_state_dict(models[0], optimizers[0], options=options), checkpoint_id=tmp_path)
    state = get_optimizer_state_dict(models[1], optimizers[1], options=options)
    dcp.load(state, checkpoint_id=tmp_path)
    models[1].load_state_dict(models[0].state_dict())
    set_optimizer_state_dict(models[1], optimizers[1], state, options=options)
    assert [group["skip_above"] for group in optimizers[1].param_groups] == [None, ABOVE]
    assert len(window(optimizers[1])) == 6
    go_on(optimizers, NORMS[9:])


def test_checkpoints_without_a_window():
    """Of others, and of this class before: the window begins anew. What is no norm is refused, and nothing has changed."""
    first = made()
    go_on([first], NORMS[:8])
    theirs = torch.optim.RMSprop(twins(params_of(first)), momentum=0.9)
    theirs.load_state_dict(first.state_dict())
    saved = theirs.state_dict()
    saved["param_groups"][0].update(foreach=None)
    before = window(first)
    for norms in ("[1.0, NaN]", "[-1.0]", "[0]", '"text"', "[[1]]", "3"):
        wrong = copy.deepcopy(saved)
        wrong["param_groups"][0]["foreach"] = f'{{"skip_above": [3.0, 6], "accepted_norms": {norms}}}'
        with pytest.raises(ValueError, match="not options in JSON: load another checkpoint"):
            first.load_state_dict(wrong)
    assert window(first) == before
    first.load_state_dict(saved)
    assert (window(first), first.param_groups[0]["skip_above"]) == ([], ABOVE)
    go_on([first], [1.0, 1.0])
    assert len(window(first)) == 2


def test_other_gradients_and_options(device):
    """Tables are made anew; the window stays, until it is turned off for a step."""
    optimizer = made(device)
    params = params_of(optimizer)
    for k in range(6):
        optimizer.zero_grad()
        give([param for n, param in enumerate(params) if n != k % 3], 1.0 + k / 8)
        optimizer.step()
    before = window(optimizer)
    assert len(before) == 6
    (group,) = optimizer.param_groups
    for option, left_out in (([3.0, 4], 1), ((100, 4), 1), ((np.float32(3), np.int64(5)), 2), (None, 2), (ABOVE, 2)):
        group["skip_above"] = option
        give(params, 50.0)
        optimizer.step()
        assert optimizer.skipped_steps_by_reason["above"] == left_out
        assert group["skip_above"] is None or type(group["skip_above"]) is tuple
    np.testing.assert_allclose(window(optimizer), [50.0], rtol=1e-2)
    optimizer.release()
    give(params, 2.0)
    optimizer.step()
    assert len(window(optimizer)) == 2


WRONG = [5.0, "3", (), (5.0,), (5.0, 100, 1), {5.0: 100}, 10**5000]
WRONG += [(factor, 100) for factor in (1, 0.5, -3.0, math.nan, math.inf, "5", None, True, 10**5000, torch.tensor(5.0), [5.0])]
WRONG += [(5.0, size) for size in (1, 0, -100, 1025, 100.0, math.nan, "100", None, True, 10**5000, torch.tensor(100))]


@pytest.mark.parametrize("value", WRONG, ids=map(str, range(len(WRONG))))
def test_wrong_options(value):
    params = parameters([(2,), (3,)])
    said = r"skip_above=.* is not supported: .*(finite number > 1|whole number of steps)"
    for cls in (FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3):
        with pytest.raises(ValueError, match=said):
            cls(params, skip_above=value)
    optimizer = FusedRMSProp(params[:1])
    with pytest.raises(ValueError, match=said):
        optimizer.add_param_group(dict(params=params[1:], skip_above=value))
    random_grads(params)
    optimizer.step()
    before = copies(optimizer)
    optimizer.param_groups[0]["skip_above"] = value
    with pytest.raises(ValueError, match=f"parameter group 0: {said}"):
        optimizer.step()
    assert all(map(torch.equal, everything(optimizer), before))
    optimizer.param_groups[0]["skip_above"] = (5, 100)
    optimizer.step()


def test_groups_must_agree():
    """Those that have it; lists and whole numbers are the same as tuples and floats."""
    params = parameters([(2,), (3,), (4,), (5,)])
    said = r"parameter group 2 has skip_above=\(4\.0, 6\), parameter group 0 has \(3\.0, 6\): .*set the same in both, or None in one"
    groups = [dict(params=[param]) for param in params]
    differing = [{**groups[0], "skip_above": [3, 6]}, {**groups[1], "skip_above": None}, {**groups[2], "skip_above": (4.0, 6)}]
    with pytest.raises(ValueError, match=said):
        FusedRMSProp(differing)
    optimizer = FusedRMSProp([*differing[:2], {**groups[2], "skip_above": ABOVE}])
    with pytest.raises(ValueError, match="parameter group 3 has"):
        optimizer.add_param_group({**groups[3], "skip_above": (3.0, 7)})
    random_grads(params)
    optimizer.step()
    before, saved = copies(optimizer), optimizer.state_dict()
    optimizer.param_groups[2]["skip_above"] = (4.0, 6)
    with pytest.raises(ValueError, match=said):
        optimizer.step()
    saved["param_groups"][0]["foreach"] = '{"skip_above": [3.0, 7]}'
    with pytest.raises(ValueError, match="parameter group 2 has"):
        optimizer.load_state_dict(saved)
    assert all(map(torch.equal, everything(optimizer), before))
    optimizer.param_groups[2]["skip_above"] = ABOVE
    optimizer.step()
    assert len(window(optimizer)) == 2
