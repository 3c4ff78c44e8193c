"""What torch.optim promises: signature, validation, groups, closures, hooks, schedulers."""

import copy
import gc
import inspect
import weakref

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from fusedrms import FusedRMSProp
from tools import assert_close, parameter, parameters, random_grads, step_and_check, step_both, twins


def pair(shapes=((3, 4), (5,)), device="cpu", **options):
    ours = parameters(shapes, device)
    theirs = twins(ours)
    own = copy.deepcopy(options)  # a tensor lr is changed in place by some versions' schedulers
    return FusedRMSProp(ours, **options), torch.optim.RMSprop(theirs, **own), ours, theirs


def test_signature():
    """Changing one name in a user's code must work, positional arguments included; what torch lacks is passed by name."""
    mine, torchs = (list(inspect.signature(cls).parameters.values()) for cls in (FusedRMSProp, torch.optim.RMSprop))
    for ours, theirs in zip(mine, torchs, strict=False):
        assert (ours.name, ours.default, ours.kind) == (theirs.name, theirs.default, theirs.kind)
    assert all(ours.kind is ours.KEYWORD_ONLY for ours in mine[len(torchs) :])


@pytest.mark.parametrize("value", [-1.0, float("nan"), -1e-30])
@pytest.mark.parametrize("option", ["lr", "alpha", "eps", "weight_decay", "momentum"])
def test_validation(option, value):
    params = parameters([(2,)])
    with pytest.raises(ValueError, match="Invalid") as theirs:
        torch.optim.RMSprop(params, **{option: value})
    with pytest.raises(ValueError, match=str(theirs.value)):
        FusedRMSProp(params, **{option: value})
    with pytest.raises(ValueError, match=str(theirs.value)):
        FusedRMSProp([dict(params=params, **{option: value})])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(lr=torch.tensor([0.1, 0.2])), "Tensor lr must be 1-element"),
        (dict(lr="fast"), "learning rate"),
        (dict(alpha=None), "alpha"),
        (dict(capturable="yes"), "capturable='yes'"),
        (dict(differentiable=True), r"torch\.optim\.RMSprop"),
    ],
)
def test_unsupported_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FusedRMSProp(parameters([(2,)]), **options)


def test_accepted_without_effect():
    for foreach in (None, False, True):
        a, b, *params = pair(foreach=foreach)
        step_both(a, b, *params)
        assert_close(*params, steps=1)


def test_parameter_collections():
    model = torch.nn.Linear(3, 2)
    assert len(FusedRMSProp(model.parameters()).param_groups[0]["params"]) == 2
    assert FusedRMSProp(model.named_parameters()).param_groups[0]["param_names"] == ["weight", "bias"]
    for wrong, error in (([], ValueError), (model.weight, TypeError), ([1.0], TypeError), ([dict(params={model.weight})], TypeError)):
        with pytest.raises(error):
            FusedRMSProp(wrong)
    with pytest.raises(ValueError, match="twice"):
        FusedRMSProp([model.weight, model.weight])
    with pytest.raises(ValueError, match="more than one"):
        FusedRMSProp([dict(params=[model.weight]), dict(params=[model.weight])])
    with pytest.raises(ValueError, match="non-leaf"):
        FusedRMSProp([model.weight * 2])


def test_add_param_group(device):
    a, b, ours, theirs = pair(device=device, momentum=0.9)
    step_both(a, b, ours, theirs, 2)
    more = parameters([(7,)], device)
    more_twins = twins(more)
    a.add_param_group(dict(params=more, lr=1e-3, centered=True))
    b.add_param_group(dict(params=more_twins, lr=1e-3, centered=True))
    step_both(a, b, ours + more, theirs + more_twins, 2)
    assert_close(ours + more, theirs + more_twins, steps=4)
    with pytest.raises(ValueError, match="Invalid momentum"):
        a.add_param_group(dict(params=parameters([(1,)]), momentum=-1))
    same = parameters([(1,)])
    with pytest.raises(ValueError, match="twice"):
        a.add_param_group(dict(params=same * 2))
    assert len(a.param_groups) == 2


def test_closure_and_hooks(device):
    param = parameter(torch.tensor([3.0], device=device))
    optimizer = FusedRMSProp([param])
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))

    def closure():
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        calls.append("closure")
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert calls == ["pre", "closure", "post"]
    assert param.item() < 3
    assert optimizer.step() is None


