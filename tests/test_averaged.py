"""Parameters that hold their averages for a while."""

import copy
import pickle

import pytest
import torch

from averages_tools import averages, same, trained
from cases import BF16, F32, MODES
from fusedrms import FusedRMSProp, export_master
from tools import natively, random_grads, set_grad


@natively
@pytest.mark.parametrize(("dtype", "mode"), [(F32, {}), *((BF16, mode) for mode in MODES.values())], ids=["float32", *MODES])
def test_averaged(dtype, mode):
    """In place, and back bit for bit, after an exception too; the run goes on as if nothing had been."""
    optimizer, params = trained(dtype=dtype, **mode)
    reference, others = trained(dtype=dtype, **mode)
    own, addresses = [param.detach().clone() for param in params], [param.data_ptr() for param in params]
    with optimizer.averaged():
        assert same(params, [average.to(dtype) for average in averages(optimizer)])
        assert [param.data_ptr() for param in params] == addresses
    assert same(params, own)
    with pytest.raises(KeyError, match="in the block"), optimizer.averaged():
        raise KeyError("in the block")
    assert same(params, own)
    for param, other in zip(params, others, strict=True):
        set_grad(param, torch.ones_like(param))
        set_grad(other, torch.ones_like(other))
    optimizer.step()
    reference.step()
    assert same(params, others)
    assert same(averages(optimizer), averages(reference))


@natively
def test_compiled_models_see_it():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer, compiled = FusedRMSProp(model.parameters(), ema_decay=0.5), torch.compile(model, backend="eager")
    x = torch.randn(4, 3)
    for _ in range(2):
        optimizer.zero_grad()
        compiled(x).square().mean().backward()
        optimizer.step()
    weight, bias = averages(optimizer)
    own = model(x)
    with torch.no_grad(), optimizer.averaged():
        assert torch.equal(compiled(x), torch.nn.functional.linear(x, weight, bias))
    assert torch.equal(compiled(x), own)


@natively
def test_autograd_is_told():
    """A graph that has saved a parameter cannot be gone backward through once averages have been in its place."""
    optimizer, (param,) = trained(shapes=[(3,)])
    loss = param.square().sum()
    with optimizer.averaged():
        pass
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@natively
def test_within_the_block():
    """What would take the averages for parameters is refused, and changes nothing."""
    optimizer, params = trained(dtype=BF16, master_weights="split")
    saved = optimizer.state_dict()
    random_grads(params)
    calls = [optimizer.step, optimizer.state_dict, lambda: optimizer.load_state_dict(saved), optimizer.averaged().__enter__]
    calls += [lambda: copy.deepcopy(optimizer), lambda: pickle.dumps(optimizer), lambda: next(export_master(optimizer))]
    with optimizer.averaged():
        held = [param.detach().clone() for param in params]
        for call in calls:
            with pytest.raises(RuntimeError, match=r"within averaged\(\), while the parameters hold their averages: leave the with block"):
                call()
        assert same(params, held)
    optimizer.step()
