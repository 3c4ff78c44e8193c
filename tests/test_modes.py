"""Precision modes: how parameters and states are stored must not change what is computed, only how it is rounded."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch

from cases import BF16, F16, F32, F64, FAMILY, MODES, OPTIONS, SHAPES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, export_master
from fusedrms.kernels import launch
from fusedrms.kernels.cpu import step as cpu
from fusedrms.kernels.quant import GROUP
from fusedrms.tools import variants
from test_checkpoint import go_on, through_a_file
from tools import copy_grads, parameter, parameters, random_grads, set_grad, step_and_check, twins

modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
FEW = [(), (0,), (GROUP + 1,), (1025,)]
TAILS = [*SHAPES, (GROUP - 1,), (GROUP,), (GROUP + 1,), (3, 43), (2 * GROUP + 1,)]
RULES = {
    "plain": (FusedRMSProp, {}),
    "momentum": (FusedRMSProp, dict(momentum=0.9, weight_decay=0.1)),
    "centered": (FusedRMSProp, dict(centered=True, eps=1e-4)),
    "Graves": (FusedRMSPropGraves, dict(clip_grad_norm=1.0)),
    "SMORMS3": (FusedSMORMS3, dict(lr=0.1)),
}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def made(rule, mode, shapes=TAILS, dtype=BF16, device="cpu", steps=0, **options):
    cls, own = rule
    params = parameters(shapes, device, dtype)
    optimizer = cls(params, **{"seed": 0, **own, **mode, **options})
    for _ in range(steps):
        random_grads(params)
        optimizer.step()
    return optimizer, params


def same_state(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) and value.dtype == b[key].dtype for key, value in a.items())


def check_steps(rule, mode, dtype, device="cpu", shapes=TAILS):
    optimizer, params = made(rule, mode, shapes, dtype, device)
    for _ in range(3):
        random_grads(params)
        step_and_check(optimizer)


@pytest.mark.interpret
@modes
@rules
def test_reference(device, rule, mode):
    """Against float64 from the very same states; rounding may change a value by one step of its storage."""
    check_steps(rule, mode, BF16, device)


@pytest.mark.interpret
@modes
def test_other_dtypes(device, mode):
    if mode.get("master_weights") != "split":
        check_steps(RULES["plain"], mode, F16, device)
    check_steps(RULES["Graves"], mode, F32, device)


@pytest.mark.parametrize("options", [*OPTIONS.values(), *FAMILY.values()], ids=[*OPTIONS, *FAMILY])
@pytest.mark.parametrize("mode", [MODES["split, 8-bit state"], MODES["stochastic, bfloat16 state"]], ids=str)
def test_every_option(options, mode):
    check_steps((FusedRMSProp, options), mode, BF16, shapes=[(7,), (3, 43)])


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
@pytest.mark.parametrize("kind", ["float32", "split"])
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


@pytest.mark.parametrize("kind", ["float32", "split"])
@pytest.mark.parametrize("state", [{}, dict(state_dtype="8bit")], ids=str)
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


@pytest.mark.parametrize("kind", ["float32", "split"])
def test_a_checkpoint_of_a_master_that_has_had_no_step(kind):
    """Masters are given by hand before the first step; a parameter without gradients keeps its own."""
    values = torch.randn(2, 100, device="cpu")
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


@pytest.mark.parametrize("kind", ["float32", "split"])
def test_masters_set_by_hand(kind):
    """Before the first step, which goes on from them."""
    optimizer, (param,) = made(RULES["plain"], dict(master_weights=kind), [(300,)])
    weights = torch.randn(300)
    param.data.copy_(weights)
    optimizer.state[param]["master_param"] = weights.clone()
    set_grad(param, torch.zeros_like(param))
    optimizer.step()
    ((_, master),) = export_master(optimizer)
    assert torch.equal(master, weights)
    assert (optimizer.state[param]["master_param"].dtype == torch.int16) == (kind == "split")


def test_a_scale_with_gaps_is_copied():
    optimizer, (param,) = made(RULES["plain"], dict(state_dtype="8bit"), [(300,)], steps=1)
    state = optimizer.state[param]
    buffer = torch.full((2 * state["square_avg_scale"].numel(),), 7.0)
    buffer[::2] = state["square_avg_scale"]
    state["square_avg_scale"] = buffer[::2]
    random_grads([param])
    step_and_check(optimizer)
    assert (buffer[1::2] == 7).all()


@modes
@rules
def test_resume_is_exact(device, rule, mode):
    """From a checkpoint in full precision, from a pickle and from a copy: the same states, the same bits ever after."""
    a, params = made(rule, mode, device=device, steps=3)
    pairs = [(a, params)]
    resumed = twins(params)
    b = rule[0](resumed, **rule[1], **mode)
    b.load_state_dict(through_a_file(a.state_dict()))
    pairs.append((b, resumed))
    for again in (copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        pairs.append((again, again.param_groups[0]["params"]))
    for optimizer, others in pairs[1:]:
        assert all(same_state(a.state[p], optimizer.state[q]) for p, q in zip(params, others, strict=True))
    go_on(pairs)
    for optimizer, others in pairs[1:]:
        assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
        assert all(same_state(a.state[p], optimizer.state[q]) for p, q in zip(params, others, strict=True))


def test_any_mode_into_any_other():
    """Full precision on the way: what a mode holds exactly arrives exactly; a trip into a leaner one and back changes nothing there."""
    kinds = [{}, *MODES.values()]
    for a, b in itertools.product(kinds, kinds):
        first, params = made(RULES["Graves"], a, [(7,), (3, 43)], steps=2)
        saved = first.state_dict()
        second = FusedRMSPropGraves(twins(params), **b)
        second.load_state_dict(through_a_file(saved))
        assert second.param_groups[0]["state_dtype"] == b.get("state_dtype", F32)  # how to store is its own business
        back = second.state_dict()
        third = FusedRMSPropGraves(twins(params), **b)
        third.load_state_dict(back)
        for p, q in zip(second.state.values(), third.state.values(), strict=True):
            assert same_state(p, q)
        if not b:
            for p, q in zip(saved["state"].values(), back["state"].values(), strict=True):
                for key, value in q.items():
                    torch.testing.assert_close(value, p[key].to(value.dtype), rtol=1e-7, atol=0)


@modes
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_to_torch_and_back(mode, options):
    for dtype in (BF16, F32):
        optimizer, params = made((FusedRMSProp, options), mode, [(7,), (3, 43)], dtype, steps=3)
        others = twins(params)
        theirs = torch.optim.RMSprop(others)
        theirs.load_state_dict(through_a_file(optimizer.state_dict()))
        random_grads(others)
        theirs.step()
        resumed = twins(others)
        again = FusedRMSProp(resumed, **mode)
        again.load_state_dict(through_a_file(theirs.state_dict()))
        for p, q in zip(resumed, others, strict=True):
            for key in ("square_avg", "momentum_buffer", "grad_avg"):
                assert (key in theirs.state[q]) == (key in again.state_dict()["state"][0])
            assert again.state[p]["step"] == 4
        random_grads(resumed)
        again.step()
        assert all(p.isfinite().all() for p in resumed)


def test_a_mode_switched_on_in_the_middle():
    """Options of a group may change between steps; states follow."""
    optimizer, params = made(RULES["Graves"], {}, steps=2)
    names = {"square_avg", "grad_avg", "momentum_buffer", "step"}
    lean = {"square_avg", "square_avg_scale", "grad_avg", "grad_avg_scale", "momentum_buffer", "momentum_buffer_scale", "step"}
    for mode, expected in (
        (MODES["split, 8-bit state"], lean | {"master_param"}),
        (dict(state_dtype="8bit", master_weights="float32"), lean | {"master_param"}),
        (dict(state_dtype=BF16, master_weights=None), names),
        (dict(state_dtype=F32), names),
    ):
        optimizer.param_groups[0].update(mode)
        random_grads(params)
        optimizer.step()
        step_and_check(optimizer)
        assert optimizer.state[params[0]].keys() == expected


def test_groups_with_different_modes(device):
    params = parameters([(65,)] * 4, device, BF16)
    kinds = [{}, *list(MODES.values())[:3]]
    optimizer = FusedRMSProp([dict(params=[p], **mode) for p, mode in zip(params, kinds, strict=True)], state_dtype="8bit")
    for _ in range(2):
        random_grads(params)
        step_and_check(optimizer)
    assert {optimizer.state[p]["square_avg"].dtype for p in params} == {torch.uint8}


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
        for mode in (MODES["split, 8-bit state"], MODES["stochastic, 8-bit state"], MODES["master"]):
            param = parameter(values.clone() if values.is_contiguous() else values)
            optimizer = FusedRMSProp([param], centered=True, momentum=0.9, **mode)
            for _ in range(2):
                set_grad(param, torch.randn_like(param) if grad is None else grad)
                step_and_check(optimizer)


@pytest.mark.interpret
@modes
def test_how_it_is_divided_changes_no_bit(device, mode, monkeypatch):
    """Neither the blocks of a launch, its chunks, nor who shares it."""

    def run(together=True):
        torch.manual_seed(0)
        optimizer, params = made(RULES["centered"], mode, [(5000,), (130,)], device=device)
        for _ in range(2):
            random_grads(params)
            grads = [p.grad for p in params]
            for active in [params] if together else [[p] for p in params]:
                for p, grad in zip(params, grads, strict=True):
                    p.grad = grad if any(p is other for other in active) else None
                optimizer.step()
        return [{"param": p.detach(), **optimizer.state[p]} for p in params]

    expected = run()
    results = [run(together=False)]
    for size, threads in ((1 << 12, 256), (1 << 16, 128)):
        monkeypatch.setattr(cpu, "CHUNK", size)
        for name, value in dict(CHUNK=size, CODED_CHUNK=size, THREADS=threads, CODED_THREADS=threads).items():
            monkeypatch.setattr(launch, name, value)
        results.append(run())
    for result in results:
        assert all(same_state(a, b) for a, b in zip(result, expected, strict=True))


@pytest.mark.parametrize("mode", variants.MODES)
@pytest.mark.parametrize("rule", variants.RULES)
def test_defaults_are_valid(rule, mode):
    """In the interpreter too, where the tests make blocks larger: a chunk holds one at least, or none were ever whole."""
    storage = variants.variant(rule, mode).storage
    assert launch.is_valid(launch.gpu_config(storage), storage)


def test_bytes():
    """What the README says a parameter takes, gradient excluded."""
    for options, most in (
        (MODES["split, 8-bit state"], 5.1),
        (MODES["stochastic, 8-bit state"], 3.1),
        ({}, 6.001),
        (dict(master_weights="float32"), 10.01),
    ):
        optimizer, params = made(RULES["plain"], options, [(1000, 1000)], steps=1)
        memory = optimizer.memory()
        assert memory.per_parameter["total"] - memory.per_parameter["gradients"] <= most
        assert memory.numel == 10**6
        assert memory.parameters == memory.gradients == 2 * 10**6
        assert memory.total == memory.parameters + memory.gradients + sum(memory.states.values()) + memory.tables
        state = optimizer.state[params[0]]
        assert memory.states == {key: value.nbytes for key, value in state.items()}
        assert 0 < memory.tables < 2000
    (param,) = parameters([(10,)])
    memory = FusedRMSProp([param]).memory()
    assert (memory.total, memory.states, memory.tables, memory.gradients) == (40, {}, 0, 0)
    assert FusedRMSProp([torch.empty(0)]).memory().per_parameter["total"] == 0


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
        assert (lean - single).abs().max() < 0.2 * single.abs().max()


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


def test_what_is_not_finite_spreads_to_its_group_alone():
    for value in (torch.nan, torch.inf):
        optimizer, (param,) = made(RULES["plain"], dict(state_dtype="8bit"), [(4 * GROUP,)], dtype=F32)
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


@pytest.mark.parametrize(
    ("dtype", "mode", "message"),
    [
        (F16, dict(master_weights="split"), r"params\[0\] is torch.float16, but master_weights='split' .* master_weights='float32'"),
        (F64, dict(state_dtype="8bit"), r"params\[0\] is torch.float64, but state_dtype='8bit' .* state_dtype=torch.float32"),
        (torch.complex64, dict(state_dtype=BF16), r"params\[0\] is torch.complex64, but state_dtype=torch.bfloat16"),
    ],
)
def test_parameters_that_cannot_be_stored_so(dtype, mode, message):
    params = parameters([(3,)], dtype=dtype)
    random_grads(params)
    before = params[0].detach().clone()
    optimizer = FusedRMSProp(params, **mode)
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()
    assert torch.equal(params[0], before)
    assert not optimizer.state


def test_wide_parameters_need_no_master():
    """Nor stochastic rounding: beside 16-bit ones they are updated as ever."""
    for mode in (dict(master_weights="split"), dict(master_weights="float32"), dict(stochastic_rounding=True)):
        for dtype in (F32, F64, torch.complex64):
            optimizer, params = made(RULES["plain"], mode, dtype=dtype, steps=1)
            assert optimizer.state[params[3]].keys() == {"square_avg", "step"}
            for param, value in export_master(optimizer):
                assert torch.equal(param, value)
                assert value.dtype == dtype
                assert not param.numel() or value.data_ptr() != param.data_ptr()


def test_damaged_states():
    optimizer, params = made(RULES["plain"], dict(state_dtype="8bit"), [(130,)], steps=1)
    whole = dict(optimizer.state[params[0]])
    for key, value in (
        ("square_avg_scale", None),
        ("square_avg_scale", torch.ones(5)),
        ("square_avg", torch.ones(7, dtype=torch.uint8)),
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
        with pytest.raises(ValueError, match=f"the {key} of params.0. has"):
            optimizer.step()
        assert torch.equal(params[0], before)


@pytest.mark.parametrize(("key", "centered"), [("square_avg", False), ("square_avg", True), ("grad_avg", True), ("momentum_buffer", True)])
@pytest.mark.parametrize(("n", "groups"), [(129, 3), (128, 2), (64, 1), (131, 3), (129, 2)])
def test_codes_cut_together_with_their_scales(key, centered, n, groups):
    """As many groups as there are scales, but not as many elements as the parameter has: nobody takes them."""
    optimizer, (param,) = made((FusedRMSProp, dict(momentum=0.9, centered=centered)), dict(state_dtype="8bit"), [(130,)], steps=1)
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


def test_numbers_in_the_place_of_codes():
    """Are taken as they are, whatever scale lies beside them."""
    optimizer, (param,) = made(RULES["plain"], dict(state_dtype="8bit"), [(130,)], steps=1)
    optimizer.state[param]["square_avg"] = torch.full((130,), 0.25)
    assert torch.equal(optimizer.state_dict()["state"][0]["square_avg"], torch.full((130,), 0.25))
    random_grads([param])
    step_and_check(optimizer)
    assert optimizer.state[param]["square_avg"].dtype == torch.uint8


@pytest.mark.interpret
def test_noise_of_every_parameter_seed_and_step_differs():
    """Equal parameters with equal gradients, rounded by other random bits."""

    def changes(seed, skip=0):
        params = [parameter(torch.ones(4096).bfloat16()) for _ in range(2)]
        optimizer = FusedRMSProp(params, lr=2.0**-10, alpha=0.0, eps=0.0, stochastic_rounding=True, seed=seed)
        steps = []
        for _ in range(2 + skip):
            for p in params:
                p.data.fill_(1)
                set_grad(p, torch.ones_like(p))
            optimizer.step()
            steps += [p.detach() != 1 for p in params]
        return [step.clone().double() for step in steps[-4:]]

    found = changes(0) + changes(1) + changes(2**64 - 1) + changes(0, skip=7)
    again = changes(0)
    assert all(torch.equal(a, b) for a, b in zip(found[:4], again, strict=True))
    correlation = np.corrcoef(torch.stack(found).numpy())
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5 / 64  # 5 standard errors of 4096 pairs
