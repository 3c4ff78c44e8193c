"""Master weights, split and in float32: the same numbers as float32 training, changed and set from outside."""

import numpy as np
import pytest
import torch

from cases import BF16, F16, F32, F64
from fusedrms import FusedRMSProp, export_master
from mode_tools import FEW, RULES, STORED, made, rounded, rules
from tools import copy_grads, parameter, parameters, random_grads, set_grad

kinds = pytest.mark.parametrize("kind", STORED)


@pytest.mark.exhaustive
@pytest.mark.interpret
@rules
@pytest.mark.parametrize("state", [{}, dict(state_dtype=BF16), dict(state_dtype="8bit")], ids=str)
def test_masters_are_float32_training(device, rule, state):
    """Split and float32 masters equal each other bit for bit, and a float32 parameter that is given the same gradients."""
    (a, wide), (b, split) = (made(rule, {**state, "master_weights": kind}, FEW, device=device) for kind in ("float32", "split"))
    for p, q in zip(wide, split, strict=True):
        q.data.copy_(p)
    single = [parameter(p.detach().float()) for p in wide]
    cls, own = rule
    c = cls(single, **own, **state, seed=0)
    for _ in range(4):
        random_grads(wide)
        copy_grads(wide, split)
        for p, q in zip(wide, single, strict=True):
            set_grad(q, p.grad.clone())
        for optimizer in (a, b, c):
            optimizer.step()
    masters = dict(export_master(b))
    for p, q, r in zip(wide, split, single, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(a.state[p]["master_param"], masters[q])
        assert torch.equal(masters[q], r)
        worst = (p.float() - r).abs() - 2.0**-8 * r.abs()
        assert worst.max().item() <= 0 if p.numel() else True


@pytest.mark.interpret
def test_a_float16_master(device):
    """MXNet's multi_precision: the parameter is the nearest float16 of what float32 training has."""
    params = parameters(FEW, device, F16)
    single = [parameter(p.detach().float()) for p in params]
    a, b = FusedRMSProp(params, master_weights="float32"), FusedRMSProp(single)
    for _ in range(5):
        random_grads(params)
        for p, q in zip(params, single, strict=True):
            set_grad(q, p.grad.clone())
        a.step()
        b.step()
    for p, q in zip(params, single, strict=True):
        assert torch.equal(a.state[p]["master_param"], q)
        assert torch.equal(p, q.half())


@pytest.mark.interpret
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter
@kinds
def test_a_parameter_changed_outside(device, kind):
    """Goes on from the new value; elements that were left alone keep their masters."""
    optimizer, (param,) = made(RULES["plain"], dict(master_weights=kind), [(1000,)], device=device, steps=3)
    ((_, before),) = export_master(optimizer)
    with torch.no_grad():
        param.data[::2] = 2.0
    ((_, after),) = export_master(optimizer)
    assert torch.equal(after[1::2], before[1::2])
    torch.testing.assert_close(after[::2], torch.full_like(after[::2], 2.0), rtol=2.0**-8, atol=0)
    saved = optimizer.state_dict()["state"][0]["master_param"]
    assert torch.equal(saved, after)
    set_grad(param, torch.zeros_like(param))
    optimizer.step()
    ((_, stepped),) = export_master(optimizer)
    assert torch.equal(stepped, after)
    assert torch.equal(param[::2], torch.full_like(param[::2], 2.0))
    for value in (0.0, -0.0, torch.inf, -torch.inf):  # there the remainder's bits would mean something else
        optimizer, (param,) = made(RULES["plain"], dict(master_weights=kind), [(1000,)], device=device, steps=3)
        param.data.fill_(value)
        ((_, master),) = export_master(optimizer)
        set_grad(param, torch.zeros_like(param))
        optimizer.step()
        assert torch.equal(param, torch.full_like(param, value))
        assert master.abs().max() < 1e-38 if value == 0 else (master * np.sign(value) > 3.3e38).all()


@pytest.mark.interpret
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("upper", [0x0000, 0x0001, 0x3F80, 0x7F7F, 0x7F80, 0x7FC0])
@pytest.mark.parametrize(("kind", "n_bits"), [("split", 16), ("split24", 8)])
def test_every_remainder(device, upper, kind, n_bits):
    """Beyond 0 and infinity its bits would mean another number: there the parameter counts alone."""
    remainders = np.arange(-(2 ** (n_bits - 1)), 2 ** (n_bits - 1))
    bits = (upper << 16) + (remainders << 16 - n_bits)
    bits = np.where((bits < 0) | (bits > 0x7F800000), upper << 16, bits).astype(np.int32)
    for sign in (1, -1):
        optimizer, (param,) = made(RULES["plain"], dict(master_weights=kind), [(2**n_bits,)], device=device, steps=1)
        param.data.copy_(torch.tensor(upper << 16, dtype=torch.int32).view(F32) * sign)
        optimizer.state[param]["master_param"].copy_(torch.from_numpy(remainders))
        expected = sign * torch.from_numpy(bits).view(F32)
        for _ in range(2):
            ((_, master),) = export_master(optimizer)
            torch.testing.assert_close(master.cpu(), expected, rtol=0, atol=0, equal_nan=True)
            set_grad(param, torch.zeros_like(param))
            optimizer.step()


def test_from_one_kind_into_another():
    """Between steps: 24 bits are the nearest of 32, whose parameter may be another one, and all others are the same number."""
    bits = torch.tensor([0x3F807FC0, 0x3F80FFC0, 0x3F807F80, 0x3F808000, 0x3F7FFFFF, 0x7F7FFFFF, 0x40490FDB], dtype=torch.int32)
    values = torch.cat([bits.view(F32), -bits.view(F32), torch.randn(1000)])
    param = parameter(values.bfloat16())
    optimizer = FusedRMSProp([param], master_weights="float32")
    optimizer.state[param]["master_param"] = values.clone()
    for kind in ("split", "split24", "float32", "split24", "split", None, "split24"):
        optimizer.param_groups[0]["master_weights"] = kind
        optimizer.prepare()
        values = rounded(kind, values) if kind else param.detach().float()
        ((_, master),) = export_master(optimizer)
        assert torch.equal(master, values)
        assert torch.equal(param, ((values.view(torch.int32) + 0x8000) >> 16).to(torch.int16).view(BF16))
        assert kind is None or optimizer.state[param]["master_param"].dtype == STORED[kind]


@pytest.mark.parametrize("raw", [False, True])
def test_32_bits_loaded_as_24(raw):
    """Which another parameter may be the nearest of: until a step may change that, the master stays as it is."""
    values = torch.cat([torch.tensor([0x3F807FC0], dtype=torch.int32).view(F32), torch.randn(100)])
    param = parameter(values.bfloat16())
    source = FusedRMSProp([param], master_weights="split")
    source.state[param]["master_param"] = values.clone()
    set_grad(param, torch.zeros_like(param))
    source.step()
    saved, fresh = source.state_dict(), parameter(param.detach().clone())
    if raw:
        saved["state"][0] = dict(source.state[param])
    optimizer = FusedRMSProp([fresh], master_weights="split24")
    optimizer.load_state_dict(saved)
    ((_, master),) = export_master(optimizer)
    assert torch.equal(master, values)
    set_grad(fresh, torch.zeros_like(fresh))
    optimizer.step()
    ((_, master),) = export_master(optimizer)
    assert torch.equal(master, rounded("split24", values))
    assert (param[0].item(), fresh[0].item()) == (1.0, 1.0078125)
    assert optimizer.state[fresh]["master_param"].dtype == torch.int8


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_a_complex_master_changed_in_one_part():
    """The other part keeps its master, to the kernel and to whoever asks."""
    (param,) = parameters([(100,)], dtype=torch.complex32)
    optimizer = FusedRMSProp([param], master_weights="float32")
    for _ in range(3):
        set_grad(param, torch.randn(100, dtype=torch.complex64).to(torch.complex32))
        optimizer.step()
    kept = optimizer.state[param]["master_param"].imag.clone()
    torch.view_as_real(param.data)[..., 0] = 2.0
    ((_, master),) = export_master(optimizer)
    assert torch.equal(master.imag, kept)
    assert torch.equal(master.real, torch.full((100,), 2.0))


@kinds
@pytest.mark.parametrize("state", [{}, dict(state_dtype="8bit"), dict(state_dtype="4bit")], ids=str)
def test_masters_loaded_before_or_after_the_parameters(kind, state):
    optimizer, (param,) = made(RULES["plain"], {**state, "master_weights": kind}, [(300,)], steps=3)
    ((_, expected),) = export_master(optimizer)
    saved, weights = optimizer.state_dict(), param.detach().clone()
    for parameters_first in (True, False):
        fresh = parameter(torch.zeros_like(param))
        again = FusedRMSProp([fresh], master_weights=kind, **state)
        if parameters_first:
            fresh.data.copy_(weights)
        again.load_state_dict(saved)
        fresh.data.copy_(weights)
        ((_, master),) = export_master(again)
        assert torch.equal(master, expected)


@kinds
def test_a_checkpoint_of_a_master_that_has_had_no_step(kind):
    """Masters are given by hand before the first step; a parameter without gradients keeps its own."""
    values = rounded(kind, torch.randn(2, 100, device="cpu"))
    params = [parameter(value.bfloat16()) for value in values]
    optimizer = FusedRMSProp(params, master_weights=kind)
    for param, value in zip(params, values, strict=True):
        optimizer.state[param]["master_param"] = value.clone()
    for steps in range(2):
        loaded = FusedRMSProp(params, master_weights=kind)
        loaded.load_state_dict(optimizer.state_dict())
        masters = dict(export_master(loaded))
        assert torch.equal(masters[params[1]], values[1])
        assert loaded.state[params[1]]["step"] == 0
        assert loaded.state[params[0]]["step"] == steps
        random_grads(params[:1])
        optimizer.step()


@kinds
def test_masters_set_by_hand(kind):
    """Before the first step, which goes on from them."""
    optimizer, (param,) = made(RULES["plain"], dict(master_weights=kind), [(300,)])
    weights = rounded(kind, torch.randn(300))
    param.data.copy_(weights)
    optimizer.state[param]["master_param"] = weights.clone()
    set_grad(param, torch.zeros_like(param))
    optimizer.step()
    ((_, master),) = export_master(optimizer)
    assert torch.equal(master, weights)
    assert optimizer.state[param]["master_param"].dtype == STORED[kind]


def test_wide_parameters_need_no_master():
    """Nor stochastic rounding: beside 16-bit ones they are updated as ever."""
    for mode in (*(dict(master_weights=kind) for kind in STORED), dict(stochastic_rounding=True)):
        for dtype in (F32, F64, torch.complex64):
            optimizer, params = made(RULES["plain"], mode, dtype=dtype, steps=1)
            assert optimizer.state[params[3]].keys() == {"square_avg", "step"}
            for param, value in export_master(optimizer):
                assert torch.equal(param, value)
                assert value.dtype == dtype
                assert not param.numel() or value.data_ptr() != param.data_ptr()
