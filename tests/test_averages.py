"""The averages of parameters: what they are, parameters that hold them for a while, and checkpoints with and without them."""

import copy
import io
import pickle

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import gpu
from averages_tools import averages, same, trained
from cases import BF16, F32, MODES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, apply_in_backward, export_master
from mode_tools import modes
from tools import exact, natively, parameters, random_grads, set_grad, twins

CLASSES = (FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3)


@natively
@pytest.mark.parametrize("cls", CLASSES)
def test_as_torch(cls):
    """torch's averaged model, which takes the parameters as they are when it is first updated."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(33, 5), torch.nn.Tanh(), torch.nn.Linear(5, 70))
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    reference.update_parameters(model)
    optimizer = cls(model.named_parameters(), ema_decay=0.9)
    for _ in range(20):
        random_grads(model.parameters())
        optimizer.step()
        reference.update_parameters(model)
    for (name, param, average), (known, own), other in zip(
        optimizer.averages(), model.named_parameters(), reference.module.parameters(), strict=True
    ):
        assert (name, param is own) == (known, True)
        torch.testing.assert_close(average, other.detach(), rtol=2e-6, atol=1e-7)
        assert not torch.equal(average, param)


@natively
def test_warming_up_as_tensorflow():
    """min(decay, (1 + t) / (10 + t)) of the steps that a parameter has made, whatever the others have."""
    params = parameters([(3,), (3,)], dtype=torch.float64)
    optimizer = FusedRMSProp(params, ema_decay=0.4, ema_warmup=True)
    expected, steps = [exact(param) for param in params], [0, 0]
    for k in range(12):
        random_grads(params)
        if k % 3 == 1:
            params[1].grad = None
        optimizer.step()
        for n, param in enumerate(params):
            if param.grad is not None:
                steps[n] += 1
                decay = min(0.4, (1 + steps[n]) / (10 + steps[n]))
                expected[n] = decay * expected[n] + (1 - decay) * exact(param)
    assert steps == [12, 8]
    for average, value in zip(averages(optimizer), expected, strict=True):
        torch.testing.assert_close(average, torch.from_numpy(value), rtol=1e-14, atol=0)


@pytest.mark.interpret
@modes
def test_of_the_master(mode):
    """Float32 for 16-bit parameters, of what they are rounded from, and masters of 24 bits."""
    optimizer, params = trained(dtype=BF16, steps=0, **mode)
    expected = [param.detach().float() for param in params]
    for _ in range(3):
        random_grads(params)
        optimizer.step()
        masters = dict(export_master(optimizer))
        expected = [average.lerp(masters[param], 0.25) for average, param in zip(expected, params, strict=True)]
    for average, value, param in zip(averages(optimizer), expected, params, strict=True):
        assert average.dtype == F32
        unit = {None: 2.0**-7, "split24": 2.0**-15}.get(mode.get("master_weights"), 0.0)
        rounded = unit * param.detach().abs().max().item() if param.numel() else 0
        torch.testing.assert_close(average, value, rtol=1e-6, atol=1e-6 + rounded)


@natively
@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["none", *MODES])
def test_costs_no_bit(mode):
    """The run is the one without averages."""
    dtype = BF16 if mode else F32
    with_, params = trained(dtype=dtype, **mode, ema_warmup=True)
    without, others = trained(dtype=dtype, **{**mode, "ema_decay": None})
    assert same(params, others)
    for param, other in zip(params, others, strict=True):
        kept = {key: value for key, value in with_.state[param].items() if key != "param_ema"}
        assert kept.keys() == without.state[other].keys()
        assert same(kept.values(), without.state[other].values())


def test_an_infinite_parameter():
    """A mask of -inf stays one, where inf - inf would be NaN."""
    param = torch.nn.Parameter(torch.tensor([-torch.inf, 1.0]))
    optimizer = FusedRMSProp([param], ema_decay=0.5)
    for _ in range(2):
        set_grad(param, torch.tensor([0.0, 1.0]))
        optimizer.step()
    (average,) = averages(optimizer)
    assert average[0] == -torch.inf
    assert param[1] < average[1] < 1


@natively
def test_groups():
    """Of the groups that ask for it; parameters that have made no step have none, and stay as they are."""
    a, b, c, d = parameters([(3,)] * 4)
    optimizer = FusedRMSProp([dict(params=[a, b], ema_decay=0.5), dict(params=[c]), dict(params=[d], ema_decay=0.0)])
    with optimizer.averaged():  # nothing has an average yet
        pass
    random_grads([a, c, d])
    optimizer.step()
    assert [(name, param is own) for (name, param, _), own in zip(optimizer.averages(), (a, d), strict=True)] == [
        ("params[0]", True),
        ("params[3]", True),
    ]
    assert "param_ema" not in optimizer.state[c]
    assert torch.equal(optimizer.state[d]["param_ema"], d)
    own = c.detach().clone()
    with optimizer.averaged():
        assert torch.equal(c, own)
    with pytest.raises(RuntimeError, match="no parameter group has an ema_decay, so there are no averages: make"):
        next(FusedRMSProp([a]).averages())
    with pytest.raises(RuntimeError, match="no parameter group has an ema_decay"), FusedRMSProp([a]).averaged():
        pass


@natively
def test_changes_between_steps():
    """A decay may change; an average that is asked for later begins with the parameter of that step."""
    optimizer, (param,) = trained(shapes=[(5,)], ema_decay=None)
    optimizer.param_groups[0]["ema_decay"] = 0.5
    before = param.detach().clone()
    random_grads([param])
    optimizer.step()
    torch.testing.assert_close(averages(optimizer)[0], (before + param.detach()) / 2)
    optimizer.param_groups[0]["ema_decay"] = 1.0  # stands still
    kept = averages(optimizer)[0].clone()
    random_grads([param])
    optimizer.step()
    assert torch.equal(averages(optimizer)[0], kept)


@natively
@pytest.mark.parametrize(("dtype", "mode"), [(F32, {}), (BF16, MODES["split, 8-bit state"]), (BF16, MODES["master"])], ids=str)
@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy"])
def test_goes_on(dtype, mode, way):
    """From a checkpoint, a pickle and a copy, bit for bit, the warm-up too; the optimizer that loads need not know of averages."""
    optimizer, params = trained(dtype=dtype, **mode, ema_decay=0.9, ema_warmup=True)
    if way == "file":
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        others = twins(params)
        again = FusedRMSProp(others, **mode)
        again.load_state_dict(torch.load(file, weights_only=True))
    else:
        again = pickle.loads(pickle.dumps(optimizer)) if way == "pickle" else copy.deepcopy(optimizer)
        others = again.param_groups[0]["params"]
    assert (again.param_groups[0]["ema_decay"], again.param_groups[0]["ema_warmup"]) == (0.9, True)
    for _ in range(2):
        random_grads(params)
        for param, other in zip(params, others, strict=True):
            set_grad(other, param.grad.clone())
        optimizer.step()
        again.step()
    assert same(params, others)
    assert same(averages(optimizer), averages(again))


@natively
def test_checkpoints_without_averages():
    """Those of torch's optimizer, and of ours without: the average begins with the next step, from the parameter then."""
    params = parameters([(5,)])
    theirs = torch.optim.RMSprop(params)
    random_grads(params)
    theirs.step()
    ours = FusedRMSProp(params, ema_decay=0.5)
    ours.load_state_dict(theirs.state_dict())
    assert "param_ema" not in ours.state[params[0]]
    with torch.no_grad():
        params[0].fill_(3.0)  # the model is loaded after the optimizer
    random_grads(params)
    ours.step()
    torch.testing.assert_close(averages(ours)[0], (3 + params[0].detach()) / 2)
    theirs.load_state_dict(ours.state_dict())  # which keeps it as a state of its own
    random_grads(params)
    theirs.step()


