"""Functions that are no update rules: where the error points, what it says is wrong, and what to write instead."""

import copy
import math
import random

import numpy as np
import pytest
import torch

from fusedrms.rules.errors import RuleError
from fusedrms.rules.tracing import run, trace

KEPT = []


def _branch(grad, param, state, lr, n):
    if grad > 0:
        return grad, state
    return grad, state.replace(exp_avg=grad)


def _no_states(grad, param, state, lr, n):
    return grad


def _too_few(grad, param):
    return grad, param


def _set_state(grad, param, state, lr, n):
    state.exp_avg = grad
    return grad, state


def _set_number(grad, param, state, lr, n):
    n.beta1 = 0.5
    return grad, state.replace(exp_avg=grad)


def _in_place(grad, param, state, lr, n):
    grad += n.beta1 * param
    return grad, state.replace(exp_avg=grad)


def _not_replaced(grad, param, state, lr, n):
    return lr * grad, state


def _set_element(grad, param, state, lr, n):
    grad[0] = 0.0
    return grad, state


def _iterates(grad, param, state, lr, n):
    return sum(x for x in grad), state


def _keeps(grad, param, state, lr, n):
    KEPT.append(grad)
    return KEPT[0] * grad, state.replace(exp_avg=grad)


def _counts(grad, param, state, lr, n):
    KEPT.append(1)
    return grad * len(KEPT), state.replace(exp_avg=grad)


def of(update, **changed):
    """A rule whose update is an expression's."""
    return lambda grad, param, state, lr, n: (update(grad, param, state, lr, n), state.replace(**(changed or dict(exp_avg=grad))))