def test_zero_grad(device):
    a, b, ours, theirs = pair(device=device)
    for set_to_none in (True, False, False, True):
        step_both(a, b, ours, theirs)
        for optimizer in (a, b):
            optimizer.zero_grad(set_to_none=set_to_none)
        assert all((p.grad is None) == set_to_none for p in ours)
        a.step()
        b.step()
    assert_close(ours, theirs, steps=8)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_tensor_lr(device, shape):
    """Read anew at every step, changed in place or replaced."""
    a, b, ours, theirs = pair(device=device)
    lr = torch.full(shape, 0.1, device=device)
    for optimizer in (a, b):
        optimizer.param_groups[0]["lr"] = lr
    for value in (None, 0.01, 0.0, 0.5):
        if value is not None:
            lr.fill_(value)
        step_both(a, b, ours, theirs)
        assert_close(ours, theirs, steps=5)
    for optimizer in (a, b):
        optimizer.param_groups[0]["lr"] = 0.0
    before = [p.detach().clone() for p in ours]
    step_both(a, b, ours, theirs)
    assert all(torch.equal(p, q) for p, q in zip(ours, before, strict=True))


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda e: 0.9**e),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda e: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.3, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.3, total_iters=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 6, 2),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 1e-2, step_size_up=2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 1e-2, total_steps=10),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)], [3]),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)]),
}


def test_every_scheduler_is_here():
    ignored = {"LRScheduler", "SWALR"}  # the base class; one for averaged models
    assert set(lr_scheduler.__all__) - ignored == set(SCHEDULERS)


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedulers(device, scheduler, tensor_lr):
    """OneCycleLR and CyclicLR drive momentum too."""
    a, b, ours, theirs = pair(device=device, momentum=0.5, lr=torch.tensor(1e-2, device=device) if tensor_lr else 1e-2)
    schedules = scheduler(a), scheduler(b)
    for step in range(8):
        step_both(a, b, ours, theirs)
        for schedule in schedules:
            schedule.step(*([1.0 + step] if isinstance(schedule, lr_scheduler.ReduceLROnPlateau) else []))
        assert float(a.param_groups[0]["lr"]) == float(b.param_groups[0]["lr"])
        assert a.param_groups[0]["momentum"] == b.param_groups[0]["momentum"]
        assert_close(ours, theirs, steps=step + 1)


def test_momentum_switched_on_and_off():
    a, _, ours, _ = pair()
    for momentum in (0.0, 0.9, 0.9, 0.0, 0.5):
        a.param_groups[0]["momentum"] = momentum
        random_grads(ours)
        step_and_check(a)


def test_autograd_notices():
    """A value saved for backward and then updated must be an error, as with any in-place operation of torch."""
    param = parameter(torch.ones(3))
    loss = (param * param).sum()
    loss.backward(retain_graph=True)
    FusedRMSProp([param]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_trains(device):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).to(device)
    x = torch.randn(256, 8, device=device)
    y = x.prod(dim=1, keepdim=True).sign()
    optimizer = FusedRMSProp(model.parameters(), lr=3e-3, centered=True, momentum=0.5)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(("option", "value"), [("weight_decay", None), ("lr", "x"), ("alpha", torch.ones(2)), ("lr", torch.ones(2))])
def test_wrong_number_in_a_later_group_changes_nothing(option, value):
    params = parameters([(3,), (4,)])
    optimizer = FusedRMSProp([dict(params=[p]) for p in params])
    random_grads(params)
    optimizer.step()
    before = [p.detach().clone() for p in params]
    optimizer.param_groups[1][option] = value
    with pytest.raises((TypeError, ValueError), match=rf"parameter group 1: .*({option}|learning rate)"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert optimizer.state[params[0]]["step"].item() == 1


@pytest.mark.parametrize("change", ["nothing", "data", "swap"])
def test_autograd_sees_the_update(change):
    """What backward has saved is known to be gone, also when the parameter has come to be another tensor since the last step."""
    param = parameter(torch.ones(5))
    optimizer = FusedRMSProp([param])
    param.grad = torch.ones(5)
    optimizer.step()
    if change == "data":
        param.data = torch.full((5,), 2.0)
    elif change == "swap":
        torch.utils.swap_tensors(param, parameter(torch.full((5,), 2.0)))
    param.grad = torch.ones(5)
    loss = (param * param).sum()
    version = param._version
    optimizer.step()
    assert param._version == version + 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_parameters_memory_is_given_back():
    """What counts versions keeps no memory that a parameter has left."""
    memory = np.ones(5, np.float32)
    param = parameter(torch.from_numpy(memory))
    left = weakref.ref(memory)
    del memory
    optimizer = FusedRMSProp([param])
    param.grad = torch.ones(5)
    optimizer.step()
    assert left() is not None
    param.data = torch.zeros(5)
    gc.collect()
    assert left() is None