@natively
def test_state_dict_before_the_next_step():
    """An average that was asked for since the last step is in the checkpoint as the next step would begin it."""
    optimizer, params = trained(dtype=BF16, master_weights="split", ema_decay=None)
    optimizer.param_groups[0]["ema_decay"] = 0.5
    masters = dict(export_master(optimizer))
    saved = optimizer.state_dict()["state"]
    assert same([saved[k]["param_ema"] for k in range(len(params))], [masters[param] for param in params])


@natively
def test_in_a_backward():
    """As with a step after the backward; not within averaged()."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    plain = copy.deepcopy(model)
    optimizer, expected = apply_in_backward(model, FusedRMSProp, ema_decay=0.5), FusedRMSProp(plain.parameters(), ema_decay=0.5)
    x = torch.randn(4, 3)
    for _ in range(3):
        model(x).square().mean().backward()
        expected.zero_grad()
        plain(x).square().mean().backward()
        expected.step()
    assert same(averages(optimizer), averages(expected))
    own = [param.detach().clone() for param in model.parameters()]
    with optimizer.averaged(), pytest.raises(RuntimeError, match=r"within averaged\(\)"):
        model(x).square().mean().backward()
    assert same(model.parameters(), own)


@natively
def test_memory():
    optimizer, _ = trained(momentum=0.9)
    assert optimizer.memory().per_parameter["param_ema"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(ema_decay=-0.1), "ema_decay value: -0.1; it must be a finite number >= 0"),
        (dict(ema_decay=1.5), "ema_decay=1.5 is not supported: it must be a number from 0 to 1, or None"),
        (dict(ema_decay=float("nan")), "ema_decay value: nan"),
        (dict(ema_decay=float("inf")), "ema_decay value: inf"),
        (dict(ema_decay="0.9"), "ema_decay value: '0.9' is a str; pass a number"),
        (dict(ema_decay=torch.tensor([0.5, 0.5])), r"Tensor ema_decay must be 1-element, got shape \(2,\)"),
        (dict(ema_decay=10**400), "ema_decay value: an integer above"),
        (dict(ema_decay=[0.9]), r"ema_decay value: \[0.9\] is a list"),
        (dict(ema_warmup=True), "ema_warmup=True needs an average, but ema_decay=None: set ema_decay"),
        (dict(ema_decay=0.9, ema_warmup="yes"), "ema_warmup='yes' is not supported: it must be True or False"),
        (dict(ema_decay=0.9, ema_warmup=2), "ema_warmup=2 is not supported"),
    ],
    ids=str,
)
@pytest.mark.parametrize("cls", CLASSES)
def test_wrong_options(cls, options, message):
    (param,) = parameters([(3,)])
    with pytest.raises((ValueError, TypeError), match=message):
        cls([param], **options)
    optimizer = cls([param])
    optimizer.param_groups[0].update(options)
    random_grads([param])
    before = param.detach().clone()
    with pytest.raises((ValueError, TypeError), match=message):
        optimizer.step()
    assert torch.equal(param, before)
    assert not optimizer.state


@pytest.mark.gpu
@pytest.mark.parametrize("counted", ["on the host", "on the device"])
def test_on_a_gpu(counted):
    """The warm-up's weight, where the host counts steps and where only the device does."""
    options = dict(ema_decay=0.5, ema_warmup=True, capturable=counted == "on the device")
    params = parameters([(1000,), (3,)], gpu.DEVICE)
    optimizer = FusedRMSProp(params, **options)
    expected = [exact(param) for param in params]
    for step in range(1, 12):
        random_grads(params)
        optimizer.step()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * value + (1 - decay) * exact(param) for value, param in zip(expected, params, strict=True)]
    for average, value in zip(averages(optimizer), expected, strict=True):
        torch.testing.assert_close(average.cpu().double(), torch.from_numpy(value), rtol=1e-5, atol=1e-6)
