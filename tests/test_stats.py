"""Statistics of steps: against float64, in the same bits however work is divided, of groups and all, and when they are taken."""

import copy

import numpy as np
import pytest
import torch

import gpu
from cases import BF16, F32, F64, MODES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, apply_in_backward, export_master
from fusedrms.engine.tables import buckets
from fusedrms.kernels.launch import CPUConfig
from tools import exact, full_state, natively, parameters, random_grads, set_grad

SHAPES = [(), (0,), (1,), (63,), (65, 3), (4096 + 1,), (3, 16384)]
OTHERS = ("update_ratio", "grad_max", "grad_zeros", "grad_nonfinite")


def values(optimizer) -> dict[str, float]:
    return optimizer.stats().as_dict()


def expected(optimizer, before) -> dict[str, float]:
    """Of the step that has just been made; before: parameters in full precision."""
    found, rows = {}, []
    states, masters = full_state(optimizer), dict(export_master(optimizer))
    for k, param in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        grad, new = exact(param.grad), exact(masters[param])
        row = dict(grad=grad, update=new - before[k], param=new)
        row |= {key: exact(value) for key, value in states[param].items() if key not in ("step", "param_ema", "master_param")}
        rows.append(row)
        found |= {f"params[{k}]/{key}_norm": np.linalg.norm(value) for key, value in row.items()}
        found[f"params[{k}]/grad_max"] = np.max(np.abs(grad), initial=0.0)
        found[f"params[{k}]/grad_zeros"] = np.mean(grad == 0) if grad.size else 0.0
    for key in rows[0]:
        found[f"{key}_norm"] = np.linalg.norm(np.concatenate([row[key].ravel() for row in rows]))
    found["update_ratio"] = found["update_norm"] / found["param_norm"]
    return found


def check(optimizer, params, rtol: float, mean: float = 0.0) -> None:
    """mean: of the gradients, whose variance is 1."""
    before = [exact(dict(export_master(optimizer))[param]) for param in params]
    random_grads(params)
    for param in params:
        param.grad += mean
    params[-1].grad.view(-1)[::7] = 0
    optimizer.step()
    found, right = values(optimizer), expected(optimizer, before)
    assert right.keys() <= found.keys()
    for key, value in right.items():
        np.testing.assert_allclose(found[key], value, rtol=rtol, atol=1e-30, err_msg=key)


@pytest.mark.interpret
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (FusedRMSProp, {}),
        (FusedRMSProp, dict(momentum=0.9, clip_grad_norm=0.1, weight_decay=0.1, ema_decay=0.5)),
        (FusedRMSPropGraves, {}),
        (FusedSMORMS3, {}),
    ],
    ids=["plain", "momentum", "Graves", "SMORMS3"],
)
@pytest.mark.parametrize("dtype", [F32, F64, torch.complex64], ids=str)
def test_reference(cls, options, dtype):
    torch.manual_seed(0)
    params = parameters(SHAPES, dtype=dtype)
    optimizer = cls(params, lr=0.1, stats=True, **options)
    for _ in range(2):
        check(optimizer, params, 1e-12 if dtype == F64 else 2e-5)


@natively
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_modes(mode):
    """Of values before they are rounded, but to a master of 32 bits, and of states before they become codes."""
    torch.manual_seed(0)
    params = parameters(SHAPES, dtype=BF16)
    optimizer = FusedRMSProp(params, lr=0.1, alpha=0.5, centered=True, eps=1e-2, stats=True, **mode)
    for _ in range(3):  # until the second moment is far from the variance, which some modes store in its place
        exactly = mode.get("master_weights") and "state_dtype" not in mode
        check(optimizer, params, 1e-4 if exactly else 0.25 if mode.get("state_dtype") == "4bit" else 0.05, mean=3.0)


@natively
@pytest.mark.parametrize(("dtype", "mode"), [(F32, {}), (BF16, MODES["split, 8-bit state"])], ids=["float32", "split, 8 bits"])
def test_how_it_is_divided_changes_no_bit(dtype, mode, monkeypatch):
    """Nor does measuring change a bit of the run."""
    runs, plain = [], None
    for chunk, threads, stats in ((1 << 14, 1, True), (64, 2, True), (1 << 16, 2, True), (1 << 14, 1, False)):
        torch.manual_seed(0)
        torch.set_num_threads(threads)
        params = parameters([(100_003,), (130,), (70_000,)], dtype=dtype)
        with monkeypatch.context() as patch:
            patch.setattr(buckets, "choose", lambda *_, chunk=chunk: CPUConfig(chunk, 1))
            patch.setattr("fusedrms.kernels.cpu.threads.MIN_WORK", 64)
            optimizer = FusedRMSProp(params, momentum=0.9, stats=stats, **mode)
            for _ in range(2):
                random_grads(params)
                optimizer.step()
        if stats:
            runs.append(values(optimizer))
        made = [param.detach().clone() for param in params]
        assert plain is None or all(torch.equal(a, b) for a, b in zip(plain, made, strict=True))
        plain = made
    torch.set_num_threads(2)
    assert runs[0] == runs[1] == runs[2]


@natively
@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_what_is_not_finite(dtype):
    (param,) = parameters([(10_000,)], dtype=dtype)
    optimizer = FusedRMSProp([param], stats=True)
    grad = torch.ones(10_000, dtype=dtype)
    grad[[3, 5000, 9999]] = torch.tensor([torch.inf, torch.nan, -torch.inf], dtype=dtype)
    grad[7] = -4.0
    set_grad(param, grad)
    optimizer.step()
    found = optimizer.stats().parameters["params[0]"]
    assert found["grad_nonfinite"] == 3e-4
    assert found["grad_max"] == torch.inf
    assert found["grad_norm"].isnan()
    grad[[3, 9999]] = 1.0
    set_grad(param, grad)
    optimizer.step()
    assert optimizer.stats().total["grad_max"] == 4.0


@natively
def test_in_a_backward():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Linear(20, 2))
    plain = copy.deepcopy(model)
    optimizer = apply_in_backward(model, FusedRMSProp, stats=True)
    reference = FusedRMSProp(plain.parameters(), stats=True)
    for _ in range(2):
        x = torch.randn(4, 30)
        model(x).square().mean().backward()
        reference.zero_grad()
        plain(x).square().mean().backward()
        reference.step()
    assert values(optimizer) == values(reference)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "mode"), [(F32, {}), (BF16, MODES["split, 8-bit state"])], ids=["float32", "split, 8 bits"])
def test_on_a_gpu(dtype, mode):
    params = parameters(SHAPES, gpu.DEVICE, dtype)
    optimizer = FusedRMSProp(params, lr=0.1, stats=True, **mode)
    for _ in range(2):
        check(optimizer, params, 0.05 if mode else 2e-5)
    assert optimizer.stats().total["grad_norm"].device == params[0].device
    assert str(values(optimizer)) == str(values(optimizer))  # NaN too: an empty parameter has no ratio
