"""skip_above: a step whose norm is a spike beside the last accepted ones never was."""

import math

import numpy as np
import pytest
import torch

import gpu
from cases import BF16
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from test_amp import copies, everything, pair, same
from tools import copy_grads, parameters, params_of, random_grads, set_grad, twins

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the interpreter
ABOVE = (3.0, 6)
USED = {
    "plain": (FusedRMSProp, {}),
    "clip norm": (FusedRMSProp, dict(clip_grad_norm=0.1, momentum=0.9)),
    "clip each norm": (FusedRMSPropGraves, dict(clip_grad_norm=0.1, clip_norm_over="parameter")),
    "clip update": (FusedRMSProp, dict(clip_grad_norm=0.1, clip_norm_on="update", clip_grad_value=1e-3)),
    "clip value": (FusedRMSProp, dict(clip_grad_value=1e-3, rescale_grad=0.5, bias_correction=True)),
    "SMORMS3": (FusedSMORMS3, {}),
}
# a warm-up, spikes before there is a median and after, one as soon as there may be one, and norms that come down
NORMS = [900.0, 5.0, 700.0, 4.0, 3.0, 50.0, 3.0, 2.0, 90.0, 5.0, 1e9, 4.0, 12.0, 3.0, 40.0, 0.5, 1.0, 0.25, 1.0, 1e-4, 30.0, 2.0, 1.0]


def is_spike(accepted: list[float], norm: float, option: tuple[float, int] = ABOVE) -> bool:
    """In float64: above a multiple of the lower median of the last accepted ones, of which at least half of a window must be there."""
    factor, window = option
    last = accepted[-window:]
    if 2 * len(last) < window:
        return False
    middle = math.ceil(window / 2) - 1  # of the norms and of as many infinities as are missing
    return norm > factor * np.sort(np.array(last + [np.inf] * (window - len(last))))[middle]


def give(params, norm: float) -> None:
    """Random gradients of this norm, to rounding."""
    random_grads(params)
    total = math.sqrt(sum(float(param.grad.double().square().sum()) for param in params if param.grad is not None))
    for param in params:
        param.grad *= norm / total


def window(optimizer) -> list[float]:
    return optimizer._run.accepted()


def made(device="cpu", **options):
    params = parameters([(3, 5), (1030,)], device, BF16)
    return FusedRMSProp(params, **{**dict(momentum=0.9, stochastic_rounding=True, skip_above=ABOVE, seed=3), **options})


def go_on(optimizers, norms) -> None:
    """Steps of the same gradients, after each of which all are the same."""
    first, *others = optimizers
    for norm in norms:
        give(params_of(first), norm)
        for other in others:
            copy_grads(params_of(first), params_of(other))
        for optimizer in optimizers:
            optimizer.step()
        for other in others:
            assert same(first, other)
            assert window(first) == window(other)


@pytest.mark.interpret
@pytest.mark.parametrize("made", USED.values(), ids=USED)
@pytest.mark.parametrize("option", [ABOVE, (2, 5), (1.5, 2)])
def test_as_reference(made, option, device):
    """Which steps are left out, and that the others are those of an optimizer that never saw these."""
    ours, expected = pair(made, device)
    ours.param_groups[0]["skip_above"] = option
    accepted, n_left_out = [], 0
    for norm in NORMS:
        give(params_of(ours), norm)
        copy_grads(params_of(ours), params_of(expected))
        before = copies(ours)
        ours.step()
        found = ours.last_grad_norm.item()
        np.testing.assert_allclose(found, norm * made[1].get("rescale_grad", 1.0), rtol=1e-5)
        if is_spike(accepted, found, option):
            n_left_out += 1
            assert all(map(torch.equal, everything(ours), before))
        else:
            accepted.append(found)
            expected.step()
        assert same(ours, expected)
        assert window(ours) == accepted[-option[1] :]
    assert n_left_out > 3
    assert ours.skipped_steps == n_left_out
    reasons = ours.skipped_steps_by_reason
    assert reasons == {"nonfinite": 0, "above": n_left_out}
    assert all(count.device.type == device.type and count.dtype == torch.int64 for count in reasons.values())


def test_beside_a_group_that_clips(device):
    """The norm is that before clip_grad_value, whichever group has which option."""
    params = parameters([(5,), (300,)], device)
    optimizer = FusedRMSProp([dict(params=params[:1], clip_grad_value=0.1), dict(params=params[1:], skip_above=ABOVE)])
    for norm in (1.0, 1.0, 1.0, 1.0):
        give(params, norm)
        optimizer.step()
        np.testing.assert_allclose(optimizer.last_grad_norm.item(), norm, rtol=1e-5)
    params[0].grad *= 1e6
    before = copies(optimizer)
    optimizer.step()
    assert optimizer.skipped_steps_by_reason["above"] == 1
    assert all(map(torch.equal, everything(optimizer), before))


@pytest.mark.exhaustive
def test_random_norms():
    """A random walk with spikes, over many lengths of windows."""
    rng = np.random.default_rng(0)
    for size in (2, 3, 16, 17, 1024):
        option = (1 + rng.exponential(2.0), size)
        params = parameters([(5,)])
        optimizer, accepted = FusedRMSProp(params, skip_above=option), []
        for norm in np.exp(np.cumsum(rng.normal(0, 0.1, 3 * min(size, 200)))) * rng.choice([1, 20], 3 * min(size, 200), p=[0.9, 0.1]):
            give(params, norm)
            optimizer.step()
            found = optimizer.last_grad_norm.item()
            if not is_spike(accepted, found, option):
                accepted.append(found)
            assert window(optimizer) == accepted[-size:]


