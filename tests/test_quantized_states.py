"""States of 8 and 4 bits: their layouts, what is not finite or does not vary, and codes or scales that are damaged."""

import copy
import itertools
import pickle
import re

import pytest
import torch

from cases import F32, MODES
from fusedrms import FusedRMSProp
from fusedrms.engine.state.quantized import dequantize, quantize
from fusedrms.kernels.quant import GROUP
from fusedrms.kernels.storage import TOP
from mode_tools import RULES, made
from tools import parameter, random_grads, set_grad, step_and_check

lean = pytest.mark.parametrize("state_dtype", ["8bit", "4bit"])


@pytest.mark.parametrize(("key", "state_dtype"), [("square_avg_scale", "8bit"), ("square_avg_scale", "4bit"), ("square_avg", "4bit")])
def test_what_has_gaps_is_copied(key, state_dtype):
    optimizer, (param,) = made(RULES["plain"], dict(state_dtype=state_dtype), [(300,)], steps=1)
    state = optimizer.state[param]
    buffer = torch.full((2 * state[key].numel(),), 7, dtype=state[key].dtype)
    buffer[::2] = state[key]
    state[key] = buffer[::2]
    random_grads([param])
    step_and_check(optimizer)
    assert (buffer[1::2] == 7).all()


@pytest.mark.interpret
def test_layouts_with_codes(device):
    """Groups follow the order of memory; gaps and other orders of the gradient go through copies."""
    contiguous = torch.randn(4, 6, 5, 3, device=device).bfloat16()
    for values, grad in (
        (contiguous.to(memory_format=torch.channels_last), None),
        (contiguous, contiguous.clone().to(memory_format=torch.channels_last)),
        (torch.randn(16, 10, device=device).bfloat16()[:, :7], None),
        (torch.randn(1000, device=device).bfloat16()[1:334], torch.randn(1000, device=device).bfloat16()[3:336]),
        (torch.randn(30, 7, device=device).bfloat16().t(), None),
    ):
        for mode in (MODES["split, 8-bit state"], MODES["stochastic, 8-bit state"], MODES["master"], MODES["split24, 4-bit state"]):
            param = parameter(values.clone() if values.is_contiguous() else values)
            optimizer = FusedRMSProp([param], centered=True, momentum=0.9, **mode)
            for _ in range(2):
                set_grad(param, torch.randn_like(param) if grad is None else grad)
                step_and_check(optimizer)


@pytest.mark.exhaustive
def test_constant_gradient_centered():
    """The variance is 0 then, and rounding the averages must not make anything of it: no NaN, no step of g / eps."""
    for mode, rule in itertools.product(MODES.values(), (dict(centered=True), dict(centered=True, momentum=0.9))):
        single, lean = parameter(torch.zeros(1000)), parameter(torch.zeros(1000))
        a, b = FusedRMSProp([single], alpha=0.9, eps=1e-3, **rule), FusedRMSProp([lean], alpha=0.9, eps=1e-3, **rule, **mode)
        grad = torch.randn(1000)
        noise = torch.randn(300, 1000) * 0.3
        for k in range(300):
            for p in (single, lean):
                set_grad(p, grad + noise[k])
            a.step()
            b.step()
        assert lean.isfinite().all()
        assert (lean - single).abs().max() < (0.5 if mode.get("state_dtype") == "4bit" else 0.2) * single.abs().max()


@pytest.mark.exhaustive
def test_smorms3_stays_within_its_bounds():
    """signal = m² / v is at most 1, else mem would turn negative: codes of v and m by themselves would not keep that."""
    for mode in MODES.values():
        optimizer, params = made(RULES["SMORMS3"], mode, [(1000,)], dtype=F32)
        for _ in range(200):
            set_grad(params[0], torch.randn(1000) * torch.linspace(1e-4, 1, 1000) + 0.1)
            optimizer.step()
        mem = optimizer.state[params[0]]["mem"]
        assert mem.dtype == F32
        assert mem.min() >= 1
        assert params[0].isfinite().all()


@lean
def test_what_is_not_finite_spreads_to_its_group_alone(state_dtype):
    for value in (torch.nan, torch.inf):
        optimizer, (param,) = made(RULES["plain"], dict(state_dtype=state_dtype), [(4 * GROUP,)], dtype=F32)
        grad = torch.ones(4 * GROUP)
        grad[GROUP + 3] = value
        for _ in range(2):
            set_grad(param, grad)
            optimizer.step()
        inside = torch.arange(4 * GROUP) // GROUP == 1
        state = optimizer.state_dict()["state"][0]["square_avg"]
        assert not param[GROUP + 3].isfinite()
        assert not state[inside].isfinite().any()
        for values in (param, state):
            assert values[~inside].isfinite().all()


