"""Clipping by norm: the norm itself, bit for bit, and beside torch's clip_grad_norm_."""

import numpy as np
import pytest
import torch

import gpu
from cases import BF16, F16, F32, F64, SHAPES
from fusedrms import FusedRMSProp, FusedSMORMS3
from fusedrms.engine.tables.buckets import chunks
from fusedrms.kernels import devices, lang, launch
from fusedrms.kernels.cpu import step as cpu
from fusedrms.kernels.cpu import threads as cpu_threads
from fusedrms.kernels.tables import NormTables
from tools import assert_close, copy_grads, parameter, parameters, random_grads, set_grad, step_and_check, twins

pytestmark = pytest.mark.interpret
BIG = [*SHAPES, (16384,), (3 * 16384 + 1025,), (40_000,)]


def norm_of(params, **options) -> torch.Tensor:
    optimizer = FusedRMSProp(params, lr=0.0, **{"clip_grad_norm": 1.0, **options})
    optimizer.step()
    return optimizer.last_grad_norm


@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64, torch.complex64], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e6])
def test_as_torch(device, dtype, limit):
    """The same norm, and the same step as clipping first."""
    ours = parameters(BIG, device, dtype)
    theirs = twins(ours)
    a, b = FusedRMSProp(ours, clip_grad_norm=limit), FusedRMSProp(theirs)
    for _ in range(2):
        random_grads(ours)
        copy_grads(ours, theirs)
        wide = [parameter(p.detach().to(torch.complex128 if p.is_complex() else F64)) for p in theirs]
        for p, q in zip(wide, theirs, strict=True):
            p.grad = q.grad.to(p.dtype)
        norm = torch.nn.utils.clip_grad_norm_(wide, limit)
        for p, q in zip(wide, theirs, strict=True):
            set_grad(q, p.grad.to(q.dtype) if dtype in (F64, torch.complex64) else p.grad.to(F32))
        a.step()
        b.step()
        np.testing.assert_allclose(a.last_grad_norm.item(), norm.item(), rtol=1e-6)
    if dtype in (F32, F64, torch.complex64):
        assert_close(ours, theirs, steps=2)
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.state[p]["square_avg"].cpu(), b.state[q]["square_avg"].cpu(), rtol=4e-6, atol=1e-12)


def test_the_gradient_stays_as_it_is(device):
    params = parameters([(10,), (1030,)], device)
    random_grads(params)
    before = [p.grad.clone() for p in params]
    norm_of(params)
    assert all(torch.equal(p.grad, grad) for p, grad in zip(params, before, strict=True))


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", [F32, BF16, F64], ids=lambda dtype: str(dtype)[6:])
def test_bits_depend_on_the_gradients_alone(device, dtype, monkeypatch):
    """Not on the block size, the chunk size, the threads, the addresses, or on how parameters share launches."""
    shapes = [(1 << 18,), (5,), (16384 + 7,), (1023,)]
    grads = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
    plain = parameters(shapes, device, dtype)
    for p, grad in zip(plain, grads, strict=True):
        p.grad = grad.clone()
    expected = norm_of(plain)
    monkeypatch.setattr(cpu_threads, "MIN_WORK", 1 << 14)
    threads = torch.get_num_threads()
    try:
        for n_threads, block, chunk in ((1, 64, 4096), (2, 256, 8192), (3, 512, 65536)):
            torch.set_num_threads(n_threads)
            if not lang.interpreted():
                monkeypatch.setattr(launch, "THREADS", block)
            monkeypatch.setattr(launch, "CHUNK", chunk)
            monkeypatch.setattr(cpu, "CHUNK", chunk)
            assert torch.equal(norm_of(plain), expected)
    finally:
        torch.set_num_threads(threads)
    elsewhere = []  # every gradient in another bucket: by its address, by its group's rule
    for k, (shape, grad) in enumerate(zip(shapes, grads, strict=True)):
        memory = torch.zeros(grad.numel() + 3, dtype=dtype, device=device)
        memory[k : k + grad.numel()] = grad.flatten()
        elsewhere.append(parameter(torch.randn(shape, device=device).to(dtype)))
        set_grad(elsewhere[-1], memory[k : k + grad.numel()].view(shape))
    groups = [dict(params=[p], momentum=0.5 * (k % 2), centered=k == 2) for k, p in enumerate(elsewhere)]
    assert torch.equal(norm_of(groups), expected)


