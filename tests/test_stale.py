"""Whatever a user does between two steps, the tables follow: every step is held against the reference."""

import collections

import pytest
import torch

from cases import BF16, F16
from fusedrms import FusedRMSProp
from fusedrms.engine.tables import buckets
from tools import parameter, parameters, params_of, random_grads, set_grad, step_and_check

pytestmark = pytest.mark.usefixtures("reading")


@pytest.fixture
def optimizer(device):
    optimizer = FusedRMSProp(parameters([(33,), (4, 6), (2000,)], device), momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        random_grads(params_of(optimizer))
        step_and_check(optimizer)
    return optimizer


def swap_data(optimizer):
    for p in params_of(optimizer):
        p.data = torch.randn_like(p)


def swap_strides(optimizer):
    p = params_of(optimizer)[1]
    p.data = torch.randn(6, 4, device=p.device).t()


def reuse_address_for_other_strides(optimizer):
    """As an allocator may: same address, same number of elements."""
    p = params_of(optimizer)[1]
    p.data = p.data.as_strided((4, 6), (1, 4))


def reuse_address_of_gradient(optimizer):
    p = params_of(optimizer)[1]
    random_grads([p])
    p.grad.data = p.grad.data.as_strided((4, 6), (1, 4))


def to_dtype(dtype):
    def change(optimizer):
        for p in params_of(optimizer):
            p.data = p.data.to(dtype)
            p.grad = None

    return change


def reuse_address_for_other_dtype(optimizer):
    p = params_of(optimizer)[2]
    p.grad = None
    p.data = p.data.zero_().view(BF16)[:2000]


def gradient_dtype(optimizer):
    for p in params_of(optimizer):
        set_grad(p, torch.randn(p.shape, device=p.device).to(BF16))


def one_gradient_vanishes(optimizer):
    params_of(optimizer)[1].grad = None


def all_gradients_vanish(optimizer):
    optimizer.zero_grad()


def new_parameter_object(optimizer):
    group = optimizer.param_groups[0]
    group["params"][0] = parameter(torch.randn(5, device=group["params"][0].device))


def longer_parameter_list(optimizer):
    optimizer.param_groups[0]["params"].append(parameter(torch.randn(5, device=params_of(optimizer)[0].device)))


def reset_state(optimizer):
    optimizer.state = collections.defaultdict(dict)


def clear_state(optimizer):
    optimizer.state.clear()


def reset_one_state(optimizer):
    optimizer.state[params_of(optimizer)[1]] = {}


def replace_a_state_tensor(optimizer):
    p = params_of(optimizer)[2]
    optimizer.state[p]["square_avg"] = torch.full_like(p, 2.0)


def state_data(optimizer):
    """As helpers do that move an optimizer to another device."""
    for state in optimizer.state.values():
        for value in state.values():
            value.data = value.data.clone()


def state_data_of_another_dtype(optimizer):
    for state in optimizer.state.values():
        for value in state.values():
            value.data = value.data.double()


def replace_a_step(optimizer):
    optimizer.state[params_of(optimizer)[2]]["step"] = 7


def delete_a_state_tensor(optimizer):
    del optimizer.state[params_of(optimizer)[2]]["momentum_buffer"]


def misalign(optimizer):
    for p in params_of(optimizer):
        p.data = torch.randn(p.numel() + 1, device=p.device)[1:].view(p.shape)


def misalign_gradient(optimizer):
    p = params_of(optimizer)[0]
    set_grad(p, torch.randn(34, device=p.device)[1:])


def freeze(optimizer):
    params_of(optimizer)[0].requires_grad_(False)
    params_of(optimizer)[0].grad = None


CHANGES = [
    swap_data, swap_strides, reuse_address_for_other_strides, reuse_address_of_gradient, to_dtype(BF16), to_dtype(F16),
    reuse_address_for_other_dtype, gradient_dtype, one_gradient_vanishes, all_gradients_vanish, new_parameter_object,
    longer_parameter_list, reset_state, clear_state, reset_one_state, replace_a_state_tensor, state_data, state_data_of_another_dtype,
    replace_a_step, delete_a_state_tensor, misalign,
    misalign_gradient, freeze,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__qualname__.split(".")[0])
def test_change(optimizer, change):
    keeps_gradients = change in (
        reuse_address_of_gradient,
        gradient_dtype,
        one_gradient_vanishes,
        all_gradients_vanish,
        misalign_gradient,
        freeze,
    )
    change(optimizer)
    if not keeps_gradients:
        random_grads(params_of(optimizer))
    for p in params_of(optimizer):
        if p.grad is not None:
            assert p.grad.shape == p.shape
    step_and_check(optimizer)
    random_grads(params_of(optimizer))
    step_and_check(optimizer)
    if change is replace_a_step:
        assert optimizer.state[params_of(optimizer)[2]]["step"].item() == 9


def test_parameters_without_gradients_are_left_alone(optimizer):
    first, second, _ = params_of(optimizer)
    before = second.detach().clone(), optimizer.state[second]["square_avg"].clone(), optimizer.state[second]["step"].item()
    second.grad = None
    step_and_check(optimizer)
    assert torch.equal(second, before[0])
    assert torch.equal(optimizer.state[second]["square_avg"], before[1])
    assert (optimizer.state[first]["step"].item(), optimizer.state[second]["step"].item()) == (3, before[2])
    random_grads([second])
    step_and_check(optimizer)
    assert (optimizer.state[first]["step"].item(), optimizer.state[second]["step"].item()) == (4, before[2] + 1)


def test_steps_do_not_rebuild(optimizer, monkeypatch):
    """Gradients that move, are new objects or lie at old addresses leave the tables as they are."""
    plan = optimizer._run.plan
    params = params_of(optimizer)
    buffers = [[torch.randn_like(p) for p in params] for _ in range(2)]
    for step in range(6):
        optimizer.zero_grad(set_to_none=True)
        for p, grad in zip(params, buffers[step % 2], strict=True):
            p.grad = grad
        optimizer.param_groups[0]["lr"] *= 0.9
        step_and_check(optimizer)
        assert optimizer._run.plan is plan


def test_a_failed_step_leaves_no_stale_tables(optimizer, monkeypatch):
    """Out of memory for the copy of a strided parameter, while another one has moved."""
    strided, other = parameter(torch.randn(8, 10).to(params_of(optimizer)[0].device)[:, :3]), params_of(optimizer)[0]
    optimizer.add_param_group(dict(params=[strided]))
    random_grads(params_of(optimizer))
    step_and_check(optimizer)
    real = buckets.dense_like
    other.data = other.data.clone()

    def fail(*args, **kwargs):
        monkeypatch.setattr(buckets, "dense_like", real)
        raise MemoryError

    monkeypatch.setattr(buckets, "dense_like", fail)
    with pytest.raises(MemoryError):
        optimizer.step()
    step_and_check(optimizer)


@pytest.mark.parametrize("name", ["param", "grad", "square_avg", "momentum_buffer"])
def test_memory_that_was_given_back(optimizer, name):
    """An error; nobody's memory is written, and no other parameter."""
    params = params_of(optimizer)
    if params[0].device.type == "simulated":
        pytest.skip("its storages keep their memory")
    random_grads(params)
    p = params[1]
    before = params[0].detach().clone()
    {"param": p, "grad": p.grad}.get(name, optimizer.state[p].get(name)).untyped_storage().resize_(0)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            optimizer.step()
    assert torch.equal(params[0], before)
