"""apply_in_backward(norm_from="previous"): gradients that are freed at once, and bounded by the norm of the backward before."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gpu
from fusedrms import FusedRMSProp, FusedSMORMS3, apply_in_backward
from fusedrms.kernels import devices
from test_backward import loss as loss_of
from test_backward import models, same
from test_checkpoint import through_a_file
from tools import parameter, parameters

# with these a step subtracts the gradient: its change of a parameter shows what was used
PLAIN = dict(lr=1.0, alpha=1.0, eps=1.0)
LIMIT = 2.0


def started(n: int = 3, limit: float = LIMIT, **options):
    params = [parameter(torch.zeros(4)) for _ in range(n)]
    return params, apply_in_backward(params, FusedRMSProp, norm_from="previous", clip_grad_norm=limit, **PLAIN, **options)


def used(params, *norms: float | None) -> list[float]:
    """How long the gradients were that a backward used, of parameters whose own were so long; None: no gradient."""
    with torch.no_grad():
        for param in params:
            param.zero_()
    sum((param * (norm / 2)).sum() for param, norm in zip(params, norms, strict=True) if norm is not None).backward()
    return [float(param.detach().norm()) for param in params]


def expected(previous: float, *norms: float | None) -> list[float]:
    return [0.0 if norm is None else norm * min(1.0, LIMIT / max(previous, norm)) for norm in norms]


def length(*norms: float | None) -> float:
    return math.hypot(*(norm for norm in norms if norm is not None))


def close(found, wanted) -> bool:
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    return True


class Reference:
    """A step after each backward, whose gradients, or rates, are multiplied by the factor that was asked for, in float32."""

    def __init__(self, model, cls, limit, on="gradient", **options):
        self.params, self.limit, self.on, self.previous = list(model.parameters()), limit, on, None
        self.optimizer = cls([dict(params=[param]) for param in self.params], **options)
        self.lr = np.float32(self.optimizer.defaults["lr"])

    def step(self) -> torch.Tensor:
        """The norm of all gradients."""
        norms = []
        for param, group in zip(self.params, self.optimizer.param_groups, strict=True):
            alone = FusedRMSProp([param], lr=0.0, clip_grad_norm=math.inf)
            alone.step()
            norms.append(alone.last_grad_norm)
            bound = float(norms[-1] if self.previous is None else torch.maximum(norms[-1], self.previous))
            factor = min(np.float32(1), np.float32(self.limit) / np.float32(bound))
            if self.on == "gradient":
                param.grad.mul_(float(factor))
            else:
                group["lr"] = float(self.lr * factor)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.previous = torch.stack(norms).sort().values.norm()
        return self.previous


OPTIONS = {
    "plain": (FusedRMSProp, 0.3, {}),
    "everything": (FusedRMSProp, 3.0, dict(centered=True, momentum=0.9, weight_decay=0.1, bias_correction=True)),
    "update": (FusedRMSProp, 3.0, dict(on="update", momentum=0.9)),
    "SMORMS3": (FusedSMORMS3, 0.3, {}),
    "no limit": (FusedRMSProp, 1e9, {}),
}


@pytest.mark.parametrize(("cls", "limit", "options"), OPTIONS.values(), ids=OPTIONS)
def test_same_as_asked_for(cls, limit, options, device):
    """Bit for bit, over several steps, a weight that is used twice included."""
    ours, plain = models(device)
    reference = Reference(plain, cls, limit, **options)
    on = {"clip_norm_on": options["on"]} if "on" in options else {}
    own = {key: value for key, value in options.items() if key != "on"}
    optimizer = apply_in_backward(ours, cls, norm_from="previous", clip_grad_norm=limit, **own, **on)
    assert optimizer.last_grad_norm is None
    for seed in range(5):
        loss_of(ours, seed).backward()
        assert all(param.grad is None for param in ours.parameters())
        loss_of(plain, seed).backward()
        norm = reference.step()
        assert torch.equal(optimizer.last_grad_norm, norm)
        assert same(ours, plain)


def test_against_float64():
    """Written out in torch, with the norms that it computes."""
    (ours, plain), limit, previous, averages = models("cpu", torch.float64), 0.3, 0.0, {}
    apply_in_backward(ours, FusedRMSProp, norm_from="previous", lr=0.01, alpha=0.9, eps=1e-3, clip_grad_norm=limit)
    for seed in range(6):
        loss_of(ours, seed).backward()
        params = list(plain.parameters())
        grads = torch.autograd.grad(loss_of(plain, seed), params)
        with torch.no_grad():
            for param, grad in zip(params, grads, strict=True):
                g = grad * min(1.0, limit / max(previous, float(grad.norm())))
                averages[param] = 0.9 * averages.get(param, 0.0) + 0.1 * g * g
                param -= 0.01 * g / (averages[param].sqrt() + 1e-3)
        previous = math.hypot(*(float(grad.norm()) for grad in grads))
        for a, b in zip(ours.parameters(), params, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_its_effect():
    """A recurrent net whose gradients explode, less lr times each: NaN without, and trained with it."""

    def train(**options) -> float:
        torch.manual_seed(0)
        net, x = nn.RNN(3, 16, nonlinearity="relu"), torch.randn(40, 8, 3)
        net.weight_hh_l0.data *= 3
        apply_in_backward(net, FusedRMSProp, **{**PLAIN, "lr": 0.2}, **options)
        for _ in range(60):
            loss = (net(x)[0][-1].sum(1) - x.mean(0).sum(1)).square().mean()
            loss.backward()
        return loss.item()

    assert math.isnan(train())
    assert train(norm_from="previous", clip_grad_norm=1.0) < 0.01


def test_factors():
    """The first backward knows no other; then the norm before limits all; a parameter that is longer alone, itself."""
    params, optimizer = started()
    previous = 0.0
    for norms in [(1.0, 3.0, 4.0), (1.0, 3.0, 4.0), (0.1, 0.2, 0.3), (0.1, 0.2, 0.3), (1.0, 1e6, 0.5), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)]:
        found = used(params, *norms)
        assert close(found, expected(previous, *norms))
        assert max(found) <= LIMIT * (1 + 1e-6)
        previous = length(*norms)
        assert close(optimizer.last_grad_norm.item(), previous)


def test_without_gradients():
    """What has none in a backward does not count there, and is limited by the norm before where it has one again."""
    params, optimizer = started()
    previous = 0.0
    for norms in [(3.0, 4.0, 12.0), (3.0, None, None), (None, 4.0, 12.0), (None, 4.0, None), (3.0, None, None), (3.0, 4.0, 12.0)]:
        assert close(used(params, *norms), expected(previous, *norms))
        previous = length(*norms)
        assert close(optimizer.last_grad_norm.item(), previous)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite(bad):
    """It damages its own parameter, as without norm_from, and no other one, then or later; the norm shows it."""
    params, optimizer = started()
    used(params, 3.0, 4.0, 12.0)
    found = used(params, 3.0, bad, 12.0)
    assert close(found[::2], expected(13.0, 3.0, 12.0))
    assert params[1].isnan().any()
    assert not optimizer.last_grad_norm.isfinite()
    optimizer.state.clear()
    assert close(used(params, 3.0, 4.0, 5.0), expected(length(3.0, 12.0), 3.0, 4.0, 5.0))
    used(params, bad, bad, bad)
    optimizer.state.clear()
    assert close(used(params, 3.0, 4.0, 5.0), expected(0.0, 3.0, 4.0, 5.0))


def test_groups():
    """A group without a limit counts; one whose parameters are limited each by its own is not limited by that of all."""
    params = [parameter(torch.zeros(4)) for _ in range(3)]
    options = [{}, dict(clip_grad_norm=None), dict(clip_norm_over="parameter")]
    groups = [dict(params=[param], **own) for param, own in zip(params, options, strict=True)]
    apply_in_backward(groups, FusedRMSProp, norm_from="previous", clip_grad_norm=LIMIT, **PLAIN)
    used(params, 3.0, 4.0, 12.0)
    assert close(used(params, 1.0, 4.0, 1.0), [1.0 * LIMIT / 13, 4.0, 1.0])


class Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ArithmeticError("on purpose")


def test_a_backward_that_fails():
    """The next one knows what it has used."""
    params, optimizer = started(2)
    used(params, 3.0, 4.0)
    with torch.no_grad():
        params[0].fill_(10.0)
    with pytest.raises(ArithmeticError):
        (Fails.apply(params[0]) * params[1]).sum().backward()
    assert close(optimizer.last_grad_norm.item(), 20.0)
    for previous in (20.0, 5.0, 5.0):
        assert close(used(params, 3.0, 4.0), expected(previous, 3.0, 4.0))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_within(reentrant):
    """What they recompute is a part of the backward that they are in."""
    torch.manual_seed(0)
    layers, plain = (nn.ModuleList(nn.Linear(6, 6) for _ in range(4)) for _ in range(2))
    plain.load_state_dict(layers.state_dict())
    reference = Reference(plain, FusedRMSProp, 0.3)
    optimizer = apply_in_backward(layers, FusedRMSProp, norm_from="previous", clip_grad_norm=0.3)
    for _ in range(4):
        x = start = torch.randn(5, 6, requires_grad=True)
        for k, layer in enumerate(layers):
            x = checkpoint(layer, x, use_reentrant=reentrant) if k in (1, 2) else layer(x)
        x.square().sum().backward()
        nn.Sequential(*plain)(start).square().sum().backward()
        assert torch.equal(reference.step(), optimizer.last_grad_norm)
        assert same(layers, plain)


def test_gradients_that_step_finds():
    """They belong to the backward before, until one of their parameters comes again."""
    params, optimizer = started(2)
    for n in range(3):
        late = parameter(torch.zeros(4))
        optimizer.add_param_group(dict(params=[late]))
        previous = 13.0 if n else 0.0
        assert close(used(params, 3.0, 4.0), expected(previous, 3.0, 4.0))
        late.grad = torch.full((4,), 6.0)
        optimizer.step()
        assert close(late.norm().item(), expected(previous, 12.0)[0])
        assert close(optimizer.last_grad_norm.item(), 13.0)


def test_resume():
    """A checkpoint holds the norm: bit for bit on. Another one's has none: the next backward is as the first."""
    ours, again, other, fresh = models("cpu", n=4)
    options = dict(clip_grad_norm=0.3, momentum=0.9)
    first, second, third, last = (
        apply_in_backward(each, FusedRMSProp, norm_from="previous", **options) for each in (ours, again, other, fresh)
    )
    for seed in range(3):
        loss_of(ours, seed).backward()
    norm = first.last_grad_norm.item()
    loss_of(again, 7).backward()  # of another run
    saved = through_a_file(first.state_dict())
    assert json.loads(saved["param_groups"][0]["foreach"]) == {"clip_grad_norm": 0.3, "previous_norm": norm}
    again.load_state_dict(ours.state_dict())
    second.load_state_dict(saved)
    assert second.last_grad_norm is None
    assert second.state_dict()["param_groups"] == saved["param_groups"]
    for seed in (4, 5):
        loss_of(ours, seed).backward()
        loss_of(again, seed).backward()
        assert same(ours, again)
    usual = FusedRMSProp(copy.deepcopy(other).parameters(), **options)
    usual.load_state_dict(saved)
    assert "previous_norm" not in usual.state_dict()["param_groups"][0]["foreach"]
    loss_of(other, 8).backward()
    for model, optimizer in ((other, third), (fresh, last)):
        model.load_state_dict(ours.state_dict())
        optimizer.load_state_dict(usual.state_dict())
        loss_of(model, 9).backward()
    assert same(other, fresh)
    for wrong in ("NaN", "-1", '"long"'):
        damaged = copy.deepcopy(saved)
        damaged["param_groups"][0]["foreach"] = f'{{"previous_norm": {wrong}}}'
        with pytest.raises(ValueError, match=r"previous_norm.*not options in JSON"):
            first.load_state_dict(damaged)


def test_not_in_a_graph(monkeypatch):
    params, _ = started()
    monkeypatch.setattr(devices, "capturing", lambda: True)
    with pytest.raises(RuntimeError, match="norm_from='previous' is not supported in a CUDA graph"):
        used(params, 1.0, 1.0, 1.0)


@pytest.mark.gpu
def test_no_sync():
    params = parameters([(1000,), (70_000,)], gpu.DEVICE)
    apply_in_backward(params, FusedRMSProp, norm_from="previous", clip_grad_norm=0.1)
    for n in range(4):
        total = sum(param.sum() for param in params)
        gpu.module.set_sync_debug_mode("error" if n > 1 else "default")
        try:
            total.backward()
        finally:
            gpu.module.set_sync_debug_mode("default")
