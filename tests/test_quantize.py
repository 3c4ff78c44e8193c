"""8-bit codes: quantize and dequantize on every code, and what the kernels keep and encode."""

import pytest
import torch

from cases import BF16
from fusedrms import FusedRMSProp
from fusedrms.engine.state.quantized import LEAST, dequantize, quantize
from fusedrms.kernels import lang
from fusedrms.kernels.quant import GROUP
from tools import parameter, set_grad, stepped

# the interpreter computes with NumPy, which warns of 0 * inf
pytestmark = [pytest.mark.interpret, pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def scales():
    """From the least to near the largest float32."""
    return torch.tensor([2.0**k * m for k in range(-100, 128, 19) for m in (1.0, 1.37, 1.9999999)])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_codes_are_a_fixed_point(dtype):
    """Decoded and encoded again, every code of every scale is itself; the scale too, where an element has it."""
    top = 255 if dtype == torch.uint8 else 127
    codes = torch.arange(0 if dtype == torch.uint8 else -top, top + 1).to(dtype)
    rows = torch.stack([codes.roll(-k * (GROUP - 1))[: GROUP - 1] for k in range(-(-len(codes) // (GROUP - 1)))])
    rows = torch.cat([torch.full((len(rows), 1), top, dtype=dtype), rows], 1)
    for scale in scales():
        scale = scale.repeat(len(rows))
        again, same_scale = quantize(dequantize(rows.flatten(), scale), dtype)
        assert torch.equal(again, rows.flatten())
        assert torch.equal(same_scale, scale)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_encoding_error(dtype):
    """Roots are off by half a step at most, and by a whole one where that keeps a positive value from 0."""
    top = 255 if dtype == torch.uint8 else 127
    for numel in (1, GROUP - 1, GROUP, 5 * GROUP + 7):
        for spread in (0.0, 1.0, 10.0):
            values = torch.randn(numel) * torch.exp(spread * torch.randn(numel))
            values = values.abs() if dtype == torch.uint8 else values
            codes, scale = quantize(values, dtype)
            assert scale.shape == (-(-numel // GROUP),)
            new, each = dequantize(codes, scale), scale.repeat_interleave(GROUP)[:numel]
            assert (new * values >= 0).all()
            error = (new.abs().sqrt() - values.abs().sqrt()).abs() / each.sqrt()
            small = values.abs() < each / (2 * top) ** 2
            assert (error <= torch.where(small & (dtype == torch.uint8), 1.0, 0.5001) / top).all()
            assert (error[each == values.abs()] == 0).all()
            assert ((new > 0) == (values > 0)).all() or dtype == torch.int8
    codes, scale = quantize(torch.zeros(GROUP + 3), dtype)
    assert (codes == 0).all()
    assert (scale == LEAST).all()


def with_codes(device, codes, scale, **options):
    """An optimizer whose square average is kept as these codes."""
    optimizer, param = stepped(torch.zeros(codes.numel(), device=device), state_dtype="8bit", **options)
    optimizer.state[param]["square_avg"].copy_(codes)
    optimizer.state[param]["square_avg_scale"].copy_(scale)
    return optimizer, param


def test_the_kernel_keeps_codes(device):
    """A step that changes no square average changes no code and no scale, whatever the random bits."""
    codes = torch.stack([torch.cat([torch.tensor([255]), torch.arange(k, k + GROUP - 1) % 256]) for k in range(0, 256, 37)]).flatten()
    for scale in scales():
        optimizer, param = with_codes(device, codes, scale, alpha=1.0)
        for _ in range(3):
            optimizer.step()
            state = optimizer.state[param]
            assert torch.equal(state["square_avg"].cpu(), codes.to(torch.uint8))
            assert (state["square_avg_scale"] == scale.to(device)).all()


def test_the_kernel_encodes_without_bias(device):
    """An average that decays as it should, on the mean of many: nearest codes would not move at all."""
    codes = torch.full((2**10 * GROUP,), 90)
    codes[::GROUP] = 255
    optimizer, param = with_codes(device, codes, torch.tensor(4.0), alpha=0.999)
    before = dequantize(*(optimizer.state[param][key] for key in ("square_avg", "square_avg_scale"))).double()
    optimizer.state[param]["square_avg_scale"].fill_(4.0)
    set_grad(param, torch.zeros_like(param))
    param.grad[::GROUP] = 2.0  # the largest of each group stays
    optimizer.step()
    after = dequantize(*(optimizer.state[param][key] for key in ("square_avg", "square_avg_scale"))).double()
    inner = torch.arange(param.numel(), device=device) % GROUP > 0
    error = after[inner] - 0.999 * before[inner]
    assert error.std() > 0
    assert error.mean().abs() < 4 * error.std() / inner.sum() ** 0.5 + 2.0**-11 * error.std()


@pytest.mark.skipif(lang.interpreted(), reason="a thousand steps; single ones are compared above")
@pytest.mark.parametrize("state_dtype", [BF16, "8bit"])
def test_an_average_does_not_stall(device, state_dtype):
    """With alpha .99 a bfloat16 average rounded to nearest stops a fifth short of what it averages; stochastically it arrives."""
    n, steps = 64 * GROUP, 1000
    nearest = torch.zeros((), dtype=BF16)
    for _ in range(steps):
        nearest = (0.99 * nearest.float() + 0.01).bfloat16()
    assert nearest < 0.85
    assert (0.99 * nearest.float() + 0.01).bfloat16() == nearest
    param = parameter(torch.zeros(n, device=device))
    grad = torch.ones(n, device=device)
    grad[::GROUP] = 3.0  # so that the others are not the largest of their group
    optimizer = FusedRMSProp([param], state_dtype=state_dtype)
    for _ in range(steps):
        set_grad(param, grad.clone())
        optimizer.step()
    value = optimizer.state_dict()["state"][0]["square_avg"]
    mean = value[grad == 1].mean().item()
    assert abs(mean - 1) < 0.02
