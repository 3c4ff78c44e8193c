"""fusedrms.rule: what a class of a declared rule is, and the errors of a declaration."""

import copy
import inspect
import math
import pickle
import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import fusedrms
from fusedrms import FusedRMSProp, Number, State
from fusedrms.kernels.rule import RULES
from fusedrms.rules.errors import RuleError
from fusedrms.rules.options import SHARED
from tools import parameters, random_grads


@fusedrms.rule(states=dict(exp_avg=0.5), lr=0.25, decoupled_weight_decay=True, beta=Number(0.5, most=1.0), nesterov=False)
def Momentum(grad, param, state, lr, n):
    """A rule of which every step can be told by hand."""
    exp_avg = n.beta * state.exp_avg + grad
    return lr * (n.beta * exp_avg + grad if n.nesterov else exp_avg), state.replace(exp_avg=exp_avg)


def body(grad, param, state, lr, n):
    return lr * grad, state


def four(grad, param, state, lr):
    return lr * grad, state


def stepped(params, grad=1.0, **options):
    optimizer = Momentum(params, **options)
    for param in params:
        param.grad = torch.full_like(param, grad)
    optimizer.step()
    return optimizer


def test_is_a_class_of_torch():
    optimizer = Momentum(parameters([(3,)]), 0.5, 0.125, 0.1)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(Momentum, type)
    assert (Momentum.__name__, Momentum.__module__, Momentum.__qualname__) == ("Momentum", __name__, "Momentum")
    assert Momentum.__doc__ == "A rule of which every step can be told by hand."
    group = optimizer.param_groups[0]
    assert (group["lr"], group["beta"], group["weight_decay"], group["nesterov"]) == (0.5, 0.125, 0.1, False)
    assert list(inspect.signature(Momentum).parameters)[:5] == ["params", "lr", "beta", "weight_decay", "nesterov"]


def test_shared_options_are_those_of_the_family():
    """With the same defaults, so that a rule of a user's has what ours have."""
    ours = FusedRMSProp._class_defaults()
    equations = {"lr", "alpha", "eps", "momentum", "centered", "eps_placement", "lr_in_momentum", "nesterov", "initial_square_avg"}
    assert ours.keys() - SHARED.keys() == equations | {"bias_correction"}
    assert {name: ours[name] for name in SHARED} == SHARED


def test_steps_as_told_by_hand():
    (param,) = params = parameters([(5,)])
    before = param.detach().clone()
    optimizer = stepped(params, grad=2.0)
    assert torch.equal(optimizer.state[param]["exp_avg"], torch.full((5,), 2.25))
    assert torch.equal(param, before - 0.25 * 2.25)
    before = param.detach().clone()
    optimizer.param_groups[0].update(nesterov=True, beta=0.25)
    optimizer.step()
    exp_avg = 0.25 * 2.25 + 2.0
    assert torch.equal(param, before - 0.25 * (0.25 * exp_avg + 2.0))


def test_each_set_of_flags_has_its_kernel():
    rules = [Momentum.declared.traced(dict(nesterov=nesterov))[0] for nesterov in (False, True, 0)]
    assert rules[0] is rules[2] is RULES[rules[0].name]
    assert rules[0].name != rules[1].name


def test_the_same_equations_are_the_same_kernel():
    """So that a notebook's cell that is run again compiles nothing; others have another name, whatever theirs is."""

    def make(factor):
        @fusedrms.rule(states=["buffer"], beta=0.5)
        def Twice(grad, param, state, lr, n):
            buffer = n.beta * state.buffer + factor * grad
            return lr * buffer, state.replace(buffer=buffer)

        return Twice

    one, same, other = make(2.0), make(2), make(3.0)
    names = [cls.declared.traced({})[0].name for cls in (one, same, other)]
    assert names[0] == names[1] != names[2]
    moved = []
    for cls in (one, other):
        (param,) = params = parameters([(4,)])
        before = param.detach().clone()
        param.grad = torch.ones_like(param)
        cls(params, lr=1.0).step()
        moved.append((before - param).mean().item())
    assert moved == pytest.approx([2.0, 3.0])


