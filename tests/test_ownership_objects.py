"""Python's objects around a step: subclasses of tensors, wrappers, hooks, copies, and groups that are made anew."""

import collections
import copy
import gc
import pickle

import pytest
import torch
from torch import nn

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from tools import assert_close, copy_grads, parameter, parameters, params_of, random_grads, step_and_check, twins


def test_hooks_see_what_is_saved(optimizer):
    """However they are registered, users' hooks of state_dict see full precision, and those of loading what the file holds."""
    optimizer = FusedRMSProp(params_of(optimizer), state_dtype="8bit")
    random_grads(params_of(optimizer))
    optimizer.step()
    seen = []
    optimizer.register_state_dict_post_hook(lambda _, state: seen.append(state["state"][0]["square_avg"].dtype), prepend=True)
    optimizer.register_state_dict_post_hook(lambda _, state: seen.append(state["state"][0]["square_avg"].dtype))
    optimizer.register_load_state_dict_pre_hook(lambda _, state: seen.append(type(state["state"][0]["square_avg"])))
    optimizer.load_state_dict(optimizer.state_dict())
    other = pickle.loads(pickle.dumps(FusedRMSProp([parameter(torch.zeros(3))], state_dtype="8bit")))
    random_grads(params_of(other))
    other.step()
    assert other.state_dict()["state"][0]["square_avg"].dtype == torch.float32
    assert seen == [torch.float32, torch.float32, torch.Tensor]


class Wrapping(nn.Parameter):
    """Its __torch_function__ wraps results, so that its grad is a new object each time."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **(kwargs or {}))
            return result.as_subclass(cls) if isinstance(result, torch.Tensor) else result


@pytest.mark.exhaustive
def test_a_gradient_that_is_a_new_object_each_time(reading):
    param = Wrapping(torch.randn(1000))
    param.grad = torch.ones(1000)
    assert param.grad is not param.grad
    twin = parameter(param.detach().as_subclass(torch.Tensor).clone())
    ours, theirs = FusedRMSProp([param]), torch.optim.RMSprop([twin])
    for n in range(3):
        param.grad = torch.full((1000,), 1.0 + n)
        twin.grad = torch.full((1000,), 1.0 + n)
        gc.collect()
        ours.step()
        theirs.step()
    assert_close([param.detach().as_subclass(torch.Tensor)], [twin], 3)


@pytest.mark.usefixtures("reading")
def test_a_property_in_place_of_grad(monkeypatch):
    """It is refused from the next step on, whatever the tables were made with; in place of every tensor's it counts."""
    params = parameters([(5,), (6,)])
    optimizer = FusedRMSProp(params)
    random_grads(params)
    step_and_check(optimizer)
    getter = torch.Tensor.grad.__get__
    before = params[1].detach().clone()
    made_up = property(lambda self: None if self is params[1] else getter(self))
    with monkeypatch.context() as patch:
        patch.setattr(nn.Parameter, "grad", made_up, raising=False)
        with pytest.raises(RuntimeError, match="whose class has its own grad"):
            optimizer.step()
        patch.setattr(torch.Tensor, "grad", made_up, raising=False)
        optimizer.step()
        assert torch.equal(params[1], before)
    step_and_check(optimizer)
    assert not torch.equal(params[1], before)


def test_fake_parameters_are_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model = nn.Linear(3, 2)
        optimizer = FusedRMSProp(model.named_parameters())
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        assert optimizer.memory().parameters == 32
    with pytest.raises(RuntimeError, match=r"weight is a FakeTensor.*FakeTensorMode"):
        optimizer.step()
    assert not optimizer.state


def test_values_under_traded_names(optimizer):
    """The same objects, another meaning."""
    group = optimizer.param_groups[0]
    group["alpha"], group["eps"] = 0.9, 0.25
    random_grads(params_of(optimizer))
    step_and_check(optimizer)
    names = {"alpha": "eps", "eps": "alpha"}
    optimizer.param_groups[0] = {names.get(key, key): value for key, value in group.items()}
    step_and_check(optimizer)


def test_another_order_of_options(optimizer):
    group = optimizer.param_groups[0]
    optimizer.param_groups[0] = dict(reversed(group.items()))
    random_grads(params_of(optimizer))
    step_and_check(optimizer)


class Wrapper(torch.optim.Optimizer):
    """As Fabric's: it has the attributes of an optimizer as they were when it was wrapped."""

    def __init__(self, optimizer):
        self.__dict__ = {key: value for key, value in optimizer.__dict__.items() if key not in ("state_dict", "step", "zero_grad")}
        self.__class__ = type("Wrapped", (Wrapper, type(optimizer)), {})
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()


def test_a_wrapper_shows_what_steps_leave():
    params = parameters([(5,), (7,)])
    optimizer = FusedRMSProp(params, clip_grad_norm=1.0, skip_nonfinite=True)
    wrapper = Wrapper(optimizer)
    random_grads(params)
    wrapper.step()
    assert wrapper.last_grad_norm is not None
    assert torch.equal(wrapper.last_grad_norm, optimizer.last_grad_norm)
    assert wrapper.memory() == optimizer.memory()
    assert wrapper.memory().tables > 0
    params[0].grad[0] = torch.inf
    wrapper.step()
    assert wrapper.skipped_steps == optimizer.skipped_steps == 1


@pytest.mark.parametrize("cls", [FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3])
def test_copies_have_tables_of_their_own(cls):
    params = parameters([(5,), (7,)])
    optimizer = cls(params)
    random_grads(params)
    optimizer.step()
    for made in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        others = params_of(made)
        copy_grads(params, others)
        plain = cls(twins(params))
        plain.load_state_dict(optimizer.state_dict())
        copy_grads(params, params_of(plain))
        made.step()
        plain.step()
        assert_close(others, params_of(plain), 1)
        assert made.state[others[0]]["step"] == 2
    assert optimizer.state[params[0]]["step"] == 1


def test_a_group_in_an_older_order_of_keys(optimizer):
    optimizer.state = collections.defaultdict(dict, reversed(optimizer.state.items()))
    random_grads(params_of(optimizer))
    step_and_check(optimizer)