@pytest.mark.interpret
@pytest.mark.parametrize("skips", [True, False])
def test_beside_skip_nonfinite(skips, device):
    """What is not finite, or 0, is no spike, nor remembered; it is left out where that is asked for."""
    ours, expected = pair(USED["plain"], device)
    ours.param_groups[0].update(skip_above=ABOVE, skip_nonfinite=skips)
    expected.param_groups[0]["skip_nonfinite"] = skips
    go = [1.0] * 4 + [math.inf, 0.0, 50.0, 2.0, math.nan, 0.0, 0.0, 0.0, 0.0, 0.0, 60.0, 1.0]
    for norm in go:
        give(params_of(ours), 1.0)
        for param in params_of(ours):
            param.grad *= norm if math.isfinite(norm) else 1.0
        if not math.isfinite(norm):
            params_of(ours)[1].grad[3] = norm
        copy_grads(params_of(ours), params_of(expected))
        ours.step()
        if norm < 50 or not math.isfinite(norm):
            expected.step()
        for a, b in zip(everything(ours), everything(expected), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert ours.skipped_steps_by_reason == {"nonfinite": 2 * skips, "above": 2}
    np.testing.assert_allclose(window(ours), [1, 1, 1, 1, 2, 1], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, dict(clip_grad_norm=0.5), dict(skip_nonfinite=True)], ids=str)
def test_under_a_loss_scale(options, device):
    """The norm is that without the scale; a step that a scaler leaves out is not remembered, and counted as what it is."""
    ours, expected = pair((FusedRMSProp, options), device)
    ours.param_groups[0]["skip_above"] = ABOVE
    for k, norm in enumerate([1.0, 2.0, 1.0, 40.0, 1.0, 1.0, 3.0, 50.0, 1.0]):
        scale = 2.0 ** (k % 4 * 5)  # so that scaled norms would be spikes
        give(params_of(ours), norm)
        copy_grads(params_of(ours), params_of(expected))
        for param in params_of(ours):
            param.grad *= scale
        ours.grad_scale, ours.found_inf = (torch.tensor(value, device=device) for value in (scale, float(k == 4)))
        ours.step()
        del ours.grad_scale, ours.found_inf
        if norm < 10 and k != 4:
            expected.step()
        assert same(ours, expected)
    assert ours.skipped_steps == 3
    assert ours.skipped_steps_by_reason == {"nonfinite": 1, "above": 2}
    np.testing.assert_allclose(window(ours), [1, 2, 1, 1, 3, 1], rtol=1e-6)


@pytest.mark.gpu
def test_no_sync():
    optimizer = made(gpu.DEVICE)
    for k, norm in enumerate(NORMS):
        give(params_of(optimizer), norm)
        gpu.module.set_sync_debug_mode("error" if k else "default")
        try:
            optimizer.step()
            counts = [optimizer.skipped_steps, *optimizer.skipped_steps_by_reason.values(), optimizer.last_grad_norm]
        finally:
            gpu.module.set_sync_debug_mode("default")
        assert {count.device.type for count in counts} == {gpu.KIND}
    assert optimizer.skipped_steps > 3


@pytest.mark.gpu
def test_captured():
    """A replay looks at the window, and writes it, as an eager step does; one after the other too."""
    eager = parameters([(1000,), (3, 5)], gpu.DEVICE)
    captured = twins(eager)
    expected, ours = FusedRMSProp(eager, skip_above=ABOVE), FusedRMSProp(captured, skip_above=ABOVE, capturable=True)

    def give_both(norm):
        give(eager, norm)
        for param, other in zip(captured, eager, strict=True):
            if param.grad is None:
                set_grad(param, other.grad.clone())
            else:
                param.grad.copy_(other.grad)

    give_both(NORMS[0])
    ours.step()
    expected.step()
    graph = gpu.module.CUDAGraph()
    gpu.module.synchronize()
    with gpu.module.graph(graph):
        ours.step()
    for k, norm in enumerate(NORMS[1:]):
        give_both(norm)
        if k % 5 == 4:
            ours.step()
        else:
            graph.replay()
        expected.step()
        gpu.module.synchronize()
        assert same(ours, expected)
        assert window(ours) == window(expected)
    assert ours.skipped_steps_by_reason == expected.skipped_steps_by_reason
    assert ours.skipped_steps > 3


@pytest.mark.gpu
def test_two_devices():
    """Where only parameters on a CPU have gradients the window is there too, and back afterwards."""
    there, here = parameters([(1000,)], gpu.DEVICE), parameters([(300,)])
    optimizer, accepted = FusedRMSProp([*there, *here], skip_above=ABOVE), []
    for k, norm in enumerate(NORMS):
        optimizer.zero_grad()
        some = [*there, *here] if k % 3 == 0 else here if k % 3 == 1 else there
        give(some, norm)
        before = [param.detach().clone() for param in some]
        optimizer.step()
        found = optimizer.last_grad_norm.item()
        left_out = is_spike(accepted, found)
        assert all(torch.equal(param, other) == left_out for param, other in zip(some, before, strict=True))
        accepted += [] if left_out else [found]
        assert window(optimizer) == accepted[-6:]
