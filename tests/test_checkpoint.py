"""state_dict, load_state_dict, deepcopy, pickle: to and from torch's, and going on exactly as without."""

import copy
import io
import pickle

import pytest
import torch

from cases import BF16, F16, F32, F64, OPTIONS
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from tools import assert_close, copy_grads, parameter, parameters, random_grads, twins

options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
SHAPES = [(3, 4), (), (1025,), (0,)]


def trained(options, dtype=F32, device="cpu", cls=FusedRMSProp, steps=3):
    params = parameters(SHAPES, device, dtype)
    optimizer = cls(params, **options)
    for _ in range(steps):
        random_grads(params)
        optimizer.step()
    return optimizer, params


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def go_on(pairs, steps=3):
    """The same gradients for several (optimizer, params)."""
    for _ in range(steps):
        random_grads(pairs[0][1])
        for optimizer, params in pairs:
            copy_grads(pairs[0][1], params)
            optimizer.step()


@options
@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64, torch.complex64])
def test_resume_is_exact(device, options, dtype):
    a, params = trained(options, dtype, device)
    resumed = twins(params)
    b = FusedRMSProp(resumed, lr=123.0)
    b.load_state_dict(through_a_file(a.state_dict()))
    for p, q in zip(params, resumed, strict=True):
        for key, value in a.state[p].items():
            assert value.dtype == b.state[q][key].dtype
            assert torch.equal(value, b.state[q][key])
            assert value.numel() == 0 or value.data_ptr() != b.state[q][key].data_ptr()
    go_on([(a, params), (b, resumed)])
    assert all(torch.equal(p, q) for p, q in zip(params, resumed, strict=True))


@options
@pytest.mark.parametrize("ours_first", [True, False])
def test_exchange_with_torch(device, options, ours_first):
    classes = [FusedRMSProp, torch.optim.RMSprop]
    if not ours_first:
        classes.reverse()
    a, params = trained(options, device=device, cls=classes[0])
    resumed = twins(params)
    b = classes[1](resumed)
    b.load_state_dict(through_a_file(a.state_dict()))
    go_on([(a, params), (b, resumed)])
    assert_close(params, resumed, steps=3)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", [BF16, F16])
def test_state_of_16_bit_parameters(device, dtype):
    """float32, also when it comes from torch's checkpoint, and not rounded to 16 bits on its way."""
    a, params = trained(dict(centered=True), dtype, device)
    saved = through_a_file(a.state_dict())
    b = FusedRMSProp(twins(params), centered=True)
    b.load_state_dict(saved)
    key = list(b.state)[2]
    assert b.state[key]["square_avg"].dtype == F32
    assert torch.equal(b.state[key]["square_avg"], saved["state"][2]["square_avg"])
    assert not torch.equal(b.state[key]["square_avg"], saved["state"][2]["square_avg"].to(dtype).float())
    theirs, _ = trained(dict(centered=True), dtype, device, cls=torch.optim.RMSprop)
    b.load_state_dict(theirs.state_dict())
    assert b.state[key]["square_avg"].dtype == F32
    random_grads(b.param_groups[0]["params"])
    b.step()


def test_layout_of_a_loaded_state():
    """A contiguous checkpoint of a channels_last parameter, and the other way round."""
    values = torch.randn(2, 3, 4, 5)
    plain, last = (
        parameter(values.clone()),
        parameter(values.clone(memory_format=torch.channels_last).contiguous(memory_format=torch.channels_last)),
    )
    assert plain.stride() != last.stride()
    a, b = FusedRMSProp([plain]), FusedRMSProp([last])
    go_on([(a, [plain]), (b, [last])])
    a_state, b_state = copy.deepcopy(a.state_dict()), copy.deepcopy(b.state_dict())
    a.load_state_dict(b_state)
    b.load_state_dict(a_state)
    go_on([(a, [plain]), (b, [last])])
    assert torch.equal(plain, last)
    assert b.state[last]["square_avg"].stride() == last.stride()