def test_over_all_groups_and_dtypes(device):
    """One norm for the optimizer, groups without a limit included; each group has its own limit."""
    params = parameters([(100,), (7, 9)], device) + parameters([(50,)], device, BF16) + parameters([(31,)], device, F64)
    limits = [1e-2, None, 2e-2, 1e3]
    optimizer = FusedRMSProp([dict(params=[p], clip_grad_norm=limit) for p, limit in zip(params, limits, strict=True)])
    for _ in range(2):
        random_grads(params)
        step_and_check(optimizer)
    expected = np.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in params))
    np.testing.assert_allclose(optimizer.last_grad_norm.item(), expected, rtol=1e-6)


def test_each_parameter_by_itself(device):
    params = parameters([(100,), (7, 9), (5,)], device)
    optimizer = FusedRMSProp([dict(params=params[:2], clip_norm_over="parameter"), dict(params=params[2:])], clip_grad_norm=0.1)
    for _ in range(2):
        random_grads(params)
        step_and_check(optimizer)


def test_groups_scale_what_they_like(device):
    """The norm is of unclipped gradients in groups that scale the update, whether they have a limit or not; of clipped ones else."""
    params = parameters([(100,), (7, 9), (5,), (40,)], device)
    options = [("update", 0.5), ("update", None), ("gradient", 0.5), ("gradient", None)]
    groups = [dict(params=[p], clip_norm_on=on, clip_grad_norm=limit) for p, (on, limit) in zip(params, options, strict=True)]
    optimizer = FusedRMSProp(groups, clip_grad_value=0.5)
    for _ in range(2):
        random_grads(params)
        step_and_check(optimizer)


