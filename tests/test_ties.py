"""Masters halfway between two 16-bit numbers survive param.copy_(master), which rounds them to the even one."""

import copy
import gc
import weakref

import pytest
import torch

from cases import BF16, F16, F32
from fusedrms import FusedRMSProp, apply_in_backward, export_master
from mode_tools import STORED, rounded
from test_checkpoint import go_on, through_a_file
from tools import parameter, set_grad, twins

kinds = pytest.mark.parametrize("kind", STORED)


def ties() -> torch.Tensor:
    """All of float32 between two bfloat16, of both signs."""
    bits = (torch.arange(-(2**15), 2**15, dtype=torch.int32) << 16) | 0x8000
    values = bits.view(F32)
    return values[~values.isnan()]


def weights(n: int = 1000, device="cpu", kind="split") -> torch.Tensor:
    return rounded(kind, torch.cat([ties(), torch.randn(n)])).to(device)


def equal(a, b) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def idle_step(optimizer) -> None:
    """One that changes no master."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            set_grad(param, torch.zeros_like(param))
    optimizer.step()


def started_from(values, kind, **options):
    """As docs/precision.md has it."""
    param = parameter(values.bfloat16())
    optimizer = FusedRMSProp([param], master_weights=kind, **options)
    param.data.copy_(values)
    optimizer.state[param]["master_param"] = values.clone()
    return optimizer, param


def masters_of(optimizer):
    ((_, master),) = export_master(optimizer)
    return master


@kinds
@pytest.mark.parametrize("n", [0, 4_000_000])
def test_started_by_hand(kind, n):
    values = weights(n, kind=kind)
    optimizer, param = started_from(values, kind)
    assert equal(masters_of(optimizer), values)
    for _ in range(2):
        idle_step(optimizer)
        assert equal(masters_of(optimizer), values)
        assert equal(optimizer.state_dict()["state"][0]["master_param"], values)
    assert optimizer.state[param]["master_param"].dtype == STORED[kind]


@pytest.mark.interpret
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter
@kinds
def test_the_kernel(device, kind):
    values = weights(device=device, kind=kind)
    optimizer, param = started_from(values, kind)
    idle_step(optimizer)
    masters = dict(export_master(optimizer))
    param.data.copy_(masters[param])
    idle_step(optimizer)
    assert equal(masters_of(optimizer), values)
    assert torch.equal(param, ((values.view(torch.int32) + 0x8000) >> 16).to(torch.int16).view(BF16))  # as ever


@kinds
@pytest.mark.parametrize("n", [0, 4_000_000])
@pytest.mark.parametrize("state_first", [False, True])
@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_loaded_in_either_order(kind, n, state_first, copied, again):
    """The model from its masters, or as the kernels have rounded it; the optimizer copied before it steps, or not."""
    values = weights(n, kind=kind)
    source, shown = started_from(values, kind)
    idle_step(source)
    saved, param = source.state_dict(), parameter(torch.zeros_like(shown))
    optimizer = FusedRMSProp([param], master_weights=kind)
    model = values if copied else shown.detach()
    if not state_first:
        param.data.copy_(model)
    optimizer.load_state_dict(through_a_file(saved))
    if state_first:
        if again:
            optimizer = copy.deepcopy(optimizer)
            (param,) = optimizer.param_groups[0]["params"]
        param.data.copy_(model)
    assert equal(masters_of(optimizer), values)
    idle_step(optimizer)
    assert equal(masters_of(optimizer), values)
    assert torch.equal(param, shown)
    assert optimizer.state[param]["master_param"].dtype == STORED[kind]


@kinds
@pytest.mark.parametrize("n", [0, 4_000_000])
@pytest.mark.parametrize(
    "by", [lambda o: masters_of(o), lambda o: o.state_dict()["state"][0]["master_param"]], ids=["export", "state_dict"]
)
def test_put_back_in_the_middle_of_a_run(kind, n, by):
    """Averages take the parameters' place for a while; the run goes on as if they had not."""
    values = weights(n, kind=kind)
    values = values[values.abs() < 1e30]
    optimizer, param = started_from(values, kind, state_dtype="8bit")
    idle_step(optimizer)
    undisturbed = copy.deepcopy(optimizer)
    (twin,) = undisturbed.param_groups[0]["params"]
    master = by(optimizer)
    for average in (1.5 * values, 0.5 * values):
        param.data.copy_(average)
        by(optimizer)  # those of the average go out too
        param.data.copy_(master)
        assert equal(by(optimizer), values)
    for _ in range(2):
        go_on([(undisturbed, [twin]), (optimizer, [param])], steps=1)
        assert torch.equal(param, twin)
        assert equal(masters_of(optimizer), masters_of(undisturbed))


