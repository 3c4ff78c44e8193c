"""The numbers: both drivers against the float64 reference and torch, in every dtype and layout."""

import numpy as np
import pytest
import torch

from cases import BF16, DTYPES, F16, F32, F64, FAMILY, OPTIONS, SHAPES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.kernels import devices, launch
from fusedrms.kernels.storage import Storage
from fusedrms.kernels.tables import FIRST_NORM, Tables
from tools import assert_close, parameter, parameters, random_grads, set_grad, step_and_check, step_both, twins

pytestmark = pytest.mark.interpret
options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@options
@pytest.mark.parametrize(("dtype", "grad_dtype"), DTYPES, ids=lambda dtype: str(dtype)[6:])
def test_reference(device, options, dtype, grad_dtype):
    params = parameters(SHAPES, device, dtype)
    optimizer = FusedRMSProp(params, **options)
    for _ in range(2):
        random_grads(params, grad_dtype)
        step_and_check(optimizer)


@pytest.mark.parametrize("dtype", [F32, BF16, F64, torch.complex64], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("options", FAMILY.values(), ids=FAMILY)
def test_family(device, options, dtype):
    params = parameters(SHAPES, device, dtype)
    optimizer = FusedRMSProp(params, **options)
    for _ in range(3):
        random_grads(params)
        step_and_check(optimizer)


@pytest.mark.parametrize(("dtype", "grad_dtype"), DTYPES, ids=lambda dtype: str(dtype)[6:])
def test_smorms3(device, dtype, grad_dtype):
    params = parameters(SHAPES, device, dtype)
    shared = dict(weight_decay=0.1, clip_grad_norm=1.0, clip_weights=2.0)
    optimizer = FusedSMORMS3([dict(params=params[:5]), dict(params=params[5:], lr=0.5, **shared)], lr=0.1)
    for _ in range(3):
        random_grads(params, grad_dtype)
        step_and_check(optimizer)
    for p in params:
        state = optimizer.state[p]
        assert {state[key].dtype for key in ("square_avg", "grad_avg", "mem")} == {F32 if dtype in (BF16, F16) else dtype}


@options
@pytest.mark.parametrize("dtype", [F32, F64, torch.complex64])
def test_torch(device, options, dtype):
    ours = parameters(SHAPES, device, dtype)
    theirs = twins(ours)
    a, b = FusedRMSProp(ours, **options), torch.optim.RMSprop(theirs, **options)
    step_both(a, b, ours, theirs, steps=5)
    assert_close(ours, theirs, steps=5)
    for p, q in zip(ours, theirs, strict=True):
        assert a.state[p].keys() == b.state[q].keys()
        assert a.state[p]["step"].item() == b.state[q]["step"].item() == 5
        for key, value in b.state[q].items():
            assert a.state[p][key].shape == value.shape
            assert a.state[p][key].dtype == value.dtype


def layouts(device):
    """Parameters and gradients whose memory is in every order."""
    contiguous = torch.randn(4, 6, 5, 3, device=device)
    flat = torch.randn(1000, device=device)
    gaps = torch.randn(8, 10, device=device)
    return {
        "channels_last": (contiguous.to(memory_format=torch.channels_last), None),
        "channels_last gradient": (contiguous, torch.randn_like(contiguous).to(memory_format=torch.channels_last)),
        "transposed": (torch.randn(5, 7, device=device).t(), None),
        "transposed gradient": (torch.randn(5, 5, device=device), torch.randn(5, 5, device=device).t()),
        "both transposed, other orders": (
            torch.randn(4, 4, 4, device=device).permute(2, 0, 1),
            torch.randn(4, 4, 4, device=device).permute(1, 2, 0),
        ),
        "size-1 dimension": (torch.randn(6, 1, 4, device=device), torch.randn(4, 1, 6, device=device).transpose(0, 2).contiguous()),
        "size-1 strides": (torch.randn(6, 4, device=device), torch.randn(6, 4, device=device).as_strided((6, 4), (4, 1))),
        "strange stride of a size-1 dimension": (torch.randn(1, 8, device=device).as_strided((1, 8), (77, 1)), None),
        "misaligned": (flat[1:14], None),
        "misaligned gradient": (torch.randn(13, device=device), flat[21:34]),
        "expanded gradient": (torch.randn(5, 3, device=device), torch.randn(3, device=device).expand(5, 3)),
        "0-d gradient expanded": (torch.randn(5, device=device), torch.randn((), device=device).expand(5)),
        "gaps": (gaps[:, :3], None),
        "gaps in the gradient": (torch.randn(8, 3, device=device), gaps[:, 4:7]),
        "gaps in both": (gaps[1:7:2, ::2], torch.randn(9, 15, device=device)[::3, ::3]),
    }


@pytest.mark.parametrize("layout", layouts("cpu"))
def test_layout(device, layout):
    values, grad = layouts(device)[layout]
    param = parameter(values)
    strides = param.stride()
    optimizer = FusedRMSProp([param], centered=True, momentum=0.9)
    for _ in range(2):
        set_grad(param, torch.randn_like(param) if grad is None else grad)
        step_and_check(optimizer)
    assert param.stride() == strides


@pytest.mark.parametrize("dtype", [F32, BF16, F16])
def test_views_into_one_buffer(device, dtype):
    """As DDP and flat optimizers have them; nothing outside of the views may change."""
    sizes, guard = [5, 1, 16, 1024, 3, 2000], 7
    buffer = torch.randn(sum(sizes) + guard * (len(sizes) + 1), device=device).to(dtype)
    grads = torch.randn_like(buffer)
    starts = [sum(sizes[:i]) + guard * (i + 1) for i in range(len(sizes))]
    params = [parameter(buffer[start : start + size]) for start, size in zip(starts, sizes, strict=True)]
    inside = torch.zeros(buffer.shape, dtype=torch.bool, device=device)
    for param, start, size in zip(params, starts, sizes, strict=True):
        set_grad(param, grads[start : start + size])
        inside[start : start + size] = True
    before = buffer.clone()
    step_and_check(FusedRMSProp(params, momentum=0.9))
    assert torch.equal(buffer[~inside], before[~inside])
    assert not torch.any((buffer == before)[inside & (grads != 0)])  # 16-bit noise may be exactly 0


def test_conjugated_gradients(device):
    complex_, real = parameters([(3, 2)], device, torch.complex64)[0], parameters([()], device)[0]
    optimizer = FusedRMSProp([complex_, real])
    for lazily in (False, True, True, False):
        grads = torch.randn(3, 2, dtype=torch.complex64, device=device), torch.randn((), dtype=torch.complex64, device=device)
        complex_.grad = grads[0].conj() if lazily else grads[0]
        real.grad = grads[1].conj().imag if lazily else grads[1].real.clone()
        assert real.grad.is_neg() == complex_.grad.is_conj() == lazily
        step_and_check(optimizer)


def test_groups_share_a_launch(device, monkeypatch):
    params = parameters([(50,), (3, 3), (2000,)], device)
    groups = [
        dict(params=[p], lr=lr, weight_decay=wd, alpha=a)
        for p, lr, wd, a in zip(params, (0.1, 1e-3, 0.0), (0, 0.1, 1), (0.9, 0.99, 0), strict=True)
    ]
    optimizer = FusedRMSProp(groups)
    launches = []

    def prepare(*args):
        run = launch.prepare(*args)
        return lambda norms: launches.append(args) or run(norms)

    monkeypatch.setattr("fusedrms.engine.tables.buckets.prepare", prepare)
    for steps in (1, 2):
        random_grads(params)
        step_and_check(optimizer)
        assert len(launches) == steps


@pytest.mark.exhaustive
def test_bitwise_repeatable(device):
    """Whatever the addresses, the number of threads and the neighbours in the bucket."""
    start = parameters([(1 << 18,), (1000,), (77, 3)], device)
    grads = [[torch.randn_like(p) for p in start] for _ in range(3)]
    results = []
    threads = torch.get_num_threads()
    try:
        for extra, n_threads in ((0, 1), (0, 2), (3, 2), (5, 4)):
            torch.set_num_threads(n_threads)
            params = parameters([(11,)] * extra, device) + twins(start)
            optimizer = FusedRMSProp(params, centered=True, momentum=0.9)
            for step in grads:
                for p, g in zip(params, [torch.randn_like(p) for p in params[:extra]] + step, strict=True):
                    p.grad = g.clone()
                optimizer.step()
            results.append(params[extra:])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [F32, F64])
