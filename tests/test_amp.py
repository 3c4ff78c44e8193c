"""GradScaler and skip_nonfinite: the loss scale is taken away in the launch, and a step with a NaN or an infinity never was."""

import pytest
import torch

import gpu
from cases import MODES
from fusedrms import FusedRMSProp, FusedSMORMS3
from tools import copy_grads, parameters, random_grads, step_and_check, twins

pytestmark = [pytest.mark.interpret, pytest.mark.filterwarnings("ignore::RuntimeWarning")]  # NumPy's, in the interpreter
BAD = [float("nan"), float("inf"), float("-inf")]
USED = {
    "plain": (FusedRMSProp, {}),
    "everything": (FusedRMSProp, dict(centered=True, momentum=0.9, bias_correction=True, weight_decay=0.1, eps=1e-3)),
    "clip norm": (FusedRMSProp, dict(clip_grad_norm=0.1)),
    "clip value": (FusedRMSProp, dict(clip_grad_value=0.5)),
    "clip each norm": (FusedRMSProp, dict(clip_grad_norm=0.1, clip_norm_over="parameter")),
    "SMORMS3": (FusedSMORMS3, {}),
}
SHAPES = [(3, 5), (1030,), ()]


def scaler(device, **options):
    return torch.amp.GradScaler(device.type, **{"init_scale": 2.0**10, "growth_interval": 10**6, **options})


def everything(optimizer) -> list:
    """Bits of parameters, states and steps, which one optimizer may count on the device, another on the host."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    states = (state for param in params for state in sorted(optimizer.state[param].items()))
    return [*params, *(value.cpu() if name == "step" else value for name, value in states)]


def same(a, b) -> bool:
    return all(map(torch.equal, everything(a), everything(b)))


def copies(optimizer) -> list:
    return [tensor.detach().clone() for tensor in everything(optimizer)]


def scaled_grads(optimizer, scale) -> None:
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad *= scale.get_scale()


def pair(made, device, dtype=torch.float32, **more):
    cls, options = made
    params = parameters(SHAPES, device, dtype)
    return cls(params, **options, **more), cls(twins(params), **options, **more)


def grads(*optimizers) -> None:
    """The same for all."""
    first, *others = (optimizer.param_groups[0]["params"] for optimizer in optimizers)
    random_grads(first)
    for other in others:
        copy_grads(first, other)


@pytest.mark.parametrize("made", USED.values(), ids=USED)
def test_scaled_as_unscaled(made, device):
    """The scale is a power of two: not a bit differs."""
    with_scaler, without = pair(made, device)
    scale = scaler(device)
    scale.scale(torch.ones((), device=device))  # makes the scale
    for _ in range(3):
        grads(with_scaler, without)
        scaled_grads(with_scaler, scale)
        scale.step(with_scaler)
        scale.update()
        without.step()
        assert same(with_scaler, without)
    assert with_scaler.skipped_steps == 0
    assert with_scaler.last_grad_norm == without.last_grad_norm


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("made", USED.values(), ids=USED)
def test_infinite_gradient(made, bad, device):
    """Nothing changes; afterwards all goes on as if that step had not been."""
    with_scaler, without = pair(made, device)
    scale = scaler(device)
    scale.scale(torch.ones((), device=device))
    for round_ in range(4):
        grads(with_scaler, without)
        scaled_grads(with_scaler, scale)
        if round_ % 2:
            before = copies(with_scaler)
            with_scaler.param_groups[0]["params"][1].grad[-1] = bad
            scale.step(with_scaler)
            assert all(map(torch.equal, everything(with_scaler), before))
        else:
            scale.step(with_scaler)
            without.step()
        scale.update()
        assert same(with_scaler, without)
    assert with_scaler.skipped_steps == 2
    assert with_scaler.skipped_steps.device.type == device.type
    assert scale.get_scale() == 2.0**8


def test_unscaled_by_the_user(device):
    """unscale_ and torch's clipping before: the gradients are not unscaled again."""
    with_scaler, without = pair(USED["plain"], device)
    scale = scaler(device)
    scale.scale(torch.ones((), device=device))
    for _ in range(2):
        grads(with_scaler, without)
        scaled_grads(with_scaler, scale)
        scale.unscale_(with_scaler)
        for optimizer in (with_scaler, without):
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.5)
        scale.step(with_scaler)
        scale.update()
        without.step()
        assert same(with_scaler, without)


def test_several_optimizers(device):
    """The one with the infinite gradient alone is left out."""
    first, expected = pair(USED["plain"], device)
    second, _ = pair(USED["everything"], device)
    scale = scaler(device)
    scale.scale(torch.ones((), device=device))
    grads(first, expected)
    grads(second)
    for optimizer in (first, second):
        scaled_grads(optimizer, scale)
    second.param_groups[0]["params"][0].grad.fill_(float("inf"))
    before = [param.detach().clone() for param in second.param_groups[0]["params"]]
    scale.step(first)
    scale.step(second)
    scale.update()
    expected.step()
    assert same(first, expected)
    assert all(map(torch.equal, second.param_groups[0]["params"], before))
    assert (first.skipped_steps, second.skipped_steps) == (0, 1)


