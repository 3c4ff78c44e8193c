"""Checkpoints in one process: which keys they have, torch's ways to load them, other optimizers and earlier versions."""

import copy
import io
import json
import subprocess
import sys
import tarfile

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

from cases import MODES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, presets
from fusedrms.planner import LoadPlanner
from ranks.exchange import OLD
from test_checkpoint import go_on, through_a_file, trained
from test_docs import run_blocks
from tools import assert_close, parameter, parameters, random_grads, set_grad, twins

FLATTENED = StateDictOptions(flatten_optimizer_state_dict=True)
CLASSES = {"RMSProp": (FusedRMSProp, dict(centered=True, momentum=0.9)), "Graves": (FusedRMSPropGraves, {}), "SMORMS3": (FusedSMORMS3, {})}
classes = pytest.mark.parametrize("made", CLASSES.values(), ids=CLASSES)


class Tied(nn.Module):
    """Two layers with one weight, and a parameter that is never trained."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.middle, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x):
        return self.head(self.middle(self.embedding(x)))


@classes
@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["float32", *MODES])
def test_keys_are_torchs(made, mode):
    """Whatever the mode and the options: what torch's loaders look for, and nothing that they do not know."""
    cls, options = made
    ours, _ = trained({**options, **mode, "clip_weights": 5.0}, torch.bfloat16, cls=cls)
    theirs, _ = trained(dict(centered=True, momentum=0.9), torch.bfloat16, cls=torch.optim.RMSprop)
    saved, expected = ours.state_dict(), theirs.state_dict()
    rule = {"grad_avg", "square_avg", "mem", "step"} if cls is FusedSMORMS3 else expected["state"][0].keys()
    masters = {"master_param"} if "master_weights" in mode else set()
    assert all(values.keys() == rule | masters for values in saved["state"].values())
    known = expected["param_groups"][0].keys() - ({"alpha", "momentum", "centered"} if cls is FusedSMORMS3 else set())
    assert saved["param_groups"][0].keys() == known
    assert all(rule | masters <= ours.state[param].keys() for param in ours.state)
    group = ours.param_groups[0]
    assert group.keys() == ours.defaults.keys() | {"params"} == {*group} == {**group}.keys()


@classes
@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["float32", *MODES])
def test_flattened(made, mode):
    """Saved and loaded by torch's functions, tied weights and a frozen one included: going on equals not stopping."""
    cls, options = made
    if torch.__version__.startswith("2.9.") and mode.get("state_dtype") == "8bit":
        pytest.skip("torch 2.9 asks a flattened checkpoint for scales, which have no names in it")
    models = [Tied().bfloat16() for _ in range(2)]
    optimizers = []
    for model, lr in zip(models, (1e-2, 7.0), strict=True):
        groups = [{"params": [model.embedding.weight, model.frozen]}, {"params": model.middle.parameters(), "weight_decay": 0.1}]
        optimizers.append(cls(groups, lr, **options, **mode, clip_grad_norm=1.0 if lr < 1 else None))
    params = [[param for param in model.parameters() if param.requires_grad] for model in models]
    for _ in range(3):
        random_grads(params[0])
        optimizers[0].step()
    state = through_a_file(get_optimizer_state_dict(models[0], optimizers[0], options=FLATTENED))
    models[1].load_state_dict(models[0].state_dict())
    set_optimizer_state_dict(models[1], optimizers[1], state, options=FLATTENED)
    assert [group["clip_grad_norm"] for group in optimizers[1].param_groups] == [1.0, 1.0]
    go_on(list(zip(optimizers, params, strict=True)))
    assert all(torch.equal(p, q) for p, q in zip(*params, strict=True))


def test_flattened_to_and_from_torch():
    model, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.load_state_dict(model.state_dict())
    theirs, ours = torch.optim.RMSprop(model.parameters(), momentum=0.9), FusedRMSProp(other.parameters(), momentum=0.5, clip_weights=50.0)
    for here, there, module, target in ((theirs, ours, model, other), (ours, theirs, other, model)):
        random_grads(list(module.parameters()))
        here.step()
        target.load_state_dict(module.state_dict())
        state = through_a_file(get_optimizer_state_dict(module, here, options=FLATTENED))  # torch's would share it
        set_optimizer_state_dict(target, there, state, options=FLATTENED)
        pairs = [(here, list(module.parameters())), (there, list(target.parameters()))]
        go_on(pairs)
        assert_close(pairs[0][1], pairs[1][1], steps=3)
    assert ours.param_groups[0]["clip_weights"] == 50.0
    assert ours.param_groups[0]["momentum"] == 0.9


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"foreach of parameter group 0 in the checkpoint is '\{', no JSON"),
        ("[1]", "no JSON of options: restore"),
        ("[" * 100_000, "no JSON of options: restore"),
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


