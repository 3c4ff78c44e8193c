"""apply_in_backward: the same as a step after the backward, without ever holding all gradients."""

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fusedrms import FusedRMSProp, FusedSMORMS3, apply_in_backward, presets

OPTIONS = {
    "plain": (FusedRMSProp, {}),
    "everything": (FusedRMSProp, dict(centered=True, momentum=0.9, weight_decay=0.1, bias_correction=True)),
    "clip": (FusedRMSProp, dict(clip_grad_norm=0.1, clip_norm_over="parameter", clip_grad_value=0.5)),
    "8-bit": (FusedRMSProp, dict(stochastic_rounding=True, state_dtype="8bit", momentum=0.9, seed=7)),
    "split": (FusedSMORMS3, dict(master_weights="split", state_dtype=torch.bfloat16, seed=0)),
}


def models(device, dtype=torch.float32, n=2):
    made = []
    for _ in range(n):
        torch.manual_seed(1)
        made.append(nn.Sequential(nn.Linear(40, 70), nn.Tanh(), nn.Linear(70, 3)).to(device, dtype))
        made[-1].append(nn.Linear(3, 3, bias=False).to(device, dtype))
        made[-1][-1].weight = nn.Parameter(made[-1][-1].weight.detach().clone())
    return made


def loss(model, seed):
    torch.manual_seed(seed)
    first = next(model.parameters())
    x = torch.randn(5, 40).to(first)
    return model[3](model[3](model[:3](x))).square().sum()  # the last layer is used twice


def same(a, b) -> bool:
    return all(map(torch.equal, a.parameters(), b.parameters()))


@pytest.mark.parametrize("made", OPTIONS.values(), ids=OPTIONS)
def test_same_as_a_step(made, device):
    cls, options = made
    lean = "state_dtype" in options
    ours, plain = models(device, torch.bfloat16 if lean else torch.float32)
    in_backward, optimizer = apply_in_backward(ours, cls, **options), cls(plain.parameters(), **options)
    schedules = [LambdaLR(one, lambda step: 0.9**step) for one in (in_backward, optimizer)]
    for seed in range(4):
        loss(ours, seed).backward()
        assert all(param.grad is None for param in ours.parameters())
        in_backward.step()
        loss(plain, seed).backward()
        optimizer.step()
        optimizer.zero_grad()
        for schedule in schedules:
            schedule.step()
        assert same(ours, plain)


def test_resume(device):
    """Checkpoints go both ways between it and a plain optimizer."""
    ours, plain, again = models(device, n=3)
    options = dict(momentum=0.9, centered=True)
    in_backward, optimizer = apply_in_backward(ours, FusedRMSProp, **options), FusedRMSProp(plain.parameters(), **options)
    loss(plain, 0).backward()
    optimizer.step()
    optimizer.zero_grad()
    loss(ours, 1).backward()  # of another run
    ours.load_state_dict(plain.state_dict())
    in_backward.load_state_dict(optimizer.state_dict())
    for seed in (2, 3):
        loss(ours, seed).backward()
        loss(plain, seed).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert same(ours, plain)
    resumed = FusedRMSProp(again.parameters(), **options)
    again.load_state_dict(ours.state_dict())
    resumed.load_state_dict(in_backward.state_dict())
    loss(again, 4).backward()
    resumed.step()
    loss(ours, 4).backward()
    assert same(ours, again)


PREVIOUS = dict(norm_from="previous", clip_grad_norm=1.0)