@pytest.mark.parametrize("again", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))], ids=["deepcopy", "pickle"])
def test_copies(again):
    params = parameters([(7,), (2, 3)])
    optimizer = stepped(params, beta=0.25)
    other = again(optimizer)
    assert type(other) is Momentum
    for each in (optimizer, other):
        for param in each.param_groups[0]["params"]:
            param.grad = torch.ones_like(param)
        each.step()
    for one, two in zip(optimizer.param_groups[0]["params"], other.param_groups[0]["params"], strict=True):
        assert torch.equal(one, two)


def test_checkpoint_has_its_options_and_states():
    params = parameters([(7,)])
    optimizer = stepped(params, beta=0.25, state_dtype="8bit")
    saved = optimizer.state_dict()
    assert saved["state"][0]["exp_avg"].dtype == torch.float32
    other = Momentum(parameters([(7,)]), state_dtype="8bit")
    other.load_state_dict(saved)
    assert other.param_groups[0]["beta"] == 0.25
    assert torch.equal(other.state_dict()["state"][0]["exp_avg"], saved["state"][0]["exp_avg"])
    wrong = {**saved, "state": {0: {"step": torch.tensor(1.0), "exp_avg_sq": torch.zeros(7)}}}
    with pytest.raises(ValueError, match=r"no 'exp_avg'; load a checkpoint of Momentum"):
        other.load_state_dict(wrong)


def test_options_are_checked_before_anything_changes():
    params = parameters([(3,)])
    optimizer = stepped(params)
    before = params[0].detach().clone()
    optimizer.param_groups[0]["beta"] = 1.5
    with pytest.raises(ValueError, match=r"parameter group 0: Invalid beta value: 1.5; it must be a finite number from 0 to 1"):
        optimizer.step()
    assert torch.equal(params[0], before)


DECLARED = {
    "a string of states": (dict(states="exp_avg"), TypeError, r"pass a list of names, \['exp_avg'\]"),
    "a state's name": (dict(states=["exp avg"]), ValueError, "'exp avg' is no name of a state"),
    "a private name": (dict(states=["_m"]), ValueError, "'_m' is no name of a state"),
    "a name that states have": (dict(states=["step"]), ValueError, "cannot be called 'step'"),
    "a name of scales": (dict(states=["m_scale"]), ValueError, "cannot be called 'm_scale'"),
    "a start that is no number": (dict(states=dict(m="zero")), TypeError, "state 'm' starts from 'zero': it takes a finite number"),
    "an infinite start": (dict(states=dict(m=math.inf)), TypeError, "starts from inf: it takes a finite number"),
    "a start below 0": (dict(states=dict(m=State(-1.0, nonnegative=True))), ValueError, "never negative, but it starts from -1.0"),
    "a mean": (dict(states=dict(v=State(mean="m"), m=0.0)), ValueError, "state 'v' has mean='m'"),
    "one name twice": (dict(states=["m"], m=0.5), ValueError, "'m' is a state and an option"),
    "a tuple of none": (dict(betas=()), ValueError, r"betas=\(\) has no numbers: give it some, \(0.9, 0.999\) say"),
    "a flag in a tuple": (dict(betas=(0.9, True)), TypeError, r"betas\[1\]=True is no finite number"),
    "a tuple out of its range": (dict(betas=(0.9, Number(2.0, most=1.0))), ValueError, r"betas\[1\] is 2.0, which is not from 0.0 to 1.0"),
    "a string": (dict(mode="fast"), TypeError, "mode='fast' is neither a finite number nor True or False"),
    "a NaN": (dict(beta=math.nan), TypeError, "beta=nan is neither a finite number"),
    "a negative number": (dict(beta=-0.5), ValueError, r"give its range, fusedrms.Number\(-0.5, least=-math.inf\)"),
    "a default out of its range": (dict(beta=Number(2.0, most=1.0)), ValueError, "beta is 2.0, which is not from 0.0 to 1.0"),
    "a misspelt option": (dict(weigth_decay=0.1), ValueError, "near 'weight_decay', which all rules have"),
    "Keras' name": (dict(learning_rate=0.1), ValueError, "near 'lr', which all rules have"),
    "a name that n has": (dict(step=1.0), ValueError, "cannot be called 'step'"),
    "one state twice": (dict(states=["m", "m"]), ValueError, "state 'm' is named twice"),
    "letters that Python reads otherwise": (dict(states=["\u00b5"]), ValueError, "is no name of a state"),
    "a lambda": (dict(function=lambda grad, param, state, lr, n: (grad, state)), TypeError, "is none: use def"),
    "a class": (dict(function=FusedRMSProp), TypeError, "is none: use def"),
    "state": (dict(state=["m"]), TypeError, "takes states=, and no state="),
    "an option that nothing reads": (dict(gamma=0.5), ValueError, "the function never reads n.gamma"),
    "a default that is refused": (dict(master_weights="splt"), ValueError, "master_weights='splt' is not supported"),
    "many flags": (dict.fromkeys("abcdefghi", True), ValueError, "8 options that are True or False at most"),
    "four arguments": (dict(function=four), RuleError, "it must take grad, param, state, lr, n"),
}