@lean
@pytest.mark.parametrize("rule", ["plain", "centered"])
def test_beside_an_infinite_gradient_nothing_moves(rule, state_dtype):
    """Nor becomes NaN, of averages that are 0 either: 0 times infinity is one."""
    optimizer, (param,) = made(RULES[rule], dict(state_dtype=state_dtype), [(GROUP,)], dtype=F32)
    others = torch.arange(GROUP) != 3
    grad = torch.linspace(-1, 1, GROUP).pow(9)
    grad[10:20] = 0.0
    set_grad(param, torch.where(others, grad, torch.inf))
    optimizer.step()
    before = param.detach().clone()
    for _ in range(3):
        set_grad(param, grad)
        optimizer.step()
    assert param[3].isnan()
    assert torch.equal(param[others], before[others])


@pytest.mark.parametrize("code", TOP)
def test_quantize_beside_infinity(code):
    """As the kernels do: every code is the largest, so that none stands for NaN."""
    values = torch.zeros(3 * GROUP)
    values[5], values[6] = 2.0, torch.inf
    codes, scales = quantize(values, code)
    found = dequantize(codes, scales, code, values)
    assert found[:GROUP].isposinf().all()
    assert not found[GROUP:].any()


@lean
def test_damaged_states(state_dtype):
    optimizer, params = made(RULES["plain"], dict(state_dtype=state_dtype), [(130,)], steps=1)
    whole = dict(optimizer.state[params[0]])
    for key, value in (
        ("square_avg_scale", None),
        ("square_avg_scale", torch.ones(5)),
        ("square_avg", torch.ones(7, dtype=torch.uint8)),
        ("square_avg", torch.ones(32, dtype=torch.int16)),  # words of four codes
        ("square_avg", torch.ones(130, dtype=torch.int16)),
        ("master_param", torch.ones(7, dtype=torch.int16)),
    ):
        state = optimizer.state[params[0]]
        state.clear()
        state.update(whole)
        state[key] = value
        if value is None:
            del state[key]
        random_grads(params)
        before = params[0].detach().clone()
        with pytest.raises(ValueError, match=f"the {key} of params.0. {'is missing' if value is None else 'has'}"):
            optimizer.step()
        assert torch.equal(params[0], before)


@pytest.mark.parametrize("value", [(1,), (0, 1), (), "a", 5, None])
def test_a_wrong_order_of_dimensions(value):
    """Of packed codes, which a checkpoint or a copy reads by it."""
    optimizer, (param,) = made(RULES["plain"], dict(state_dtype="4bit"), [(130,)], steps=1)
    optimizer.state[param]["square_avg_dim_order"] = value
    for read in (optimizer.state_dict, lambda: copy.deepcopy(optimizer)):
        with pytest.raises(ValueError, match=rf"the square_avg_dim_order of params\[0\] has the value {re.escape(repr(value))}"):
            read()


@lean
def test_scales_without_values(state_dtype):
    optimizer, (param,) = made(RULES["plain"], dict(state_dtype=state_dtype), [(130,)], steps=1)
    optimizer.state[param]["square_avg_scale"] = torch.ones(3, device="meta")
    for read in (optimizer.state_dict, lambda: copy.deepcopy(optimizer), optimizer.step):
        with pytest.raises(ValueError, match=r"the square_avg_scale of params\[0\] is a meta tensor without values"):
            read()


@pytest.mark.parametrize(("key", "centered"), [("square_avg", False), ("square_avg", True), ("grad_avg", True), ("momentum_buffer", True)])
@pytest.mark.parametrize(
    ("state_dtype", "n", "groups"),
    [*(("8bit", n, groups) for n, groups in ((129, 3), (128, 2), (64, 1), (131, 3), (129, 2))), ("4bit", 32, 2), ("4bit", 34, 3)],
)
def test_codes_cut_together_with_their_scales(key, centered, state_dtype, n, groups):
    """As many groups as there are scales, but not as many elements as the parameter has: nobody takes them."""
    optimizer, (param,) = made((FusedRMSProp, dict(momentum=0.9, centered=centered)), dict(state_dtype=state_dtype), [(130,)], steps=1)
    whole, state = optimizer.state_dict(), optimizer.state[param]
    state[key], state[key + "_scale"] = (torch.ones(size, dtype=state[k].dtype) for size, k in ((n, key), (groups, key + "_scale")))
    raw = {"state": {0: dict(state)}, "param_groups": whole["param_groups"]}
    said = rf"the {key} of params\[0\] has shape \({n},\) but params\[0\] the shape \(130,\)"
    for grad in (param.grad, None):
        param.grad = grad
        with pytest.raises(ValueError, match=said):
            optimizer.state_dict()
        with pytest.raises(ValueError, match=said):
            copy.deepcopy(optimizer)
        with pytest.raises(ValueError, match=said):
            optimizer.load_state_dict(raw)
        if grad is not None:
            with pytest.raises(ValueError, match=said):
                optimizer.step()
    optimizer.load_state_dict(whole)
    random_grads([param])
    step_and_check(optimizer)


