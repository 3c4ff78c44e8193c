"""A rule that returns the new parameter, where what the parameter loses is asked for, gives a warning when it is declared."""

import numpy as np
import pytest
import torch

import fusedrms

pytestmark = pytest.mark.filterwarnings("error")


def _new_parameter(grad, param, state, lr, n):
    return param - lr * grad, state


def _new_parameter_by_momentum(grad, param, state, lr, n):
    m = n.beta * state.m + grad
    return param * (1 - lr * n.decay) - lr / (1 - n.beta**n.step) * m, state.replace(m=m)


def _new_parameter_by_root(grad, param, state, lr, n):
    m = n.beta * state.m + n.decay * grad * grad
    return param.addcdiv(grad, m.sqrt() + 1e-8, value=-lr), state.replace(m=m)


RETURN_THE_PARAMETER = {
    "SGD": (_new_parameter, {}),
    "momentum": (_new_parameter_by_momentum, dict(states=["m"], beta=0.9, decay=0.1)),
    "a root": (_new_parameter_by_root, dict(states=["m"], beta=0.9, decay=0.1)),
}


@pytest.mark.parametrize("case", RETURN_THE_PARAMETER)
def test_a_function_that_returns_the_new_parameter(case):
    function, options = RETURN_THE_PARAMETER[case]
    with pytest.warns(UserWarning, match=r"rule '_new_parameter.*A rule returns what the parameter loses: lr \* ") as caught:
        fusedrms.rule(**options)(function)
    assert [each.filename for each in caught] == [__file__]


def test_an_update_may_be_made_of_the_parameter():
    """A decay of its own, and a distance from a slow copy, are none of these errors."""

    @fusedrms.rule(decay=1.0)
    def Decays(grad, param, state, lr, n):
        return lr * (grad + n.decay * param), state

    @fusedrms.rule()
    def OfLogarithms(grad, param, state, lr, n):
        return np.exp(np.log(lr)) * grad / np.sqrt(lr * lr), state

    @fusedrms.rule(states=["slow"])
    def Follows(grad, param, state, lr, n):
        slow = torch.where(n.step > 1, state.slow, param) - lr * grad
        return param - slow, state.replace(slow=slow)
