"""Wrong parameters and gradients: an error that names the thing, its value and the remedy, and nothing has changed."""

import pytest
import torch

import gpu
from fusedrms import FusedRMSProp
from tools import parameter, parameters, random_grads, set_grad


def sparse(p):
    p.grad = torch.zeros_like(p).to_sparse()


def other_shape(p):
    p.data = torch.zeros(7)


def wide_gradient(p):
    p.grad.data = p.grad.double()


def complex_gradient(p):
    p.grad.data = p.grad.to(torch.complex64)


def float8(p):
    p.grad = None
    p.data = p.data.to(torch.float8_e4m3fn)
    p.grad = torch.zeros_like(p)


def integer_gradient(p):
    p.grad.data = p.grad.int()


def expanded(p):
    p.data = torch.zeros(1).expand(4, 3)


ERRORS = {
    sparse: r"weight\.grad is torch\.sparse_coo; FusedRMSProp takes dense .*sparse=False in nn\.Embedding",
    other_shape: r"weight\.grad has shape \(4, 3\) but weight \(7,\)",
    wide_gradient: r"weight\.grad is torch\.float64 but weight torch\.float32; convert",
    complex_gradient: r"weight\.grad is torch\.complex64 but weight torch\.float32",
    float8: r"weight has dtype torch\.float8_e4m3fn; FusedRMSProp takes torch\.float32",
    integer_gradient: r"weight\.grad has dtype torch\.int32",
    expanded: r"weight is expanded.*contiguous\(\)",
}


@pytest.mark.parametrize("first_step", [True, False], ids=["first step", "later"])
@pytest.mark.parametrize("spoil", ERRORS, ids=lambda spoil: spoil.__name__)
def test_error_before_any_change(spoil, first_step):
    good, bad = parameters([(5,)]) + parameters([(4, 3)])
    optimizer = FusedRMSProp([("bias", good), ("weight", bad)])
    random_grads([good, bad])
    if not first_step:
        optimizer.step()
    before = good.detach().clone()
    state = {key: value.clone() for key, value in optimizer.state[good].items()} if not first_step else {}
    spoil(bad)
    with pytest.raises(RuntimeError, match=ERRORS[spoil]):
        optimizer.step()
    assert torch.equal(good, before)
    assert optimizer.state[good].keys() == state.keys()
    assert all(torch.equal(optimizer.state[good][key], value) for key, value in state.items())
    bad.data = torch.zeros(2)  # mended, it goes on
    bad.grad = None
    random_grads([bad])
    optimizer.state.pop(bad, None)
    optimizer.step()
    assert not torch.equal(good, before)


def test_a_parameter_listed_twice_by_hand():
    (param,) = parameters([(2,)])
    optimizer = FusedRMSProp([param])
    optimizer.param_groups[0]["params"].append(param)
    random_grads([param])
    with pytest.raises(RuntimeError, match="listed twice"):
        optimizer.step()


def test_overlapping_strides():
    param = parameter(torch.randn(10).as_strided((3, 3), (2, 1)))
    random_grads([param])
    with pytest.raises(RuntimeError, match="share one address"):
        FusedRMSProp([param]).step()


def test_made_up_gradient():
    class Temporary(torch.nn.Parameter):
        grad = property(lambda self: torch.ones(2))

    with pytest.raises(RuntimeError, match="class has its own grad"):
        FusedRMSProp([Temporary(torch.ones(2))]).step()


def test_numbers_where_there_are_no_names():
    params = parameters([(2,), (2,), (2,)])
    optimizer = FusedRMSProp([dict(params=params[:2]), dict(params=params[2:])])
    random_grads(params)
    sparse(params[2])
    with pytest.raises(RuntimeError, match=r"^params\[2\]\.grad is"):
        optimizer.step()


def test_conjugate_parameter():
    param = parameter(torch.randn(3, dtype=torch.complex64).conj())
    set_grad(param, torch.randn(3, dtype=torch.complex64))
    with pytest.raises(RuntimeError, match="resolve_conj"):
        FusedRMSProp([param]).step()


def test_meta_parameter():
    param = parameter(torch.empty(3, device="meta"))
    optimizer = FusedRMSProp([param])  # as deferred initialisation makes it
    optimizer.step()
    param.grad = torch.empty(3, device="meta")
    with pytest.raises(RuntimeError, match=r"params\[0\] is a meta tensor.*to_empty"):
        optimizer.step()


@pytest.mark.parametrize("first_step", [True, False], ids=["first step", "later"])
def test_a_parameter_that_is_no_tensor(first_step):
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    if not first_step:
        optimizer.step()
    optimizer.param_groups[0]["params"].append("weight")
    before = param.detach().clone()
    with pytest.raises(TypeError, match=r"parameter group 0 lists 'weight', which is not a tensor: take it out"):
        optimizer.step()
    assert torch.equal(param, before)


@gpu.real  # its tensors take no data of others
@pytest.mark.gpu
def test_gradient_on_another_device():
    param = parameter(torch.randn(3, device=gpu.DEVICE))
    random_grads([param])
    param.data = param.data.cpu()
    with pytest.raises(RuntimeError, match=r"params\[0\]\.grad is on " + str(gpu.DEVICE) + r" but params\[0\] on cpu"):
        FusedRMSProp([param]).step()
