"""Codes of 8 and 4 bits: quantize and dequantize on every code, and what the kernels keep and encode."""

import pytest
import torch

from cases import BF16
from fusedrms import FusedRMSProp
from fusedrms.engine.state.quantized import LEAST, dequantize, pack, quantize, unpack
from fusedrms.kernels import lang
from fusedrms.kernels.quant import GROUP
from fusedrms.kernels.storage import TOP
from tools import parameter, set_grad, stepped

# the interpreter computes with NumPy, which warns of 0 * inf
pytestmark = [pytest.mark.interpret, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

# of a state_dtype the square average's codes, and the largest of them
SQUARES = pytest.mark.parametrize(("state_dtype", "code", "top"), [("8bit", "uint8", 255), ("4bit", "uint4", 15)])
CODES = pytest.mark.parametrize(("code", "top"), TOP.items())


def stored(codes: torch.Tensor, code: str) -> torch.Tensor:
    """Codes as a state holds them."""
    return pack(codes) if code in ("uint4", "int4") else codes.to(getattr(torch, code))


def values_of(state: dict, code: str, param: torch.Tensor) -> torch.Tensor:
    return dequantize(state["square_avg"], state["square_avg_scale"], code, param.detach())


def scales():
    """From the least to near the largest float32."""
    return torch.tensor([2.0**k * m for k in range(-100, 128, 19) for m in (1.0, 1.37, 1.9999999)])


@pytest.mark.parametrize("code", ["uint4", "int4"])
def test_words(code):
    """Four codes each, the first in the lowest bits, unused ones 0; negative ones as two's complements."""
    codes = torch.tensor([[0, 1, 8, 15, 9], [0, -1, 7, -7, -6]])[int(code == "int4")]
    expected = {"uint4": [0xF810, 0x0009], "int4": [0x97F0, 0x000A]}[code]
    words = pack(codes)
    assert [word & 0xFFFF for word in words.tolist()] == expected
    for n in (0, 1, 4, 5):
        assert torch.equal(unpack(words, n, code == "int4"), codes[:n])


@CODES
def test_codes_are_a_fixed_point(code, top):
    """Decoded and encoded again, every code of every scale is itself; the scale too, where an element has it."""
    codes = torch.arange(0 if code[0] == "u" else -top, top + 1)
    rows = torch.stack([codes.roll(-k * (GROUP - 1))[: GROUP - 1] for k in range(-(-len(codes) // (GROUP - 1)))])
    rows = torch.cat([torch.full((len(rows), 1), top), rows], 1)
    rows = torch.nn.functional.pad(rows, (0, GROUP - rows.shape[1]))
    kept = stored(rows.flatten(), code)
    for scale in scales():
        scale = scale.repeat(len(rows))
        again, same_scale = quantize(dequantize(kept, scale, code, rows.flatten()), code)
        assert torch.equal(again, kept)
        assert torch.equal(same_scale, scale)


@CODES
def test_encoding_error(code, top):
    """Roots are off by half a step at most, and by a whole one where that keeps a positive value from 0."""
    unsigned = code[0] == "u"
    for numel in (1, GROUP - 1, GROUP, 5 * GROUP + 7):
        for spread in (0.0, 1.0, 10.0):
            values = torch.randn(numel) * torch.exp(spread * torch.randn(numel))
            values = values.abs() if unsigned else values
            codes, scale = quantize(values, code)
            assert scale.shape == (-(-numel // GROUP),)
            new, each = dequantize(codes, scale, code, values), scale.repeat_interleave(GROUP)[:numel]
            assert (new * values >= 0).all()
            error = (new.abs().sqrt() - values.abs().sqrt()).abs() / each.sqrt()
            small = values.abs() < each / (2 * top) ** 2
            assert (error <= torch.where(small & unsigned, 1.0001, 0.5001) / top).all()
            assert (error[each == values.abs()] == 0).all()
            assert ((new > 0) == (values > 0)).all() or not unsigned
    codes, scale = quantize(torch.zeros(GROUP + 3), code)
    assert (codes == 0).all()
    assert (scale == LEAST).all()


def with_codes(device, codes, scale, code, **options):
    """An optimizer whose square average is kept as these codes."""
    optimizer, param = stepped(torch.zeros(codes.numel(), device=device), **options)
    optimizer.state[param]["square_avg"].copy_(stored(codes, code))
    optimizer.state[param]["square_avg_scale"].copy_(scale)
    return optimizer, param


@SQUARES
def test_the_kernel_keeps_codes(device, state_dtype, code, top):
    """A step that changes no square average changes no code and no scale, whatever the random bits."""
    codes = torch.stack([torch.cat([torch.tensor([top]), torch.arange(k, k + GROUP - 1) % (top + 1)]) for k in range(0, 256, 37)]).flatten()
    for scale in scales():
        optimizer, param = with_codes(device, codes, scale, code, alpha=1.0, state_dtype=state_dtype)
        for _ in range(3):
            optimizer.step()
            state = optimizer.state[param]
            assert torch.equal(state["square_avg"].cpu(), stored(codes, code))
            assert (state["square_avg_scale"] == scale.to(device)).all()


@pytest.mark.parametrize(("state_dtype", "code", "top"), [("8bit", "int8", 127), ("4bit", "int4", 7)])
def test_the_kernel_keeps_signed_codes(device, state_dtype, code, top):
    """Nor does one that changes no momentum buffer, of every code and sign."""
    rows = [torch.cat([torch.tensor([top]), (torch.arange(GROUP - 1) + k) % (2 * top + 1) - top]) for k in range(0, 256, 37)]
    codes = torch.stack(rows).flatten()
    for scale in scales():
        optimizer, param = stepped(torch.zeros(codes.numel(), device=device), momentum=1.0, lr=0.0, state_dtype=state_dtype)
        state = optimizer.state[param]
        state["momentum_buffer"].copy_(stored(codes, code))
        state["momentum_buffer_scale"].fill_(scale)
        for _ in range(3):
            optimizer.step()
            assert torch.equal(state["momentum_buffer"].cpu(), stored(codes, code))
            assert (state["momentum_buffer_scale"] == scale.to(device)).all()


@SQUARES
def test_the_kernel_encodes_without_bias(device, state_dtype, code, top):
    """An average that decays as it should, on the mean of many: nearest codes would not move at all."""
    codes = torch.full((2**10 * GROUP,), top // 3)
    codes[::GROUP] = top
    optimizer, param = with_codes(device, codes, torch.tensor(4.0), code, alpha=0.999, state_dtype=state_dtype)
    before = values_of(optimizer.state[param], code, param).double()
    optimizer.state[param]["square_avg_scale"].fill_(4.0)
    set_grad(param, torch.zeros_like(param))
    param.grad[::GROUP] = 2.0  # the largest of each group stays
    optimizer.step()
    after = values_of(optimizer.state[param], code, param).double()
    inner = torch.arange(param.numel(), device=device) % GROUP > 0
    error = after[inner] - 0.999 * before[inner]
    assert error.std() > 0
    assert error.mean().abs() < 4 * error.std() / inner.sum() ** 0.5 + 2.0**-11 * error.std()


@pytest.mark.skipif(lang.interpreted(), reason="a thousand steps; single ones are compared above")
@pytest.mark.parametrize("state_dtype", [BF16, "8bit", "4bit"])
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
