"""Cautious updates, decay that follows the learning rate, and numbers that only a GPU knows."""

import copy
import itertools

import numpy as np
import pytest
import torch

import gpu
from cases import BF16, F32, F64, MODES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, apply_in_backward, presets
from tools import copy_grads, exact, natively, parameters, random_grads, set_grad, step_and_check, twins

OPTIONS = dict(momentum=0.9, caution=True, seed=0)


@natively
@pytest.mark.parametrize("dtype", [F32, BF16, F64, torch.complex64], ids=str)
@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["none", *MODES])
def test_reference(dtype, mode):
    """Steps that go against half of their gradients, however values are stored."""
    if mode and dtype != BF16:
        pytest.skip("modes are of 16-bit parameters")
    params = parameters([(), (0,), (1,), (63,), (65,), (129, 5), (16384 + 3,)], dtype=dtype)
    optimizer = FusedRMSProp(params, lr=0.1, weight_decay=0.1, centered=True, eps=1e-2, **{**OPTIONS, **mode})
    for _ in range(4):
        random_grads(params)
        step_and_check(optimizer)


@natively
def test_elements_that_go_against_their_gradient():
    param = torch.nn.Parameter(torch.zeros(4, dtype=F64))
    optimizer = FusedRMSProp([param], lr=1.0, alpha=0.0, eps=0.0, momentum=0.5, caution=True)
    set_grad(param, torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=F64))
    optimizer.step()
    assert param.tolist() == [-1.0] * 4  # all agree
    set_grad(param, torch.tensor([-0.25, 1e-100, 0.0, 2.0], dtype=F64))  # the updates: 0.5 - 1, 0.5 + 1, 0.5, 0.5 + 1
    optimizer.param_groups[0]["eps"] = 1e-320  # no 0 / 0
    optimizer.step()
    boost = 4 / 3  # the third has no gradient to agree with
    assert optimizer.state[param]["momentum_buffer"].tolist() == [-0.5, 1.5, 0.5, 1.5]
    np.testing.assert_allclose(param.tolist(), [-1 + 0.5 * boost, -1 - 1.5 * boost, -1, -1 - 1.5 * boost], rtol=1e-12)


@natively
def test_nan_stays_one():
    (param,) = parameters([(3,)])
    optimizer = FusedRMSProp([param], **OPTIONS)
    set_grad(param, torch.tensor([1.0, torch.nan, 1.0]))
    optimizer.step()
    assert param.isnan().tolist() == [False, True, False]


@natively
def test_changes_nothing_where_all_agree():
    """Bit for bit; and from step to step it may be switched on and off."""
    params = parameters([(1000,), (7,)])
    others = twins(params)
    ours, plain = FusedRMSProp(params, **OPTIONS), FusedRMSProp(others, momentum=0.9)
    for factor in (1.0, 0.5, 2.0):
        for param, other in zip(params, others, strict=True):
            set_grad(param, factor * torch.ones_like(param))
            set_grad(other, factor * torch.ones_like(other))
        ours.step()
        plain.step()
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
    ours.param_groups[0]["caution"] = False
    random_grads(params)
    copy_grads(params, others)
    ours.step()
    plain.step()
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


@natively
def test_chunks_and_threads_change_no_bit(monkeypatch):
    from fusedrms.engine.tables import buckets
    from fusedrms.kernels.launch import CPUConfig

    runs = []
    for chunk in (64, 1 << 14, 1 << 20):
        torch.manual_seed(0)
        params = parameters([(100_000,), (130,)], dtype=BF16)
        with monkeypatch.context() as patch:
            patch.setattr(buckets, "choose", lambda *_, chunk=chunk: CPUConfig(chunk, 1))
            patch.setattr("fusedrms.kernels.cpu.threads.MIN_WORK", 64)
            optimizer = FusedRMSProp(params, momentum=0.9, caution=True, **MODES["split, 8-bit state"])
            for _ in range(3):
                random_grads(params)
                optimizer.step()
        runs.append([param.detach().clone() for param in params])
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


@natively
def test_in_a_backward():
    torch.manual_seed(0)
    model = torch.nn.Linear(30, 20)
    plain = copy.deepcopy(model)
    apply_in_backward(model, FusedRMSProp, **OPTIONS)
    expected = FusedRMSProp(plain.parameters(), **OPTIONS)
    for _ in range(4):
        x = torch.randn(4, 30)
        model(x).square().mean().backward()
        expected.zero_grad()
        plain(x).square().mean().backward()
        expected.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


