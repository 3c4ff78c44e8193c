"""An optimizer of one's own equations."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

import fusedrms
from fusedrms import Number, RuleError, State


@fusedrms.rule(states=["exp_avg"], lr=1e-4, decoupled_weight_decay=True, betas=(0.9, 0.99))
def Lion(grad: Tensor, param: Tensor, state: Any, lr: Tensor, n: Any) -> tuple[Tensor, Any]:
    """Sign of an average."""
    beta1, beta2 = n.betas
    update = torch.sign(torch.lerp(grad, state.exp_avg, beta1))
    return lr * update, state.replace(exp_avg=torch.lerp(grad, state.exp_avg, beta2))


@fusedrms.rule(states={"square_sum": State(0.1, nonnegative=True), "exp_avg": 0.0}, eps=Number(1e-10), shift=Number(-1.0, least=-math.inf))
def Adagrad(grad: Tensor, param: Tensor, state: Any, lr: Tensor, n: Any) -> tuple[Tensor, Any]:
    square_sum = state.square_sum + grad * grad
    changed = state.replace(square_sum=square_sum, exp_avg=0.5 * (state.exp_avg + grad + n.shift))
    return lr * grad / (torch.sqrt(square_sum) + n.eps), changed


model = nn.Linear(4, 2)
optimizer = Lion(model.parameters(), 1e-3, betas=(0.95, 0.98), weight_decay=0.1, state_dtype="8bit")
torch.autograd.backward(model(torch.ones(8, 4)).sum())
optimizer.step()
norm: Tensor | None = optimizer.last_grad_norm
total: int = optimizer.memory().total
classes: list[Callable[[Iterable[Tensor]], torch.optim.Optimizer]] = [Lion, Adagrad]
others = [made(model.parameters()) for made in classes]
try:

    @fusedrms.rule()
    def Branch(grad: Tensor, param: Tensor, state: Any, lr: Tensor, n: Any) -> tuple[Tensor, Any]:
        return (lr if grad > 0 else -lr), state

except RuleError as error:
    print(error, norm, total, others)