@pytest.mark.parametrize("options", [{}, PREVIOUS], ids=["plain", "norm_from"])
def test_memory_of_gradients(options):
    """When a gradient is complete, all before it have been freed."""
    model = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(8)])
    alive, most = set(), []

    def seen(param):
        alive.add(param)
        most.append(sum(other.grad is not None for other in alive))

    for param in model.parameters():
        param.register_post_accumulate_grad_hook(seen)
    apply_in_backward(model, FusedRMSProp, **options)
    for _ in range(2):
        model(torch.randn(2, 64)).sum().backward()
    assert len(most) == 16
    assert max(most) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(clip_grad_norm=1.0), "use norm_from='previous', clip_norm_over='parameter'"),
        (dict(skip_nonfinite=True), "skip_nonfinite=True"),
        (dict(skip_above=(5.0, 128)), r"skip_above=\(5.0, 128\) needs the norm of all gradients.*leave it None"),
        (dict(lr=-1), "learning rate"),
        (dict(PREVIOUS, norm_from="last"), "norm_from='last' is not supported: it must be 'previous'"),
        (dict(PREVIOUS, norm_from=True), "norm_from=True is not supported"),
        (dict(norm_from="previous"), "norm_from='previous' has no effect: set clip_grad_norm"),
        (dict(norm_from="previous", clip_grad_norm=math.inf), "has no effect: set clip_grad_norm"),
        (dict(PREVIOUS, clip_norm_over="parameter"), "has no effect: set clip_grad_norm"),
        (dict(PREVIOUS, skip_nonfinite=True), "skip_nonfinite=True"),
        (dict(PREVIOUS, clip_grad_norm=-1.0), "clip_grad_norm=-1.0"),
    ],
)
def test_excluded(options, message):
    (model,) = models("cpu", n=1)
    with pytest.raises(ValueError, match=message):
        apply_in_backward(model, FusedRMSProp, **options)
    loss(model, 0).backward()  # no hook was left behind
    assert all(param.grad is not None for param in model.parameters())


@pytest.mark.parametrize("options", [dict(clip_grad_norm=0.1, clip_norm_over="parameter"), dict(clip_grad_norm=math.inf)], ids=str)
def test_norm_memory_and_release(options):
    """As of an optimizer whose tables are in one place."""
    ours, plain = models("cpu")
    in_backward, optimizer = apply_in_backward(ours, FusedRMSProp, **options), FusedRMSProp(plain.parameters(), **options)
    assert in_backward.last_grad_norm is None
    for seed in range(3):
        loss(ours, seed).backward()
        loss(plain, seed).backward()
        optimizer.step()
        torch.testing.assert_close(in_backward.last_grad_norm, optimizer.last_grad_norm)
        assert in_backward.memory().tables > optimizer.memory().tables > 0
        in_backward.release()
        assert in_backward.memory().tables == 0
        assert same(ours, plain)
        optimizer.zero_grad()


def test_an_optimizer_that_takes_over():
    (model,) = models("cpu", n=1)
    first = apply_in_backward(model, FusedRMSProp)
    second = apply_in_backward(model, presets.keras_rmsprop)
    loss(model, 0).backward()
    assert not first.state
    assert {float(state["step"]) for state in second.state.values()} == {1.0}


def test_excluded_later():
    (model,) = models("cpu", n=1)
    optimizer = apply_in_backward(model, FusedRMSProp)
    optimizer.param_groups[0]["clip_grad_norm"] = 1.0
    before = [param.detach().clone() for param in model.parameters()]
    with pytest.raises(ValueError, match="clip_norm_over='parameter'"):
        loss(model, 0).backward()
    assert all(map(torch.equal, model.parameters(), before))


def test_grad_scaler():
    (model,) = models("cpu", n=1)
    optimizer = apply_in_backward(model, FusedRMSProp)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss(model, 0)).backward()
    with pytest.raises(RuntimeError, match="GradScaler"):
        scaler.step(optimizer)


def test_frozen_cleared_and_added():
    """Frozen parameters have no hooks, cleared states begin anew, and step() updates groups that were added later."""
    ours, plain = models("cpu")
    for model in (ours, plain):
        model[0].requires_grad_(False)
        model[0].bias.requires_grad_(True)
    late = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    in_backward, optimizer = apply_in_backward(ours, FusedRMSProp, momentum=0.9), FusedRMSProp(plain.parameters(), momentum=0.9)
    for seed in range(4):
        if seed == 1:
            for each, param in zip((in_backward, optimizer), late, strict=True):
                each.add_param_group(dict(params=[param], lr=0.1))
        if seed == 2:
            for each in (in_backward, optimizer):
                each.state.clear()
        for model, each, param in zip((ours, plain), (in_backward, optimizer), late, strict=True):
            (loss(model, seed) + (param * param).sum()).backward()
            each.step()
            each.zero_grad()
        assert same(ours, plain)
        assert torch.equal(*late)
    assert {float(state["step"]) for state in in_backward.state.values()} == {2.0}


def test_what_cannot_step_in_a_backward(monkeypatch):
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"torch\.optim\.\S*RMSprop.*FusedRMSProp"):
        apply_in_backward(model, torch.optim.RMSprop)
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    with pytest.raises(ValueError, match="fully_shard"):
        apply_in_backward(wrapped, FusedRMSProp)
    assert not any(param._post_accumulate_grad_hooks for param in model.parameters())
