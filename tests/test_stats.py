"""Statistics of steps: against float64, in the same bits however work is divided, of groups and all, and when they are taken."""

import copy
import csv
import io

import numpy as np
import pytest
import torch

import gpu
from cases import BF16, F32, F64, MODES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, apply_in_backward, export_master
from fusedrms.engine.tables import buckets
from fusedrms.kernels.launch import CPUConfig
from tools import exact, full_state, natively, parameters, random_grads, set_grad, twins

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
    """Of the master, if there is one; else of values before they are rounded to 16 bits, and of states before they become codes."""
    torch.manual_seed(0)
    params = parameters(SHAPES, dtype=BF16)
    optimizer = FusedRMSProp(params, lr=0.1, alpha=0.5, centered=True, eps=1e-2, stats=True, **mode)
    for _ in range(3):  # until the second moment is far from the variance, which some modes store in its place
        check(optimizer, params, 1e-4 if mode.get("master_weights") and "state_dtype" not in mode else 0.05, mean=3.0)


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
def test_groups_and_names():
    a, b, c, d = parameters([(3,)] * 4)
    groups = [
        dict(params=[("first", a), ("second", b)], momentum=0.9),
        dict(params=[("third", c)], stats=False),
        dict(params=[("fourth", d)], centered=True),
    ]
    optimizer = FusedRMSProp(groups, stats=True)
    random_grads([a, c, d])
    optimizer.step()
    stats = optimizer.stats()
    assert list(stats.parameters) == ["first", "fourth"]
    assert list(stats.groups) == [0, 2]
    assert "momentum_buffer_norm" not in stats.parameters["fourth"]
    assert {"momentum_buffer_norm", "grad_avg_norm"} <= stats.total.keys()
    torch.testing.assert_close(stats.total["grad_norm"], torch.cat([a.grad, d.grad]).double().norm())
    assert all(isinstance(value, torch.Tensor) and value.dim() == 0 for row in stats.parameters.values() for value in row.values())
    found = stats.as_dict(prefix="optimizer/")
    assert {"optimizer/first/grad_norm", "optimizer/group2/update_ratio", "optimizer/grad_zeros"} <= found.keys()
    assert all(type(value) is float for value in found.values())
    writer = csv.DictWriter(io.StringIO(), found)
    writer.writerow(found)


@natively
def test_every_so_many_steps():
    """The first, and then every k-th; in between the last that were taken."""
    (param,) = parameters([(5,)])
    optimizer = FusedRMSProp([param], stats=3)
    norms = []
    for k in range(1, 8):
        set_grad(param, torch.full((5,), float(k)))
        optimizer.step()
        norms.append(values(optimizer)["grad_max"])
    assert norms == [1, 1, 1, 4, 4, 4, 7]


@natively
def test_scale_and_skipped_steps():
    """Without the loss scale, and rescaled."""
    (param,) = parameters([(5,)])
    optimizer = FusedRMSProp([param], stats=True, rescale_grad=0.5, maximize=True)
    for found_inf, grad, most in ((0.0, 8.0, 1.0), (1.0, 80.0, np.nan), (0.0, 16.0, 2.0)):
        set_grad(param, torch.full((5,), grad))
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(found_inf)
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
        np.testing.assert_equal(values(optimizer)["grad_max"], most)


def test_of_a_step_left_out_all_are_nan(device):
    """Also of the first step, and whatever other gradients steps had before; not those of an older one."""
    params = parameters([(3,), (5,)], device)
    optimizer = FusedRMSProp(params, stats=True, skip_nonfinite=True)
    rows = [(np.nan, 1, True), (1, 1, False), (np.inf, None, True), (2, None, False), (1, np.nan, True), (1, 1, False)]
    for *gradients, left_out in rows:
        for param, value in zip(params, gradients, strict=True):
            param.grad = None if value is None else torch.full_like(param, value)
        optimizer.step()
        assert all(np.isnan(value) == left_out for value in values(optimizer).values())


