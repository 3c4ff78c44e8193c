"""Memory that is gone is an error, and memory that the user lets go is freed: nothing is kept."""

import ctypes
import weakref

import pytest
import torch
from torch import nn

from fusedrms import FusedRMSProp
from fusedrms.engine.ownership.torch_words import WORDS
from tools import parameter, params_of, random_grads, step_and_check


def memory_of(optimizer, name):
    param = params_of(optimizer)[1]
    return {"params[1]": param, "params[1].grad": param.grad}.get(name, optimizer.state[param].get(name.split()[1] if " " in name else ""))


@pytest.mark.parametrize("size", [0, 40])
@pytest.mark.parametrize("name", ["params[1]", "params[1].grad", "the square_avg of params[1]", "the step of params[1]"])
def test_memory_that_is_gone_is_named(optimizer, name, size):
    """A storage that was freed, or is too small by now."""
    random_grads(params_of(optimizer))
    before = params_of(optimizer)[0].detach().clone()
    tensor = memory_of(optimizer, name)
    tensor.untyped_storage().resize_(min(size, tensor.nbytes - 1))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=name.replace("[", r"\[").replace("]", r"\]") + " has shape .* no memory"):
            optimizer.step()
    assert torch.equal(params_of(optimizer)[0], before)


@pytest.mark.parametrize("name", ["param", "grad"])
def test_a_view_of_memory_that_is_gone(reading, name):
    """Its address is not 0: where it begins in a storage that has nothing."""
    memory = torch.randn(200)
    param = parameter(memory[100:] if name == "param" else torch.randn(100))
    param.grad = memory[100:] if name == "grad" else torch.randn(100)
    optimizer = FusedRMSProp([param])
    optimizer.step()
    memory.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="no memory"):
        optimizer.step()


@pytest.mark.parametrize("shape", [(-1,), (1, 1, 1, 1, 1, -1)], ids=["1 dim", "6 dims"])
def test_less_memory_at_the_same_address(reading, shape):
    """As after two resizes of the storage, if the allocator gives the same memory again."""
    if WORDS.impl < 0:
        pytest.skip("where a storage keeps its size is not known")
    param = parameter(torch.ones(1000).reshape(shape))
    param.grad = torch.ones_like(param)
    optimizer = FusedRMSProp([param])
    optimizer.step()
    storage = param.untyped_storage()
    size = ctypes.c_int64.from_address(storage._cdata + 8 * (WORDS.data_ptr + WORDS.nbytes))
    assert size.value == storage.nbytes() == 4000
    size.value = 2000
    with pytest.raises(RuntimeError, match=r"params\[0\] has shape .* no memory"):
        optimizer.step()
    size.value = 4000
    optimizer.step()


@pytest.mark.parametrize("name", ["param", "square_avg", "step"])
def test_memory_that_is_shared_until_it_is_written(optimizer, name):
    """Copies that torch puts off (copy on write) keep their values."""
    param = params_of(optimizer)[1]
    tensor = param.detach() if name == "param" else optimizer.state[param][name]
    before = tensor.clone()
    copy = torch._lazy_clone(tensor)
    random_grads(params_of(optimizer))
    step_and_check(optimizer)
    assert torch.equal(copy, before)
    assert not torch.equal(tensor, before)


def end_of(tensor: torch.Tensor) -> weakref.ref:
    return weakref.ref(tensor)


def offload(optimizer, param):
    values = optimizer.state[param]
    old = end_of(values["square_avg"])
    values["square_avg"] = values["square_avg"].clone()
    return old


def clear(optimizer, param):
    old = end_of(optimizer.state[param]["square_avg"])
    optimizer.state.clear()
    return old


def replace(optimizer, param):
    old = end_of(param)
    optimizer.param_groups[0]["params"][1] = parameter(torch.zeros(3))
    optimizer.state.pop(param)
    return old


def replace_the_list(optimizer, param):
    old = end_of(param)
    optimizer.param_groups[0]["params"] = [parameter(torch.zeros(3))]
    optimizer.state.clear()
    return old


def drop_a_gradient(optimizer, param):
    old = end_of(param.grad)
    param.grad = None
    return old


def drop_a_counter(optimizer, param):
    old = end_of(optimizer.state[param]["step"])
    del optimizer.state[param]["step"]
    return old


@pytest.mark.parametrize(
    "change", [offload, clear, replace, replace_the_list, drop_a_gradient, drop_a_counter], ids=lambda change: change.__name__
)
def test_nothing_is_kept(optimizer, change):
    old = change(optimizer, params_of(optimizer)[1])
    assert old() is None


@pytest.mark.parametrize(
    "options", [{}, dict(clip_grad_norm=1.0), dict(clip_grad_norm=1.0, clip_norm_over="parameter", skip_nonfinite=True)]
)
def test_a_dropped_model_is_freed(reading, options):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    optimizer = FusedRMSProp(model.parameters(), **options)
    for param in model.parameters():
        param.grad = torch.randn(param.shape[::-1]).t() if param.dim() == 2 else torch.ones_like(param)  # strided: read through copies
    optimizer.step()
    old = [end_of(param) for param in model.parameters()] + [end_of(param.grad) for param in model.parameters()]
    optimizer.param_groups.clear()
    optimizer.state.clear()
    del model, param
    assert all(ref() is None for ref in old)


def test_data_of_a_parameter_is_given_back(optimizer):
    """Its version counter is kept, but not its memory."""
    param = params_of(optimizer)[2]
    param.data = torch.zeros(2000)
    storage = param.untyped_storage()
    freed = []
    weakref.finalize(storage, freed.append, True)
    random_grads([param])
    optimizer.step()
    del storage
    param.data = torch.zeros(2000)
    assert freed


def test_release(optimizer):
    tables = optimizer.memory().tables
    assert tables > 0
    optimizer.release()
    assert optimizer.memory().tables == 0
    random_grads(params_of(optimizer))
    step_and_check(optimizer)
    assert optimizer.memory().tables == tables


def test_memory_with_lazy_parameters():
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    optimizer = FusedRMSProp(model.parameters())
    assert optimizer.memory().parameters == 4 * 8
    optimizer.share_memory()
    assert len(optimizer.state) == 2
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    assert optimizer.memory().parameters == 4 * (15 + 8)