MEASURED = {
    "gradient": {},
    "each parameter": dict(clip_norm_over="parameter"),
    "update": dict(clip_norm_on="update", momentum=0.9),
    "clipped": dict(clip_grad_value=0.5),
    "skip": dict(skip_nonfinite=True, clip_grad_value=0.5),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter
@pytest.mark.parametrize("options", MEASURED.values(), ids=MEASURED)
@pytest.mark.parametrize("broken", [None, 1.0, np.inf, np.nan])
def test_an_infinite_limit_measures(device, options, broken):
    """The norm is there, and parameters and states are bit for bit those without it, also where a gradient is not finite."""
    params = parameters([(100,), (7, 9), (5,)], device)
    plain = twins(params)
    optimizer, expected = FusedRMSProp(params, clip_grad_norm=np.inf, **options), FusedRMSProp(plain, **options)
    for step in range(3):
        random_grads(params)
        if step == 1 and broken is not None:
            params[1].grad[0, 0] = broken
        copy_grads(params, plain)
        optimizer.step()
        expected.step()
        for p, q in zip(params, plain, strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=0, equal_nan=True)
            for key, value in expected.state[q].items():
                torch.testing.assert_close(optimizer.state[p][key], value, rtol=0, atol=0, equal_nan=True)
        grads = np.concatenate([p.grad.double().cpu().numpy().ravel() for p in params])
        if "clip_grad_value" in options and "skip_nonfinite" not in options:
            grads = grads.clip(-0.5, 0.5)
        np.testing.assert_allclose(optimizer.last_grad_norm.item(), np.sqrt((grads**2).sum()), rtol=1e-6)
        assert expected.last_grad_norm is None
    assert optimizer.skipped_steps == expected.skipped_steps == ("skip_nonfinite" in options and broken in (np.inf, np.nan))


@pytest.mark.filterwarnings("error")
def test_a_limit_beyond_float32(device):
    params = parameters([(100,)], device)
    optimizer = FusedRMSProp(params, clip_grad_norm=1e39, clip_norm_on="update", clip_grad_value=0.5)
    random_grads(params)
    optimizer.step()
    expected = np.sqrt(float((params[0].grad.double() ** 2).sum()))
    np.testing.assert_allclose(optimizer.last_grad_norm.item(), expected, rtol=1e-6)


def test_beyond_32_bits(device):
    """The last chunk of a gradient of 2**33 elements: real memory for it alone."""
    numel = 2**33 + 5
    tensor, start = chunks(np.array([numel]), launch.norm_chunk_size())
    memory = torch.randn(5, device=device)
    ours = FusedRMSProp(parameters([(1,)]))
    recipe = ours.recipe(ours.param_groups[0])
    tables = NormTables(
        addresses=np.array([[memory.data_ptr() - 4 * 2**33]]),
        numels=np.array([numel]),
        groups=np.zeros(1, np.int32),
        chunk_tensor=tensor[-1:],
        chunk_start=start[-1:],
        hyper=np.array([(*recipe.common, *recipe.args)], np.float32),
        first_sum=-start[-1:] // launch.norm_chunk_size(),
        scalars=np.array([0.0, 1.0, 0.0]),
    )
    sums = np.zeros(1)
    if devices.uses_triton(device):
        tables = NormTables(*(torch.from_numpy(table).to(device) for table in tables))
        sums = torch.from_numpy(sums).to(device)
    launch.prepare_squares("float32", False, tables)(sums)
    np.testing.assert_allclose(float(sums[0]), float((memory.double() ** 2).sum()), rtol=1e-6)


def test_turned_on_and_off(device):
    params = parameters([(100,), (7,)], device)
    optimizer = FusedSMORMS3(params)
    (group,) = optimizer.param_groups
    for limit in (None, 0.5, 0.1, None, 0.1):
        group["clip_grad_norm"] = limit
        random_grads(params)
        step_and_check(optimizer)
        assert (optimizer.last_grad_norm is None) == (limit is None)


def test_missing_gradients(device):
    params = parameters([(100,), (7,), (3,)], device)
    optimizer = FusedRMSProp(params, clip_grad_norm=0.1)
    assert optimizer.last_grad_norm is None
    optimizer.step()
    assert optimizer.last_grad_norm is None
    for missing in (0, 1, 2):
        random_grads(params)
        params[missing].grad = None
        step_and_check(optimizer)


def test_the_norm_is_the_users_to_keep(device):
    params = parameters([(100,)], device)
    optimizer = FusedRMSProp(params, clip_grad_norm=0.1)
    kept = []
    for _ in range(3):
        random_grads(params)
        optimizer.step()
        kept.append(optimizer.last_grad_norm)
    assert kept[0].shape == ()
    assert kept[0].dtype == F64
    assert kept[0].device.type == device.type
    assert len({norm.item() for norm in kept}) == 3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter
@pytest.mark.parametrize(("value", "expected"), [(torch.inf, [0.0, torch.nan]), (torch.nan, [torch.nan, torch.nan])])
def test_broken_gradients(device, value, expected):
    """As torch's clip_grad_norm_ leaves them: an infinite norm scales to 0, NaN is passed on. Groups without a limit see neither."""
    grads = torch.tensor([1.0, value], device=device)
    params = [parameter(torch.ones(2, device=device)) for _ in range(2)]
    optimizer = FusedRMSProp([dict(params=params[:1], clip_grad_norm=1.0), dict(params=params[1:])])
    for p in params:
        p.grad = grads.clone()
    optimizer.step()
    theirs = parameter(torch.ones(2, device=device))
    theirs.grad = grads.clone()
    torch.nn.utils.clip_grad_norm_([theirs], 1.0)
    assert torch.equal(theirs.grad.isnan().cpu(), torch.tensor(expected).isnan())
    assert torch.equal(params[0].isnan(), theirs.grad.isnan())
    assert params[1].isnan().tolist() == [False, True]
    assert not torch.isfinite(optimizer.last_grad_norm)


@pytest.mark.gpu
def test_no_sync_and_two_devices():
    params = parameters([(1000,), (70_000,)], gpu.DEVICE)
    optimizer = FusedRMSProp(params, clip_grad_norm=0.1)
    random_grads(params)
    optimizer.step()
    random_grads(params)
    gpu.module.set_sync_debug_mode("error")
    try:
        optimizer.step()
        norm = optimizer.last_grad_norm
    finally:
        gpu.module.set_sync_debug_mode("default")
    assert norm.device.type == gpu.KIND
    side = gpu.module.Stream()
    side.wait_stream(gpu.module.current_stream())
    with gpu.module.stream(side):
        optimizer.step()
    side.synchronize()
    assert optimizer.last_grad_norm == norm
    mixed = [*params, *parameters([(300,)], "cpu")]
    optimizer = FusedRMSProp(mixed, clip_grad_norm=0.1)
    for _ in range(2):
        random_grads(mixed)
        step_and_check(optimizer)