@natively
def test_names_that_are_not_unique():
    """Each parameter has its row, whatever others, or parameter groups, are called."""
    params = parameters([(3,)] * 5)
    named = list(zip(("weight", "group1", "bias", "weight", "own"), params, strict=True))
    optimizer = FusedRMSProp([dict(params=named[:3]), dict(params=named[3:])], stats=True)
    for k, param in enumerate(params):
        set_grad(param, torch.full((3,), 1.0 + k))
    optimizer.step()
    stats = optimizer.stats()
    names = ["params[0]", "params[1]", "bias", "params[3]", "own"]
    assert {name: float(row["grad_max"]) for name, row in stats.parameters.items()} == dict(zip(names, range(1, 6), strict=True))
    assert stats.as_dict()["group1/grad_max"] == 5


@natively
def test_parameters_taken_out_of_a_group():
    """Statistics stay with their parameters."""
    params = parameters([(3,), (4,), (5,)])
    optimizer = FusedRMSProp(list(zip("abc", params, strict=True)), stats=True)
    random_grads(params)
    optimizer.step()
    before = values(optimizer)
    (group,) = optimizer.param_groups
    del group["params"][0], group["param_names"][0]
    after = values(optimizer)
    assert list(optimizer.stats().parameters) == ["b", "c"]
    assert all(after[key] == before[key] for key in after if key[:2] in ("b/", "c/"))


@pytest.mark.gpu
def test_captured_after_steps_that_were_not_measured():
    """The step before a capture makes all that replays need, which always measure."""
    params = parameters([(1000,)], gpu.DEVICE)
    optimizer = FusedRMSProp(params, stats=10, capturable=True)
    random_grads(params)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    graph = gpu.module.CUDAGraph()
    gpu.module.synchronize()
    with gpu.module.graph(graph):
        optimizer.step()
    params[0].grad.fill_(7.0)
    graph.replay()
    assert values(optimizer)["grad_max"] == 7


@natively
def test_nothing_but_empty_parameters():
    optimizer = FusedRMSProp(parameters([(0,), (0, 3)]), stats=True)
    random_grads(optimizer.param_groups[0]["params"])
    optimizer.step()
    assert optimizer.stats().total["grad_norm"] == 0


@natively
def test_nothing_measured():
    (param,) = parameters([(5,)])
    optimizer = FusedRMSProp([param], stats=True)
    with pytest.raises(RuntimeError, match="no step of this optimizer has been measured yet: make one"):
        optimizer.stats()
    random_grads([param])
    optimizer.step()
    optimizer.stats()
    optimizer.release()
    with pytest.raises(RuntimeError, match="no step of this optimizer has been measured yet"):
        optimizer.stats()
    with pytest.raises(RuntimeError, match="no parameter group has stats, so nothing is measured: make the optimizer with stats=True"):
        FusedRMSProp([param]).stats()


@natively
def test_checkpoints_say_nothing_of_it():
    params = parameters([(5,)])
    optimizer = FusedRMSProp(params, stats=5)
    random_grads(params)
    optimizer.step()
    saved = optimizer.state_dict()
    assert "stats" not in str(saved["param_groups"])
    again = FusedRMSProp(twins(params), stats=2)
    again.load_state_dict(saved)
    assert again.param_groups[0]["stats"] == 2
    assert copy.deepcopy(optimizer).param_groups[0]["stats"] == 5


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


@natively
@pytest.mark.parametrize(
    "wrong", [-1, 1.5, "yes", None, 2**63, [1], torch.tensor(1), float("nan"), b"1", 10**400], ids=lambda value: str(value)[:20]
)
@pytest.mark.parametrize("cls", [FusedRMSProp, FusedSMORMS3])
def test_wrong_options(cls, wrong):
    with pytest.raises(ValueError, match=r"stats=.* is not supported: it must be True, False, or every how many steps"):
        cls(parameters([(3,)]), stats=wrong)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "mode"), [(F32, {}), (BF16, MODES["split, 8-bit state"])], ids=["float32", "split, 8 bits"])
def test_on_a_gpu(dtype, mode):
    params = parameters(SHAPES, gpu.DEVICE, dtype)
    optimizer = FusedRMSProp(params, lr=0.1, stats=True, **mode)
    for _ in range(2):
        check(optimizer, params, 0.05 if mode else 2e-5)
    assert optimizer.stats().total["grad_norm"].device == params[0].device
    assert str(values(optimizer)) == str(values(optimizer))  # NaN too: an empty parameter has no ratio