@kinds
@pytest.mark.parametrize("why", ["skipped", "refused"])
def test_put_back_again_after_a_step_that_was_none(kind, why):
    values = weights(0)
    optimizer, param = started_from(values, kind, lr=0.0, skip_nonfinite=True)
    idle_step(optimizer)
    master = masters_of(optimizer)
    param.data.copy_(master)
    if why == "skipped":
        set_grad(param, torch.full_like(param, torch.inf))
        optimizer.step()
        assert optimizer.skipped_steps == 1
    else:
        param.grad = torch.zeros_like(param).to_sparse()
        with pytest.raises(RuntimeError, match="sparse"):
            optimizer.step()
    param.data.copy_(master)
    idle_step(optimizer)
    assert equal(masters_of(optimizer), values)


def test_only_what_steps_is_forgotten():
    values = weights()
    values = values[values.abs() < 1e30]
    params = [parameter(values.bfloat16()) for _ in range(2)]
    optimizer = FusedRMSProp(params, master_weights="split")
    for param in params:
        optimizer.state[param]["master_param"] = values.clone()
    idle_step(optimizer)
    masters = dict(export_master(optimizer))
    params[0].grad = None
    optimizer.step()
    for param in params:
        param.data.copy_(values)
    params[1].data.copy_(masters[params[1]])
    set_grad(params[0], torch.zeros_like(params[0]))
    optimizer.step()
    assert equal(next(export_master(optimizer))[1], values)
    held = weakref.ref(params[0])
    optimizer.param_groups[0]["params"].remove(params[0])
    del optimizer.state[params[0]], params, param, masters
    optimizer.release() if hasattr(optimizer, "release") else optimizer.step()
    gc.collect()
    assert held() is None


@pytest.mark.parametrize(
    "layout", [lambda x: x.view(-1, 4).t(), lambda x: x.view(-1, 8)[:, 1:4], lambda x: x[3:-2], lambda x: x[0x3F80 + 2**15]], ids=range(4)
)
def test_layouts(layout):
    values = weights(8 - len(ties()) % 8)
    values = layout(values[values.abs() < 1e30][:32000].repeat(2) if layout(weights(8 - len(ties()) % 8)).dim() else values)
    param = parameter(torch.zeros(200_000, dtype=BF16).as_strided(values.shape, values.stride()))
    optimizer = FusedRMSProp([param], master_weights="split")
    param.data.copy_(values)
    optimizer.state[param]["master_param"] = values.clone()
    idle_step(optimizer)
    param.data.copy_(masters_of(optimizer))
    idle_step(optimizer)
    assert torch.equal(masters_of(optimizer), values)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", [F16, torch.complex32])
def test_float16(dtype):
    """There ties go to the even one, as in copies."""
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(F16).float()
    values = torch.cat([(halves[:-1] + halves[1:]) / 2, torch.randn(1000)])
    values = values[values.isfinite() & (values.abs() < 65000)]
    values = torch.view_as_complex(values[: len(values) // 2 * 2].view(-1, 2)) if dtype.is_complex else values
    param = parameter(values.to(dtype))
    optimizer = FusedRMSProp([param], master_weights="float32")
    optimizer.state[param]["master_param"] = values.clone()
    for _ in range(2):
        idle_step(optimizer)
        masters = dict(export_master(optimizer))
        assert torch.equal(masters[param], values)
        param.data.copy_(masters[param])


def test_steps_in_the_backward():
    values = weights()
    values = values[values.abs() < 1e30]
    param = parameter(values.bfloat16())
    optimizer = apply_in_backward([param], FusedRMSProp, master_weights="split")
    optimizer.state[param]["master_param"] = values.clone()
    for _ in range(2):
        (0 * param).sum().backward()
        ((_, master),) = export_master(optimizer)
        assert equal(master, values)
        param.data.copy_(master)


@kinds
def test_ordinary_parameters_need_nothing(kind):
    optimizer, param = started_from(torch.randn(100).bfloat16().float(), kind)
    idle_step(optimizer)
    list(export_master(optimizer))
    assert not optimizer._run.ties.known
    assert all(map(torch.equal, twins([param]), [param]))