@pytest.mark.parametrize(
    "make",
    [
        lambda params: presets.tensorflow_rmsprop(params, 0.1, momentum=0.9),
        lambda params: FusedRMSProp(params, 0.1, weight_decay=0.1, bias_correction=True, clip_weights=0.01),
        lambda params: FusedSMORMS3(params, weight_decay=0.1),
        lambda params: FusedRMSProp(params, 0.1, capturable=True, skip_nonfinite=True, clip_grad_norm=1.0),
    ],
)
def test_states_that_torch_asks_for(make):
    """Before a first step get_optimizer_state_dict makes them, and that is all."""
    models = [nn.Linear(5, 5) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [make(model.parameters()) for model in models]
    before = copy.deepcopy(models[0].state_dict())
    saved = get_optimizer_state_dict(models[0], optimizers[0])
    assert all(values["step"] == 0 for values in saved["state"].values())
    assert all(torch.equal(value, before[key]) for key, value in models[0].state_dict().items())
    assert optimizers[0].skipped_steps == 0
    go_on([(optimizer, list(model.parameters())) for optimizer, model in zip(optimizers, models, strict=True)])
    assert all(torch.equal(p, q) for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True))


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
        with pytest.raises(RuntimeError, match=rf"the {key} of params\[2\] that state_dict\(\) has returned was written"):
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


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage is deprecated")  # the latter of torch 2.9
def test_planner_begins_states_alone(tmp_path):
    """A model that has a tensor by the name of a state must find it in the checkpoint."""
    model = nn.Linear(3, 3)
    theirs, ours = torch.optim.RMSprop(model.parameters()), FusedRMSProp(model.parameters(), momentum=0.9, centered=True)
    random_grads(list(model.parameters()))
    theirs.step()
    dcp.save({"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, theirs)}, checkpoint_id=tmp_path)
    found = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, ours)}
    dcp.load(found, checkpoint_id=tmp_path, planner=LoadPlanner())
    assert all(values.keys() == {"step", "square_avg"} for values in found["optimizer"]["state"].values())
    model.register_buffer("momentum_buffer", torch.ones(3))
    with pytest.raises(dcp.api.CheckpointException, match=r"Missing key in checkpoint state_dict: model\.momentum_buffer"):
        dcp.load({"model": model.state_dict()}, checkpoint_id=tmp_path, planner=LoadPlanner())


@pytest.mark.parametrize("name", ["float32", "split_8bit", "graves", "smorms3"])
def test_version_0_1(name, tmp_path):
    """Its checkpoints load, and go on as it did, bit for bit."""
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
    assert all(torch.equal(param, expected) for param, expected in zip(params, saved["after"].values(), strict=True))


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


@pytest.mark.parametrize("option", ["caution", "corrected_weight_decay"])
def test_what_timm_alone_has(option):
    a, _ = trained(dict(lr=0.1), cls=presets.timm_rmsprop_tf)
    with pytest.raises(ValueError, match=f"{option}=True, which timm's optimizers alone have"):
        a.load_state_dict(timms(a, **{option: True}))


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


@pytest.mark.parametrize("copied", [lambda o, saved: o.param_groups[0].update(saved), None], ids=["updated", "added"])
def test_options_of_a_group_that_is_copied(copied):
    """From a checkpoint into a live group, as ZeroRedundancyOptimizer does, or into a new one; a constructor says what to do."""
    a, params = trained(dict(eps_placement="inside", clip_weights=5.0))
    saved = {key: value for key, value in a.state_dict()["param_groups"][0].items() if key != "params"}
    with pytest.raises(ValueError, match=r"foreach='.*clip_weights.*' is not supported: it is what a checkpoint has"):
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
