"""Rules that are declared with something else, and their classes used otherwise."""

from typing import Any

from torch import Tensor, nn

import fusedrms

fusedrms.rule(states=[1, 2])  # wrong
fusedrms.rule(states={"square_sum": 0.0})
fusedrms.State("0.1")  # wrong
fusedrms.State(0.1, positive=True)  # wrong
fusedrms.Number()  # wrong
fusedrms.Number(0.9, most="1")  # wrong


@fusedrms.rule(betas=(0.9, 0.99))
def SignSGD(grad: Tensor, param: Tensor, state: Any, lr: Tensor, n: Any) -> tuple[Tensor, Any]:
    return lr * grad.sign(), state


def without_state(grad: Tensor, param: Tensor, lr: Tensor, n: Any) -> tuple[Tensor, Any]:
    return lr * grad, None


def update_alone(grad: Tensor, param: Tensor, state: Any, lr: Tensor, n: Any) -> Tensor:
    return lr * grad


fusedrms.rule()(without_state)  # wrong
fusedrms.rule()(update_alone)  # wrong
fusedrms.rule(without_state)  # wrong
SignSGD()  # wrong
print(SignSGD(nn.Linear(4, 2).parameters()).betas)  # wrong
SignSGD.check(seed="0")  # wrong