def test_codes_with_gaps():
    """A view of a larger tensor is read element by element."""
    optimizer, (param,) = made(RULES["plain"], dict(state_dtype="8bit"), [(10, 12)], steps=2)
    expected, state = optimizer.state_dict()["state"][0]["square_avg"], optimizer.state[param]
    state["square_avg"] = torch.nn.functional.pad(state["square_avg"], (0, 5))[:, :12]
    assert torch.equal(optimizer.state_dict()["state"][0]["square_avg"], expected)
    random_grads([param])
    step_and_check(optimizer)


@pytest.mark.parametrize("layout", [dict(memory_format=torch.channels_last), {}], ids=["channels_last", "contiguous"])
def test_packed_codes_of_a_parameter_that_comes_to_lie_otherwise(layout):
    """Words have no strides: in which order their codes are is told beside them, where the last dimension is not innermost."""
    mode, contiguous = MODES["stochastic, 4-bit state"], torch.randn(3, 4, 5, 6).bfloat16()
    param = parameter(contiguous.to(**layout))
    optimizer = FusedRMSProp([param], momentum=0.9, **mode)
    random_grads([param])
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.0  # whose codes wait as they are
    expected = optimizer.state_dict()["state"][0]
    names = {key for key in optimizer.state[param] if key.endswith("_dim_order")}
    assert names == ({"square_avg_dim_order", "momentum_buffer_dim_order"} if layout else set())
    for again in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        (param,) = again.param_groups[0]["params"]
        param.data = param.detach().contiguous() if layout else param.detach().to(memory_format=torch.channels_last)
        assert all(map(torch.equal, again.state_dict()["state"][0].values(), expected.values()))
        again.prepare()  # other elements share a scale now
        square_avg = expected["square_avg"]
        assert (again.state_dict()["state"][0]["square_avg"] - square_avg).abs().max() <= square_avg.max() / 15
        random_grads([param])
        step_and_check(again)
        assert torch.equal(again.state_dict()["state"][0]["momentum_buffer"], expected["momentum_buffer"])


def test_codes_of_both_widths_are_those_of_the_same_values():
    """Options of a group may change between steps: the values are rounded once more, to nearest."""
    optimizer, (param,) = made(RULES["Graves"], dict(state_dtype="8bit"), [(1000,)], steps=3)
    keys = "square_avg", "grad_avg", "momentum_buffer"
    before = optimizer.state_dict()["state"][0]
    optimizer.param_groups[0]["state_dtype"] = "4bit"
    optimizer.prepare()
    state, after = optimizer.state[param], optimizer.state_dict()["state"][0]
    assert {state[key].dtype for key in keys} == {torch.int16}
    assert {state[key].shape for key in keys} == {(250,)}
    assert all((after[key] - before[key]).abs().max() <= before[key].abs().max() / 6 for key in keys)
    optimizer.param_groups[0]["state_dtype"] = "8bit"
    optimizer.prepare()
    again = optimizer.state_dict()["state"][0]
    assert all((again[key] - after[key]).abs().max() <= after[key].abs().max() / 127 for key in keys)


def test_numbers_in_the_place_of_codes():
    """Are taken as they are, whatever scale lies beside them."""
    optimizer, (param,) = made(RULES["plain"], dict(state_dtype="8bit"), [(130,)], steps=1)
    optimizer.state[param]["square_avg"] = torch.full((130,), 0.25)
    assert torch.equal(optimizer.state_dict()["state"][0]["square_avg"], torch.full((130,), 0.25))
    random_grads([param])
    step_and_check(optimizer)
    assert optimizer.state[param]["square_avg"].dtype == torch.uint8
