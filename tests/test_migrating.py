"""Checkpoints of other optimizers and of earlier versions, in one process."""

import tarfile

import pytest
import torch

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, presets
from ranks.loading import OLD, goes_on
from test_checkpoint import go_on, through_a_file, trained
from test_docs import run_blocks
from tools import assert_close, parameter, parameters, set_grad, twins


@pytest.mark.parametrize("name", ["float32", "split_8bit", "graves", "smorms3"])
def test_version_0_1(name, tmp_path):
    """Its checkpoints load, and go on as it did, bit for bit but where random bits are drawn, which are others since."""
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    saved = torch.load(tmp_path / f"{name}.pt")
    dtype = torch.bfloat16 if name == "split_8bit" else torch.float32
    cls = {"graves": FusedRMSPropGraves, "smorms3": FusedSMORMS3}.get(name, FusedRMSProp)
    params = [parameter(value.to(dtype)) for value in saved["model"].values()]
    optimizer = cls(params, **(dict(master_weights="split", state_dtype="8bit") if name == "split_8bit" else {}))
    optimizer.load_state_dict(saved["optimizer"])
    for step in (3, 4):  # as tests/ranks/models.py gives them
        for k, param in enumerate(params):
            set_grad(param, torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + k)).to(dtype))
        optimizer.step()
    for param, expected in zip(params, saved["after"].values(), strict=True):
        goes_on(name, param, expected)


def test_bitsandbytes():
    """A dict of the form that it saves: states by its names in a dict of their own, alpha in betas. Raw it is refused."""
    convert = run_blocks("docs/migrating.md")["from_bitsandbytes"]
    params = parameters([(300,), (3, 4)])
    square_avg = [torch.rand_like(param) for param in params]
    groups = [dict(lr=0.01, betas=(0.95, 0), eps=1e-6, weight_decay=0.1, params=[0, 1], alpha=0.0, t_alpha=None)]
    state = {k: {"step": 5, "__bnb_optimizer_quant_state__": {"state1": value}} for k, value in enumerate(square_avg)}
    saved = {"state": state, "param_groups": groups}
    with pytest.raises(ValueError, match=r"params.0. has .'__bnb_optimizer_quant_state__', 'step'. but no 'square_avg'"):
        FusedRMSProp(params).load_state_dict(saved)
    ours, theirs = FusedRMSProp(params), torch.optim.RMSprop(twins(params), lr=0.01, alpha=0.95, eps=1e-6, weight_decay=0.1)
    for param, value in zip(theirs.param_groups[0]["params"], square_avg, strict=True):
        theirs.state[param] = dict(step=torch.tensor(5.0), square_avg=value.clone())
    ours.load_state_dict(convert(saved))
    go_on([(ours, params), (theirs, theirs.param_groups[0]["params"])])
    assert all(torch.allclose(p, q, rtol=1e-5) for p, q in zip(params, theirs.param_groups[0]["params"], strict=True))


def timms(optimizer, **own):
    """Its checkpoint as one of timm's RMSpropTF."""
    saved = through_a_file(optimizer.state_dict())
    kept = ("lr", "alpha", "eps", "momentum", "centered", "weight_decay", "params")
    return {**saved, "param_groups": [{**{key: group[key] for key in kept}, **own} for group in saved["param_groups"]]}


@pytest.mark.parametrize("lr_in_momentum", [True, False])
@pytest.mark.parametrize("decoupled_decay", [True, False])
def test_timm(lr_in_momentum, decoupled_decay):
    """A checkpoint of the form of its RMSpropTF, into a preset whose options are others, and back."""
    own = dict(decoupled_decay=decoupled_decay, lr_in_momentum=lr_in_momentum)
    a, params = trained(dict(lr=0.1, momentum=0.9, weight_decay=0.1, **own), cls=presets.timm_rmsprop_tf)
    back = run_blocks("docs/migrating.md")["to_timm"](a.state_dict())
    assert {key: back["param_groups"][0][key] for key in own} == own
    resumed = twins(params)
    b = presets.timm_rmsprop_tf(resumed, 5.0, momentum=0.9)
    b.load_state_dict(timms(a, **own))
    go_on([(a, params), (b, resumed)])
    assert all(torch.equal(p, q) for p, q in zip(params, resumed, strict=True))