def test_constant_gradient_makes_no_nan(device, dtype):
    """The centered variance of a constant gradient rounds below 0; torch takes its root."""
    param = parameter(torch.zeros(4096, dtype=dtype, device=device))
    optimizer = FusedRMSProp([param], centered=True, alpha=0.5)
    grad = torch.randn_like(param)
    for _ in range(60):  # so that the averages stand still, in float64 as well
        param.grad = grad.clone()
        optimizer.step()
    assert torch.isfinite(param).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter
@pytest.mark.parametrize("dtype", [F32, BF16, F64])
@pytest.mark.parametrize("optimizer", [FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3])
def test_tiny_and_huge_gradients_make_no_nan(device, optimizer, dtype):
    """Squares that vanish, or are infinite in float32, now or before."""
    kinds = torch.tensor([0.0, 1e-30, -1e-20, 1e-8, 1.0, -1e18, 1e19, 1e25, -1e30], dtype=F64)
    param = parameter(torch.randn(kinds.numel() ** 2, device=device).to(dtype))
    optimizer = optimizer([param])
    first, later = torch.cartesian_prod(kinds, kinds).T.to(device, F32)  # every kind after every kind
    for grad in (first, later, torch.zeros_like(later), later, first):
        set_grad(param, grad.clone())
        optimizer.step()
        assert torch.isfinite(param).all()
        assert not any(torch.isnan(value).any() for value in optimizer.state[param].values())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter
