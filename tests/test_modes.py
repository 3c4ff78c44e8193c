"""Precision modes: how parameters and states are stored must not change what is computed, only how it is rounded."""

import numpy as np
import pytest
import torch

from cases import BF16, F16, F32, F64, FAMILY, MODES, OPTIONS
from fusedrms import FusedRMSProp
from fusedrms.kernels import launch
from fusedrms.kernels.cpu import step as cpu
from fusedrms.tools import variants
from mode_tools import RULES, check_steps, made, modes, rules, same_state
from tools import parameter, parameters, random_grads, set_grad, step_and_check, step_both


@pytest.mark.interpret
@modes
@rules
def test_reference(device, rule, mode):
    """Against float64 from the very same states; rounding may change a value by one step of its storage."""
    check_steps(rule, mode, BF16, device)


@pytest.mark.exhaustive
@pytest.mark.interpret
@modes
def test_other_dtypes(device, mode):
    if mode.get("master_weights") not in ("split", "split24"):
        check_steps(RULES["plain"], mode, F16, device)
    check_steps(RULES["Graves"], mode, F32, device)


@pytest.mark.parametrize("options", [*OPTIONS.values(), *FAMILY.values()], ids=[*OPTIONS, *FAMILY])
@pytest.mark.parametrize("mode", [MODES["split, 8-bit state"], MODES["stochastic, bfloat16 state"]], ids=str)
def test_every_option(options, mode):
    check_steps((FusedRMSProp, options), mode, BF16, shapes=[(7,), (3, 43)])


@pytest.mark.interpret
@modes
@rules
def test_neutral_options(device, rule, mode):
    """They may have a loop of their own, which gives the bits of the one for all options."""
    (a, params), (b, others) = (made(rule, mode, device=device, **options) for options in ({}, dict(clip_weights=1e38)))
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p)
    step_both(a, b, params, others, steps=3)
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        assert same_state(a.state[p], b.state[q])


def test_groups_with_different_modes(device):
    params = parameters([(65,)] * 4, device, BF16)
    kinds = [{}, *list(MODES.values())[:3]]
    optimizer = FusedRMSProp([dict(params=[p], **mode) for p, mode in zip(params, kinds, strict=True)], state_dtype="8bit")
    for _ in range(2):
        random_grads(params)
        step_and_check(optimizer)
    assert {optimizer.state[p]["square_avg"].dtype for p in params} == {torch.uint8}


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
        for name, value in dict(CHUNK=size, QUANTIZED_CHUNK=size, THREADS=threads, QUANTIZED_THREADS=threads).items():
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
    """What the pages say a parameter takes, gradient excluded."""
    for options, most in (
        (MODES["split, 8-bit state"], 5.1),
        (MODES["stochastic, 8-bit state"], 3.1),
        (MODES["split24, 4-bit state"], 3.57),
        (MODES["stochastic, 4-bit state"], 2.57),
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


@pytest.mark.parametrize(
    ("dtype", "mode", "message"),
    [
        (F16, dict(master_weights="split"), r"params\[0\] is torch.float16, but master_weights='split' .* master_weights='float32'"),
        (F16, dict(master_weights="split24"), r"params\[0\] is torch.float16, but master_weights='split24' .* master_weights='float32'"),
        (F64, dict(state_dtype="4bit"), r"params\[0\] is torch.float64, but state_dtype='4bit' .* state_dtype=torch.float32"),
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
