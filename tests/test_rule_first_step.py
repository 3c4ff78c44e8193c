"""What a rule's comparison before the first step does not miss."""

import pytest
import torch

import fusedrms
from fusedrms import State
from fusedrms.rules import compared
from fusedrms.rules.declared import Written
from made_rules import Lion
from tools import parameters


def _parameter():
    (param,) = parameters([(50,)])
    param.grad = torch.linspace(2, -3, 50)
    return param


def test_zeros_hide_nothing(monkeypatch):
    """A rate that warms up from 0, or an option that is 0 at first, leaves nothing out of the comparison."""
    asked = []
    monkeypatch.setattr(compared, "_compared", set())
    monkeypatch.setattr(compared, "check_drivers", lambda one, device: asked.append((one.lr, one.options["betas[0]"])))
    Lion([_parameter()], lr=0.0, betas=(0.0, 0.99)).step()
    assert asked == [(0.0, 0.0), (1e-3, 0.5)]


def test_what_the_host_computes_is_compared():
    """Of two rules with one kernel, the second reads a variable that has changed since."""
    box = [1.0]

    @fusedrms.rule(a=0.5)
    def Plain(grad, param, state, lr, n):
        return lr * (1 - n.a) * grad, state

    @fusedrms.rule(a=0.5)
    def Boxed(grad, param, state, lr, n):
        return lr * (box[0] - n.a * n.a) * grad, state

    Boxed.declared.function.__name__ = "Plain"
    Plain([_parameter()]).step()
    box[0] = 2.0
    with pytest.raises(RuntimeError, match="If the function reads variables that have changed since it was declared"):
        Boxed([_parameter()]).step()


def test_states_that_are_declared_otherwise_later():
    """As a notebook's cell that is run again: what is never negative is looked at anew."""

    def declared(states):
        @fusedrms.rule(states=states, beta=0.5)
        def Cell(grad, param, state, lr, n):
            m = n.beta * state.m + (1 - n.beta) * grad
            return lr * m, state.replace(m=m)

        return Cell

    declared(["m"])([_parameter()], state_dtype="8bit").step()
    with pytest.raises(fusedrms.RuleError, match="rule 'Cell': the state 'm' is declared nonnegative, and becomes negative"):
        declared(dict(m=State(nonnegative=True)))([_parameter()], state_dtype="8bit").step()


def test_check_of_a_flag(capsys):
    @fusedrms.rule(twice=False)
    def Flagged(grad, param, state, lr, n):
        return (2 * lr if n.twice else lr) * grad, state

    def reference(grad, param, state, lr, n):
        return (2 * lr if n.twice else lr) * grad, state.replace()

    for flags in ({}, dict(twice=True)):
        Flagged.check(reference, targets="cpu", modes="float32", **flags)
    with pytest.raises(TypeError, match="unexpected keyword argument 'thrice'"):
        Flagged.check(thrice=True)
    capsys.readouterr()


def booleans(grad, param, state, lr, n):
    """As torch has them: a sum is `or`, a product `and`."""
    a, b = grad > 0, param > 0
    return lr * ((a + b) * 0.5 + (a * b) * 2 + (a + 1) + torch.where(a, 2, 4) ** -1) * grad, state


def test_booleans():
    compared.check_drivers(compared.subject_of(Written(booleans, {}, {}, {}), dict(lr=1e-3)), torch.device("cpu"))