def test_each_without_the_other(device):
    """found_inf without grad_scale, and the other way about; and neither stays in force."""
    ours, expected = pair(USED["clip norm"], device)
    number = torch.tensor([4.0], device=device)
    for grad_scale, found_inf in ((None, 1.0), (number, None), (None, 0.0), (None, None), (number, 0.0), (None, None)):
        grads(ours, expected)
        if grad_scale is not None:
            for param in ours.param_groups[0]["params"]:
                param.grad *= grad_scale.item()
        ours.grad_scale = grad_scale
        ours.found_inf = None if found_inf is None else torch.tensor(found_inf, device=device)
        ours.step()
        if not found_inf:
            expected.step()
        del ours.grad_scale, ours.found_inf
        assert same(ours, expected)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("made", USED.values(), ids=USED)
def test_skip_nonfinite(made, bad, device):
    ours, expected = pair(made, device)
    ours.param_groups[0]["skip_nonfinite"] = True
    for k, param in enumerate([None, 0, None, 1, 2, None]):
        grads(ours, expected)
        if param is None:
            expected.step()
        else:
            ours.param_groups[0]["params"][param].grad.view(-1)[-1] = bad
        ours.step()
        assert same(ours, expected), k
    assert ours.skipped_steps == 3
    assert (ours.last_grad_norm is None) == (expected.last_grad_norm is None)


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_skip_nonfinite_in_all_modes(options, device):
    """The random bits too are those of a run without the steps that were left out."""
    ours, expected = pair((FusedRMSProp, dict(centered=True, momentum=0.9)), device, torch.bfloat16, **options)
    ours.param_groups[0]["skip_nonfinite"] = True
    for bad in (False, True, False, True, False):
        grads(ours, expected)
        if bad:
            ours.param_groups[0]["params"][1].grad[7] = float("nan")
        else:
            expected.step()
        ours.step()
        assert same(ours, expected)


@pytest.mark.parametrize("limit", [None, 1.0])
def test_skip_nonfinite_of_one_group(limit, device):
    """Whichever group asks for it, and whichever clips, the whole step is left out; large gradients are no reason."""
    params = parameters([(5,), (300,)], device)
    optimizer = FusedRMSProp([dict(params=params[:1], clip_grad_value=limit), dict(params=params[1:], skip_nonfinite=True)])
    random_grads(params)
    params[1].grad[3] = 1e18
    step_and_check(optimizer)
    before = copies(optimizer)
    params[0].grad[0] = float("inf")
    optimizer.step()
    assert all(map(torch.equal, everything(optimizer), before))
    assert optimizer.skipped_steps == 1


def test_skipped_first_step(device):
    """Also the first step of all: states are as they start."""
    for bad in BAD:
        params = parameters([(5,)], device)
        optimizer = FusedSMORMS3(params, skip_nonfinite=True)
        random_grads(params)
        params[0].grad[0] = bad
        before = params[0].detach().clone()
        optimizer.step()
        assert torch.equal(params[0], before)
        assert optimizer.state[params[0]]["step"] == 0
        random_grads(params)
        step_and_check(optimizer)


def test_checkpoint_after_a_skipped_step(device):
    ours, expected = pair(USED["everything"], device)
    ours.param_groups[0]["skip_nonfinite"] = expected.param_groups[0]["skip_nonfinite"] = True
    grads(ours, expected)
    ours.step()
    expected.step()
    ours.param_groups[0]["params"][0].grad.fill_(float("nan"))
    ours.step()
    expected.load_state_dict(ours.state_dict())
    assert same(ours, expected)
    grads(ours, expected)
    ours.step()
    expected.step()
    assert same(ours, expected)


def test_wrong_option():
    for options in (
        *(dict(skip_nonfinite=value) for value in (None, 2, "yes", 0.5)),
        dict(skip_nonfinite=True, clip_grad_norm=1.0, clip_grad_value=1.0),
    ):
        with pytest.raises(ValueError, match="skip_nonfinite"):
            FusedRMSProp(parameters([(1,)]), **options)


@pytest.mark.gpu
def test_no_sync():
    """Neither a scaler's step nor one that watches for itself waits for the GPU."""
    device = gpu.DEVICE
    with_scaler, watching = pair(USED["everything"], device)
    watching.param_groups[0]["skip_nonfinite"] = True
    scale = scaler(device)
    scale.scale(torch.ones((), device=device))
    for round_ in range(3):
        grads(with_scaler, watching)
        gpu.module.set_sync_debug_mode("error" if round_ else "default")
        try:
            scale.step(with_scaler)
            watching.step()
        finally:
            gpu.module.set_sync_debug_mode("default")
        scale.update()


def test_a_step_that_fails_leaves_nothing_of_the_scaler(device):
    """Neither the scale, which the next try would take away twice, nor the infinity, by which all later steps would be left out."""
    param = parameters([(5,)], device)
    other = twins(param)
    optimizer, plain = FusedRMSProp(param), FusedRMSProp(other)
    random_grads(param)
    used = scaler(device)
    used.scale(torch.ones((), device=device))
    param[0].grad.fill_(float("inf"))
    optimizer.param_groups[0]["momentum"] = -1
    with pytest.raises(ValueError, match="momentum"):
        used.step(optimizer)
    with pytest.raises(RuntimeError, match="closure"):
        used.step(optimizer, lambda: None)
    optimizer.param_groups[0]["momentum"] = 0
    random_grads(param)
    copy_grads(param, other)
    optimizer.step()
    plain.step()
    assert same(optimizer, plain)