@pytest.mark.parametrize("way", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o)), lambda o: through_a_pickle(o)])
def test_copies(device, way):
    a, params = trained(OPTIONS["everything"], device=device)
    b = way(a)
    others = b.param_groups[0]["params"]
    assert all(p is not q for p, q in zip(params, others, strict=True))
    go_on([(a, params), (b, others)])
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def through_a_pickle(optimizer):
    file = io.BytesIO()
    torch.save(optimizer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_model_and_optimizer_deepcopied_together():
    model = torch.nn.Linear(3, 3)
    both = copy.deepcopy((model, FusedRMSProp(model.parameters())))
    both[0](torch.randn(2, 3)).sum().backward()
    before = both[0].weight.detach().clone()
    both[1].step()
    assert not torch.equal(before, both[0].weight)


def test_deepcopy_after_momentum_was_switched_on():
    a, params = trained({})
    a.param_groups[0]["momentum"] = 0.9
    b = copy.deepcopy(a)
    go_on([(a, params), (b, b.param_groups[0]["params"])])
    assert all(torch.equal(p, q) for p, q in zip(params, b.param_groups[0]["params"], strict=True))


def test_foreign_state_is_kept():
    a, _ = trained({})
    saved = a.state_dict()
    saved["state"]["ema"] = {"of": torch.ones(3)}
    saved["state"][0]["mask"] = torch.ones(3, 4, dtype=torch.bool)
    a.load_state_dict(saved)
    assert torch.equal(a.state["ema"]["of"], torch.ones(3))
    assert a.state[a.param_groups[0]["params"][0]]["mask"].dtype == torch.bool


def test_how_a_step_runs_is_not_loaded():
    """A checkpoint of a capturable torch optimizer sits on the GPU and says capturable=True."""
    a, params = trained({})
    saved = a.state_dict()
    saved["param_groups"][0] |= dict(capturable=True, foreach=True, differentiable=True, lr=0.5)
    del saved["param_groups"][0]["maximize"]  # as in old checkpoints
    a.load_state_dict(saved)
    assert a.param_groups[0]["lr"] == 0.5
    assert a.param_groups[0]["capturable"] is a.param_groups[0]["differentiable"] is a.param_groups[0]["maximize"] is False
    go_on([(a, params)])


def test_a_float_step_of_old_checkpoints():
    a, _ = trained({})
    saved = a.state_dict()
    for state in saved["state"].values():
        state["step"] = 3.0
    a.load_state_dict(saved)
    assert a.state[a.param_groups[0]["params"][0]]["step"].item() == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s["state"][0].pop("square_avg"), "no 'square_avg'.*load a checkpoint of"),
        (lambda s: s["state"][2].update(square_avg=torch.zeros(7)), r"square_avg of params\[2\] has shape \(7,\)"),
        (lambda s: s["state"][2].update(square_avg=None), r"square_avg of params\[2\]"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), "Invalid learning rate"),
        (lambda s: s["param_groups"][0]["params"].pop(), "doesn't match the size"),
        (lambda s: s["param_groups"].append(s["param_groups"][0]), "different number of parameter groups"),
        (lambda s: s["param_groups"].clear(), "different number of parameter groups"),
    ],
)
def test_wrong_checkpoints_change_nothing(spoil, message):
    a, params = trained({})
    b, others = copy.deepcopy(a), None
    others = b.param_groups[0]["params"]
    saved = copy.deepcopy(a.state_dict())
    saved["param_groups"][0]["lr"] = 99.0
    spoil(saved)
    with pytest.raises((ValueError, KeyError), match=message):
        a.load_state_dict(saved)
    go_on([(a, params), (b, others)])
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ValueError, "the state_dict has no 'state', but nothing: pass what"),
        (dict(model={}, optimizer={}), ValueError, "has no 'state', but 'model', 'optimizer': pass what state_dict"),
        (dict(state={}), ValueError, "has no 'param_groups', but 'state'"),
        ("checkpoint.pt", TypeError, "not 'checkpoint.pt': read a file with torch.load"),
    ],
    ids=str,
)
def test_no_checkpoint_of_an_optimizer(given, error, message):
    optimizer, _ = trained({})
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(given)


def test_adams_checkpoint_is_refused():
    params = parameters([(3,)])
    adam = torch.optim.Adam(params)
    random_grads(params)
    adam.step()
    with pytest.raises(ValueError, match=r"'exp_avg'.*no 'square_avg'"):
        FusedRMSProp(params).load_state_dict(adam.state_dict())


def test_load_hooks_see_what_torchs_see():
    a, _ = trained({}, BF16)
    b, _ = trained({}, BF16)
    seen = []

    def pre(optimizer, state_dict):
        seen.append(type(state_dict["state"][0]["square_avg"]))
        return {**state_dict, "param_groups": [{**state_dict["param_groups"][0], "lr": 7.0}]}

    b.register_load_state_dict_pre_hook(pre)
    b.register_load_state_dict_post_hook(lambda o: seen.append(next(iter(o.state.values()))["square_avg"].dtype))
    b.load_state_dict(a.state_dict())
    assert seen == [torch.Tensor, F32]
    assert b.param_groups[0]["lr"] == 7.0


def test_buffers_of_another_unit():
    """A momentum buffer of torch's holds no lr; taken for one that does, it would step 1/lr too far."""
    params = parameters([(3,)])
    theirs = torch.optim.RMSprop(params, lr=1e-3, momentum=0.9, centered=True)
    random_grads(params)
    theirs.step()
    saved = theirs.state_dict()
    ours = FusedRMSPropGraves(params)
    with pytest.raises(ValueError, match=r"group 0 has lr_in_momentum=True.*momentum_buffer without lr"):
        ours.load_state_dict(saved)
    assert ours.param_groups[0]["lr"] == 1e-4
    FusedRMSProp(params, centered=True, momentum=0.9).load_state_dict(saved)


def test_states_of_another_rule():
    params = parameters([(3,)])
    ours = FusedSMORMS3(params)
    random_grads(params)
    ours.step()
    saved = ours.state_dict()
    with pytest.raises(ValueError, match=r"'mem', so it is from SMORMS3"):
        FusedRMSProp(params).load_state_dict(saved)
    again = FusedSMORMS3(params)
    again.load_state_dict(saved)
    assert torch.equal(again.state[params[0]]["mem"], ours.state[params[0]]["mem"])
    other = FusedRMSProp(params, centered=True)
    other.step()
    with pytest.raises(ValueError, match="no 'mem'"):
        again.load_state_dict(other.state_dict())