@pytest.mark.parametrize("cls", [FusedRMSProp, presets.timm_rmsprop_tf], ids=["class", "preset"])
@pytest.mark.parametrize(
    ("own", "taken"),
    [
        (dict(caution=True), dict(caution=True)),
        (dict(decoupled_decay=True, corrected_weight_decay=True), dict(decoupled_weight_decay=True, corrected_weight_decay=True)),
        (dict(caution=True, corrected_weight_decay=True, momentum=0.0), dict(caution=False, corrected_weight_decay=False)),
    ],
    ids=["caution", "corrected", "without effect"],
)
def test_options_of_timm(cls, own, taken):
    """Its checkpoints bring them, and a snapshot of the rate with them."""
    given = {**dict(lr=0.1, momentum=0.9, weight_decay=0.1), **own}
    a, params = trained(given, cls=presets.timm_rmsprop_tf)
    b = cls(twins(params), lr=0.5)
    b.load_state_dict(timms(a, **{"decoupled_decay": False, **own}, max_lr_snapshot=0.1))
    assert {name: b.param_groups[0][name] for name in taken} == taken
    if taken.get("corrected_weight_decay"):
        assert b.param_groups[0]["max_lr_snapshot"] == 0.1


def test_what_timm_alone_has():
    params = parameters([(3,)])
    saved = {"state": {}, "param_groups": [dict(lr=0.1, eps=1e-8, weight_decay=0.0, caution=True, params=[0])]}
    with pytest.raises(ValueError, match="caution=True, which only optimizers of timm have"):
        FusedSMORMS3(params).load_state_dict(saved)


def test_a_buffer_with_lr_to_torch_and_back():
    """Divided by lr, torch goes on; its checkpoint is then one without lr, also of those who divide and forget the text."""
    convert = run_blocks("docs/migrating.md")["to_torch"]
    a, params = trained(dict(lr=0.01, momentum=0.9, lr_in_momentum=True, clip_weights=50.0))
    saved, others, back = a.state_dict(), twins(params), twins(params)
    theirs, ours = torch.optim.RMSprop(others), FusedRMSProp(back)
    theirs.load_state_dict(convert(through_a_file(saved)))
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    go_on([(a, params), (theirs, others), (ours, back)])
    assert_close(params, others, steps=3)
    assert_close(back, others, steps=3)
    assert not ours.param_groups[0]["lr_in_momentum"]
    assert ours.param_groups[0]["clip_weights"] == 50.0
    forgotten = through_a_file(theirs.state_dict())
    forgotten["param_groups"][0]["foreach"] = saved["param_groups"][0]["foreach"]
    with pytest.raises(ValueError, match="holds a momentum_buffer without lr"):
        FusedRMSProp(back, lr_in_momentum=True).load_state_dict(forgotten)
    ours.load_state_dict(forgotten)
    assert not ours.param_groups[0]["lr_in_momentum"]
    forgotten["param_groups"][0]["lr_in_momentum"] = True  # of those who have multiplied it again
    ours.load_state_dict(forgotten)
    assert ours.param_groups[0]["lr_in_momentum"]


def test_remedies_for_a_buffer_without_lr():
    """Those of the error: multiply it, or begin a new one."""
    theirs, others = trained(dict(lr=0.01, momentum=0.9), cls=torch.optim.RMSprop)
    make = dict(lr=0.01, momentum=0.9, eps_placement="outside", lr_in_momentum=True)
    saved = through_a_file(theirs.state_dict())
    for values in saved["state"].values():
        values["momentum_buffer"] *= 0.01
    saved["param_groups"][0]["lr_in_momentum"] = True
    params = twins(others)
    ours = FusedRMSProp(params, **make)
    ours.load_state_dict(saved)
    go_on([(ours, params), (theirs, others)])
    assert_close(params, others, steps=3)
    saved = through_a_file(theirs.state_dict())
    for values in saved["state"].values():
        values["momentum_buffer"].zero_()
    theirs.load_state_dict(saved)
    saved = through_a_file(theirs.state_dict())
    saved["param_groups"][0]["momentum"] = 0
    for values in saved["state"].values():
        values["momentum_buffer"].fill_(7)
    ours.load_state_dict(saved)
    ours.param_groups[0]["momentum"] = 0.9
    go_on([(ours, params), (theirs, others)])
    assert_close(params, others, steps=6)


def test_momentum_that_is_none_any_more():
    """nesterov goes with it; SMORMS3, which has neither option, takes torch's averages if its own are there."""
    theirs, params = trained({}, cls=torch.optim.RMSprop)
    ours = FusedRMSProp(params, momentum=0.9, nesterov=True)
    with pytest.warns(UserWarning, match="nesterov=False from now on"):
        ours.load_state_dict(theirs.state_dict())
    go_on([(ours, params)])
    saved = trained(dict(momentum=0.9), cls=torch.optim.RMSprop)[0].state_dict()
    for values in saved["state"].values():
        del values["momentum_buffer"]
    with pytest.raises(ValueError, match=r"but no '(mem|grad_avg)'"):
        FusedSMORMS3(params).load_state_dict(saved)