@pytest.mark.parametrize("case", DECLARED)
def test_errors_of_a_declaration(case):
    options, error, message = DECLARED[case]
    options = dict(options)
    function = options.pop("function", body)
    with pytest.raises(error, match=message):
        fusedrms.rule(**options)(function)


def test_a_decorator_that_was_not_called():
    for wrong in (body, FusedRMSProp):
        with pytest.raises(TypeError, match=r"fusedrms\.rule is called first"):
            fusedrms.rule(wrong)


MADE = {
    "betas": (dict(betas=(0.9, 0.99)), TypeError, "unexpected keyword argument 'betas'"),
    "an unknown option": (dict(betta=0.5), TypeError, "unexpected keyword argument 'betta'"),
    "a misspelt option": (dict(nestrov=True), TypeError, "did you mean 'nesterov'?"),
    "a number out of its range": (dict(beta=2), ValueError, "Invalid beta value: 2; it must be a finite number from 0 to 1"),
    "a tuple": (dict(beta=(0.5, 0.5)), TypeError, "Invalid beta value: (0.5, 0.5) is a tuple; pass a number from 0 to 1"),
    "no number": (dict(beta="half"), TypeError, "Invalid beta value: 'half' is a str; pass a number from 0 to 1"),
    "a flag that is none": (dict(nesterov="yes"), ValueError, "nesterov='yes' is not supported: it must be True or False"),
    "a shared option": (dict(clip_norm_on="both"), ValueError, "it must be 'gradient' or 'update'"),
    "caution": (dict(caution=2), ValueError, "caution=2 is not supported"),
    "a rate": (dict(lr=-1), ValueError, "Invalid learning rate: -1"),
}


@pytest.mark.parametrize("case", MADE)
def test_errors_of_the_class(case):
    options, error, message = MADE[case]
    with pytest.raises(error, match=re.escape(message)):
        Momentum(parameters([(3,)]), **options)


def test_a_flag_whose_kernel_is_no_rule():
    """All sets of flags are traced when a rule is declared; what does not go together a rule may refuse itself."""
    with pytest.raises(RuleError, match="norm needs all elements at once"):

        @fusedrms.rule(wrong=False)
        def Flagged(grad, param, state, lr, n):
            return (lr * grad.norm() if n.wrong else lr * grad), state

    @fusedrms.rule(a=True, b=False)
    def Choosy(grad, param, state, lr, n):
        if n.a and n.b:
            raise ValueError("not both")
        return (lr * grad if n.a else lr * grad * 2), state

    with pytest.raises(ValueError, match="not both"):
        Choosy(parameters([(3,)]), b=True)


def test_declared_anywhere():
    """In another rule's function, and where tensors have no values."""

    @fusedrms.rule()
    def Outer(grad, param, state, lr, n):
        @fusedrms.rule()
        def Inner(grad, param, state, lr, n):
            return lr * grad, state

        return lr * grad, state

    with FakeTensorMode():
        fusedrms.rule()(body)


def test_asked_for_by_name():
    """hasattr() and getattr() are Python's."""

    @fusedrms.rule(beta=0.5)
    def Asking(grad, param, state, lr, n):
        return lr * grad * getattr(n, "gamma", 2.0) * n.beta * hasattr(n, "beta"), state

    (param,) = params = parameters([(3,)])
    before = param.detach().clone()
    param.grad = torch.ones_like(param)
    Asking(params, lr=1.0).step()
    assert torch.equal(param, before - 1.0)


def test_ours_are_declared_to_the_same_table():
    params = parameters([(3,)])
    for optimizer in (FusedRMSProp(params), fusedrms.FusedSMORMS3(params)):
        (recipe,) = optimizer._recipes()
        assert recipe.rule in RULES
        assert recipe.states.keys() == RULES[recipe.rule].states.keys()
    random_grads(params)