@pytest.mark.parametrize("options", [{}, dict(centered=True), dict(momentum=0.9), dict(centered=True, momentum=0.9)], ids=str)
def test_squares_that_only_their_weight_keeps_finite(device, options):
    """In float32 1e20 squared is infinite, a hundredth of it is not: torch multiplies by that first."""
    ours, theirs = parameter(torch.ones(5, device=device)), parameter(torch.ones(5, device=device))
    a, b = FusedRMSProp([ours], **options), torch.optim.RMSprop([theirs], **options)
    for scale in (1e20, -1e20, 3.0):
        ours.grad = torch.full_like(ours, scale)
        theirs.grad = ours.grad.clone()
        a.step()
        b.step()
        torch.testing.assert_close(a.state[ours]["square_avg"], b.state[theirs]["square_avg"], rtol=1e-6, atol=0)
        torch.testing.assert_close(ours, theirs)
    assert torch.isfinite(a.state[ours]["square_avg"]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter
def test_a_huge_gradient_of_smorms3(device):
    param = parameter(torch.ones(5, device=device))
    optimizer = FusedSMORMS3([param])
    param.grad = torch.full_like(param, 2e19)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[param]["square_avg"], torch.full_like(param, 2e38))  # (1 - r) 0 + r g², r = 1/2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter
@pytest.mark.parametrize("options", [dict(clip_grad_value=0.5), dict(clip_weights=0.5)], ids=str)
def test_clipping_keeps_nan(device, options):
    """As torch.clamp does: a broken gradient must not pass for a large one."""
    param = parameter(torch.ones(3, device=device))
    optimizer = FusedRMSProp([param], **options)
    param.grad = torch.tensor([1.0, torch.nan, torch.inf], device=device)
    optimizer.step()
    assert torch.isnan(param).tolist() == [False, True, "clip_weights" in options]  # inf / inf, but for a clipped gradient


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter
@pytest.mark.parametrize("dtype", [F32, BF16, F16])
def test_infinite_values(device, dtype):
    """What torch makes of NaN and infinity, element by element: a NaN never spreads, a masked -inf parameter stays."""
    values = torch.tensor([1.0, -torch.inf, 1.0, 1.0, 1.0, 0.0, -1.0], device=device)
    grads = torch.tensor([torch.nan, 0.5, torch.inf, 1e30, 1e-30, 0.0, -torch.inf], device=device)
    ours, theirs = parameter(values.to(dtype)), parameter(values.clone())
    a, b = FusedRMSProp([ours]), torch.optim.RMSprop([theirs])
    for _ in range(3):
        set_grad(ours, grads.clone())
        theirs.grad = grads.clone()
        a.step()
        b.step()
        theirs.data = theirs.data.to(dtype).float()
    torch.testing.assert_close(ours.float(), theirs, equal_nan=True)


def test_beyond_32_bits(device):
    """The last chunk of a tensor of 2**33 elements: real memory for it alone, at the address that the arithmetic must reach."""
    from fusedrms.engine.tables.chunks import chunks

    numel, storage = 2**33 + 5, Storage((("float32",),) * 3)
    config = launch.default_config(device, storage)
    tensor, start = chunks(np.array([numel]), config.chunk)
    assert start[-1] == 2**33
    assert (tensor == 0).all()
    memory = [torch.randn(5, device=device) for _ in range(2)] + [torch.zeros(5, device=device)]
    expected = torch.optim.RMSprop([parameter(memory[1].clone())])
    expected.param_groups[0]["params"][0].grad = memory[0].clone()
    ours = FusedRMSProp([parameter(torch.zeros(1))])
    recipe = ours.recipe(ours.param_groups[0])
    tables = Tables(
        addresses=np.array([[m.data_ptr() - 4 * 2**33] for m in memory]),
        numels=np.array([numel]),
        groups=np.zeros(1, np.int32),
        chunk_tensor=tensor[-1:],
        chunk_start=start[-1:],
        hyper=np.array([(*recipe.common, *recipe.args)], np.float32),
        norm_index=np.full(1, FIRST_NORM, np.int32),
        random_key=np.zeros((1, 3), np.int32),
        shard_offset=np.zeros(1, np.int64),
        boosts=np.zeros(0),
        first_unit=np.zeros(0, np.int64),
        unit_sums=np.zeros((0, 0), np.float32),
    )
    scalars = np.array([0.0, 1.0, 0.0])
    if devices.uses_triton(device):
        tables = Tables(*(torch.from_numpy(table).to(device) for table in tables))
        scalars = torch.from_numpy(scalars).to(device)
    launch.prepare("rmsprop", storage, False, tables, config)(scalars)
    expected.step()
    torch.testing.assert_close(memory[1], expected.param_groups[0]["params"][0].detach())