# what a rule returns as its update, or the rule; and what the error says
WRONG = {
    "branch": (
        _branch,
        'line 18, "if grad > 0:": a rule cannot branch on a value that differs from element to element: write torch.where(',
    ),
    "and": (of(lambda g, p, s, lr, n: g > 0 and p), "cannot branch on a value that differs"),
    "max()": (of(lambda g, p, s, lr, n: max(g, p)), "max() branch too"),
    "branch on a number": (
        of(lambda g, p, s, lr, n: g if n.beta1 > 0 else p),
        "An option whose default is True or False may",
    ),
    "branch on lr": (of(lambda g, p, s, lr, n: g if lr else p), "cannot branch on the learning rate"),
    "alone": (_no_states, "it returns a value alone; it must return the update and the states: return update, state.replace(...)"),
    "nothing": (lambda grad, param, state, lr, n: None, "it returns nothing; it must return"),
    "three": (lambda grad, param, state, lr, n: (grad, state, lr), "it returns a tuple of 3"),
    "no state": (lambda grad, param, state, lr, n: (grad, {}), "the second value that it returns is {}"),
    "literal update": (of(lambda g, p, s, lr, n: 1.0), "the update is 1.0, which no element of the gradient is in"),
    "swapped": (
        lambda param, grad, state, lr, n: (grad, state),
        "'param' is in another's place: it must take grad, param, state",
    ),
    "n.lr": (of(lambda g, p, s, lr, n: g * n.lr), "there is no option 'lr': the learning rate is an argument, write lr"),
    "state.step": (of(lambda g, p, s, lr, n: g / s.step), "there is no state 'step': write n.step"),
    "all options": (of(lambda g, p, s, lr, n: g * n), "n, which has all options: write n.NAME"),
    "torch.max": (of(lambda g, p, s, lr, n: torch.max(g, p)), "there is no max in a rule: of two values write torch.maximum(a, b)"),
    "detach": (of(lambda g, p, s, lr, n: g.detach()), "there is no detach in a rule: leave it out"),
    "chain": (of(lambda g, p, s, lr, n: torch.where(0 < g < 1, g, p)), "(0 < x) & (x < 1) of 0 < x < 1"),
    "minus a comparison": (of(lambda g, p, s, lr, n: (1 - (g > 0)) * g), "torch subtracts no comparisons"),
    "a comparison's negative": (of(lambda g, p, s, lr, n: -(g > 0) * g), "torch subtracts no comparisons"),
    "deepcopy": (of(lambda g, p, s, lr, n: copy.deepcopy(g) + copy.deepcopy(n.beta1).norm()), "norm needs all elements at once"),
    "same for all": (of(lambda g, p, s, lr, n: lr * n.beta1), "has neither grad, param nor a state in it"),
    "arguments": (_too_few, "it must take grad, param, state, lr, n"),
    "set a state": (_set_state, "state.exp_avg cannot be set: return update, state.replace(exp_avg=...)"),
    "set a number": (_set_number, "n.beta1 cannot be set: options are set by who uses"),
    "in place": (_in_place, "+= would change a value in place, and a rule makes new ones: write x = x + y"),
    "mul_": (of(lambda g, p, s, lr, n: g.mul_(2)), "mul_ would change a value in place, and a rule makes new ones: write x = x.mul(...)"),
    "torch.sqrt_": (of(lambda g, p, s, lr, n: torch.sqrt_(g)), "sqrt_ would change a value in place"),
    "not replaced": (_not_replaced, "the state 'exp_avg' is not replaced: add exp_avg=... to state.replace()"),
    "unknown state": (of(lambda g, p, s, lr, n: s.exp_avgs * g), "there is no state 'exp_avgs': did you mean 'exp_avg'?"),
    "unknown new state": (of(lambda g, p, s, lr, n: g, expavg=1.0), "there is no state 'expavg' to replace: did you mean 'exp_avg'?"),
    "unknown number": (of(lambda g, p, s, lr, n: n.beta * g), "there is no option 'beta': did you mean 'beta1'?"),
    "state by key": (of(lambda g, p, s, lr, n: s["exp_avg"]), "states are attributes: write state.exp_avg"),
    "number by key": (of(lambda g, p, s, lr, n: n["beta1"] * g), "options are attributes: write n.beta1"),
    "index": (of(lambda g, p, s, lr, n: g[0]), "a rule sees one at a time: leave the index out"),
    "set an element": (_set_element, "use torch.where(condition, a, b)"),
    "iteration": (_iterates, "iteration of a value that differs"),
    "len()": (of(lambda g, p, s, lr, n: g / len(g)), "len(), or torch.tensor(), of a value that differs"),
    "float()": (
        of(lambda g, p, s, lr, n: g * float(n.beta1)),
        "of an option or the step, which may change: it is not known",
    ),
    "int()": (of(lambda g, p, s, lr, n: g * int(n.step)), "int() of an option or the step"),
    "range()": (of(lambda g, p, s, lr, n: [g for _ in range(n.step)]), "range() of an option or the step"),
    "math": (of(lambda g, p, s, lr, n: math.sqrt(g)), "write torch.sqrt(x), say"),
    "norm": (of(lambda g, p, s, lr, n: g / torch.norm(g)), "norm needs all elements at once, and a rule sees one at a time"),
    "linalg": (of(lambda g, p, s, lr, n: g / torch.linalg.norm(g)), "norm needs all elements at once"),
    "mean": (of(lambda g, p, s, lr, n: g - g.mean()), "mean needs all elements at once"),
    "numpy.mean": (of(lambda g, p, s, lr, n: g - np.mean(g)), "mean needs all elements at once"),
    "numpy.add.reduce": (of(lambda g, p, s, lr, n: np.add.reduce(g)), "numpy.add.reduce needs all elements at once"),
    "unknown word": (of(lambda g, p, s, lr, n: torch.tanh(g)), "there is no tanh in a rule"),
    "nearly a word": (of(lambda g, p, s, lr, n: g.squar()), "there is no squar in a rule: did you mean 'square'?"),
    "nn": (of(lambda g, p, s, lr, n: torch.nn.functional.gelu(g)), "there is no gelu in a rule"),
    "out": (of(lambda g, p, s, lr, n: torch.sqrt(g, out=p)), "unexpected keyword argument 'out'; in a rule it takes input"),
    "rounding": (of(lambda g, p, s, lr, n: torch.div(g, p, rounding_mode="floor")), "in a rule it takes input, other"),
    "shape": (of(lambda g, p, s, lr, n: g * g.shape), "shape is about a tensor's shape or memory"),
    "stack": (of(lambda g, p, s, lr, n: torch.stack([g, p])), "stack is about a tensor's shape"),
    "@": (of(lambda g, p, s, lr, n: g @ p), "@ is not for a rule: write *"),
    "//": (of(lambda g, p, s, lr, n: g // 2), "// is not for a rule"),
    "%": (of(lambda g, p, s, lr, n: 2 % g), "% is not for a rule"),
    "^": (of(lambda g, p, s, lr, n: g ^ 2), "write ** for a power"),
    "random like": (of(lambda g, p, s, lr, n: g * torch.rand_like(g)), "rand_like is random"),
    "random": (of(lambda g, p, s, lr, n: g * torch.randn(())), "randn is random"),
    "random of Python's": (of(lambda g, p, s, lr, n: g * random.random()), "something else each time that it is called"),
    "counts": (_counts, "something else each time that it is called"),
    "keeps": (_keeps, "a value of another call of a rule"),
    "too large": (of(lambda g, p, s, lr, n: g * 1e39), "float32 cannot hold the literal 1e+39"),
    "too small": (of(lambda g, p, s, lr, n: g + 1e-50), "float32 cannot hold the literal 1e-50"),
    "reciprocal too large": (of(lambda g, p, s, lr, n: g / 1e-40), "float32 cannot hold the literal"),
    "huge": (of(lambda g, p, s, lr, n: g * 10**400), "float64 cannot hold this literal"),
    "NaN": (of(lambda g, p, s, lr, n: g * math.nan), "a literal NaN"),
    "tensor": (of(lambda g, p, s, lr, n: g * torch.ones(3)), "a tensor of shape (3,) on cpu is no literal"),
    "text": (of(lambda g, p, s, lr, n: g * "2"), "'2' is no number"),
    "complex": (of(lambda g, p, s, lr, n: g * 2j), "2j is no number"),
    "None": (of(lambda g, p, s, lr, n: g, exp_avg=None), "None is no number"),
    "times None": (of(lambda g, p, s, lr, n: g * None), "None is no number"),
    "the states": (of(lambda g, p, s, lr, n: g * s), "is no number: write a float, an option or a value"),
    "exponent": (of(lambda g, p, s, lr, n: g**0.3), "the exponent 0.3 is neither 0.5, -0.5 nor a whole number"),
    "option as exponent": (of(lambda g, p, s, lr, n: g**n.beta1), "write torch.exp(y * torch.log(x))"),
    "element as exponent": (of(lambda g, p, s, lr, n: 2**g), "an exponent must be a literal"),
    "condition": (of(lambda g, p, s, lr, n: torch.where(g, p, 0.0)), "must be a comparison, such as x != 0"),
    "& of numbers": (of(lambda g, p, s, lr, n: g & p), "write torch.logical_and"),
    "~ of a number": (of(lambda g, p, s, lr, n: ~g), "write torch.logical_not"),
    "clamp": (of(lambda g, p, s, lr, n: g.clamp()), "give it min or max"),
    "integers": (of(lambda g, p, s, lr, n: g.to(torch.int32)), "write .to(grad.dtype)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name):
    KEPT.clear()
    function, said = WRONG[name]
    with pytest.raises(RuleError) as caught:
        trace(function, name="mine", states=["exp_avg"], numbers=dict(beta1=True))
    message = str(caught.value)
    assert message.startswith("rule 'mine', test_rule_errors.py line ")
    assert said in message
    assert '": ' in message  # the line itself, too


def _helper(x):
    return x.mean()


def test_the_innermost_line_of_the_users():
    with pytest.raises(RuleError, match=r'"return x\.mean\(\)": mean needs'):
        trace(of(lambda g, p, s, lr, n: _helper(g)), name="mine", states=["exp_avg"])


def test_errors_of_the_user_pass():
    with pytest.raises(ZeroDivisionError):
        trace(of(lambda g, p, s, lr, n: g * (1 / 0)), name="mine", states=["exp_avg"])


def test_a_function_without_source():
    scope = {}
    exec("def rule(grad, param, state, lr, n):\n    return grad.mean(), state", scope)
    with pytest.raises(RuleError, match=r"^rule 'mine', <string> line 2: mean needs"):
        trace(scope["rule"], name="mine")


def test_run_says_the_same():
    with pytest.raises(RuleError, match=r"rule '_not_replaced', .*the state 'exp_avg' is not replaced"):
        run(_not_replaced, torch.ones(2), torch.ones(2), dict(exp_avg=torch.ones(2)), lr=0.1, numbers={}, step=1)