@natively
@pytest.mark.parametrize("schedule", ["scheduler", "tensor"])
@pytest.mark.parametrize("cls", [FusedRMSProp, FusedSMORMS3])
def test_corrected_weight_decay(cls, schedule):
    """Of lr**2 / max_lr; the snapshot is the rate that the optimizer was made with, for every group, as in timm."""
    a, b = parameters([(5,), (3,)], dtype=F64)
    lr = torch.tensor(0.5, dtype=F64) if schedule == "tensor" else 0.5
    options = dict(weight_decay=0.25, decoupled_weight_decay=True, corrected_weight_decay=True)
    optimizer = cls([dict(params=[a]), dict(params=[b], lr=0.125)], lr=lr, **options)
    assert [group["max_lr_snapshot"] for group in optimizer.param_groups] == [0.5, 0.5]
    rates = [0.5, 0.125]
    for _ in range(3):
        before = [exact(p) for p in (a, b)]
        for p in (a, b):
            set_grad(p, torch.zeros_like(p))
        optimizer.step()
        for p, own, rate in zip((a, b), before, rates, strict=True):
            np.testing.assert_allclose(exact(p), own * (1 - rate**2 / 0.5 * 0.25), rtol=1e-12)
        rates = [rate / 2 for rate in rates]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
    again = cls([dict(params=p) for p in parameters([(5,), (3,)], dtype=F64)])
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["max_lr_snapshot"] == 0.5


@natively
def test_presets_take_what_has_no_effect():
    """timm ignores caution without momentum, and a correction of what is not decoupled."""
    options = presets.timm_rmsprop_tf(parameters([(3,)]), caution=True, corrected_weight_decay=True, foreach=True).param_groups[0]
    assert (options["caution"], options["corrected_weight_decay"], options["foreach"]) == (False, False, True)


@natively
@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (FusedRMSProp, dict(caution=True), "caution=True needs a momentum, but momentum=0: set momentum > 0 or caution=False"),
        (FusedRMSPropGraves, dict(caution=True, momentum=0), "caution=True needs a momentum"),
        (FusedRMSProp, dict(caution="yes", momentum=0.9), "caution='yes' is not supported: it must be True or False"),
        (FusedRMSProp, dict(caution=None, momentum=0.9), "caution=None is not supported"),
        (FusedRMSProp, dict(corrected_weight_decay=True), "corrected_weight_decay=True needs decoupled_weight_decay=True"),
        (FusedSMORMS3, dict(corrected_weight_decay=True), "corrected_weight_decay=True needs decoupled_weight_decay=True"),
        (FusedRMSProp, dict(corrected_weight_decay=2), "corrected_weight_decay=2 is not supported"),
        *(
            (cls, dict(decoupled_weight_decay=True, corrected_weight_decay=True, **wrong), f"max_lr_snapshot={shown} is not supported")
            for cls, (wrong, shown) in itertools.product(
                (FusedRMSProp, FusedSMORMS3),
                [
                    (dict(lr=0.0), "0.0"),
                    (dict(max_lr_snapshot=-1.0), "-1.0"),
                    (dict(max_lr_snapshot=float("nan")), "nan"),
                    (dict(max_lr_snapshot="1"), "'1'"),
                ],
            )
        ),
    ],
    ids=str,
)
def test_wrong_options(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(parameters([(3,)]), **options)


@natively
@pytest.mark.parametrize("lr", ["fast", None, [1.0], 10**400, torch.ones(2)], ids=str)
def test_a_wrong_lr_is_called_so(lr):
    with pytest.raises((TypeError, ValueError), match=r"learning rate|Tensor lr"):
        FusedRMSProp(parameters([(3,)]), lr, decoupled_weight_decay=True, corrected_weight_decay=True)


@natively
def test_corrected_later():
    """Then nobody has said what the highest rate is; a flag of NumPy's is one."""
    optimizer = FusedRMSProp(parameters([(3,)]), decoupled_weight_decay=True, weight_decay=0.1)
    (group,) = optimizer.param_groups
    group["corrected_weight_decay"] = np.int64(1)
    with pytest.raises(ValueError, match=r"max_lr_snapshot=None is not supported.*the highest lr of the schedule, which corrected"):
        optimizer.step()
    group["max_lr_snapshot"] = 0.02
    optimizer.step()


@natively
def test_beside_lazy_parameters():
    """Which have no elements yet."""
    params = parameters([(30,)])
    lazy = torch.nn.LazyLinear(3)
    optimizer = FusedRMSProp([*lazy.parameters(), *params], **OPTIONS)
    random_grads(params)
    optimizer.step()
    lazy(torch.randn(2, 5)).sum().backward()
    optimizer.step()
    assert len(optimizer.state) == 3


@natively
def test_smorms3_has_no_caution():
    """Its updates always have their gradient's sign."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'caution'"):
        FusedSMORMS3(parameters([(3,)]), caution=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_on_a_gpu(dtype):
    params = parameters([(), (0,), (1000,), (129, 65), (16384 + 3,)], gpu.DEVICE, dtype)
    optimizer = FusedRMSProp(params, lr=0.1, **OPTIONS)
    for _ in range(3):
        random_grads(params)
        step_and_check(optimizer)
