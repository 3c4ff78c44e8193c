"""What changes in place between two steps: counts, options, and the device and dtype of a model."""

import pytest
import torch

import gpu
from cases import BF16, F16, F32
from fusedrms import FusedRMSProp
from tools import parameter, parameters, random_grads, step_and_check

pytestmark = pytest.mark.usefixtures("reading")


def test_lazy_parameters_and_states(device):
    if device.type == "simulated":
        pytest.skip("torch gives no tensor of a device in Python the memory of a lazy view")
    param = parameter(torch.randn(5, dtype=torch.complex64, device=device))
    optimizer = FusedRMSProp([param], momentum=0.9)
    random_grads([param])
    step_and_check(optimizer)
    optimizer.state[param]["momentum_buffer"].data = optimizer.state[param]["momentum_buffer"].conj()
    step_and_check(optimizer)
    param.data = param.data.conj()
    with pytest.raises(RuntimeError, match="resolve_conj"):
        optimizer.step()


def test_model_to(device):
    model = torch.nn.Linear(8, 8)
    optimizer = FusedRMSProp(model.parameters(), centered=True)
    for dtype in (F32, F16, F32, BF16, torch.float64, F32):
        model.to(device, dtype)
        random_grads(list(model.parameters()))
        step_and_check(optimizer)


@pytest.mark.gpu
def test_model_moves_between_devices():
    model = torch.nn.Linear(8, 8)
    optimizer = FusedRMSProp(model.parameters(), momentum=0.9)
    for device in ("cpu", gpu.KIND, "cpu", gpu.KIND):
        model.to(device)
        optimizer.zero_grad()
        random_grads(list(model.parameters()))
        step_and_check(optimizer)


def test_counters_changed_in_place():
    """Bias correction is that of each parameter's own count, whoever changes it."""
    params = parameters([(5,), (7,), (9,)])
    optimizer = FusedRMSProp(params, bias_correction=True, eps=1e-3)
    for step in range(5):
        random_grads(params)
        if step == 2:
            optimizer.state[params[1]]["step"].zero_()
        if step == 3:
            params[2].grad = None
        step_and_check(optimizer)
    assert [optimizer.state[p]["step"].item() for p in params] == [5.0, 3.0, 4.0]


def test_corrected_and_uncorrected_groups_share_a_launch():
    """Parameters that join late, as in unfreezing: a row of hyperparameters belongs to those that count alike."""
    params = parameters([(5,), (7,), (9,), (2,)])
    optimizer = FusedRMSProp([dict(params=params[:2], bias_correction=True), dict(params=params[2:])], eps=1e-3)
    for active in ([0, 2], [0, 1, 2, 3], [1, 3], [0, 1, 2, 3]):
        random_grads(params)
        for k, param in enumerate(params):
            if k not in active:
                param.grad = None
        step_and_check(optimizer)


def test_correction_turned_on_later():
    params = parameters([(5,), (7,)])
    optimizer = FusedRMSProp(params, eps=1e-3)
    for step in range(6):
        random_grads(params)
        if step == 1:
            params[1].grad = None
        optimizer.param_groups[0]["bias_correction"] = step in (2, 3, 5)
        step_and_check(optimizer)


@pytest.mark.parametrize("option", ["alpha", "eps", "weight_decay", "clip_grad_norm"])
def test_options_that_change_in_place(option):
    """A number in a tensor, changed by whoever holds it."""
    params = parameters([(5,), (7,)])
    value = torch.tensor(0.5)
    optimizer = FusedRMSProp(params, **{option: value})
    for step in range(3):
        random_grads(params)
        value.fill_(0.5 + 0.1 * step)
        optimizer.param_groups[0][option] = float(value)
        expected = [param.detach().clone() for param in params]
        twin = FusedRMSProp([parameter(p) for p in expected], **{option: float(value)})
        twin.load_state_dict(optimizer.state_dict())
        for p, q in zip(params, twin.param_groups[0]["params"], strict=True):
            q.grad = p.grad.clone()
        twin.step()
        optimizer.param_groups[0][option] = value
        optimizer.step()
        assert all(torch.equal(p, q) for p, q in zip(params, twin.param_groups[0]["params"], strict=True))


def test_swapped_parameters():
    """As module.to() does it under swap_module_params_on_conversion: nothing here may hold a parameter from C++."""
    model = torch.nn.Linear(3, 2)
    optimizer = FusedRMSProp(model.parameters(), momentum=0.9)
    random_grads(model.parameters())
    optimizer.step()
    torch.utils.swap_tensors(model.bias, parameter(torch.randn(2)))
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.to(torch.bfloat16)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert model.weight.dtype == BF16
    random_grads(model.parameters())
    step_and_check(optimizer)
