"""A step in place of torch.optim.RMSprop's, with and without a closure."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

import fusedrms
from fusedrms import FusedRMSProp

model = nn.Linear(4, 2)
lr = torch.tensor(1e-3)
optimizer: torch.optim.Optimizer = FusedRMSProp(model.parameters(), lr)
optimizer = FusedRMSProp(model.parameters(), 1e-3, 0.99, 1e-8, 0.01, 0.9)
groups: list[dict[str, Any]] = [dict(params=[model.weight], lr=1e-2, clip_grad_norm=1.0), dict(params=[model.bias])]
named = FusedRMSProp(model.named_parameters(), foreach=None, stats=100, skip_above=(5.0, 128), seed=1)
grouped = FusedRMSProp(groups, clip_grad_norm=torch.tensor(2.0), clip_norm_over="parameter", weight_decay=torch.tensor(0.1))


def closure() -> Tensor:
    grouped.zero_grad()
    loss: Tensor = model(torch.ones(8, 4)).square().mean()
    torch.autograd.backward(loss)
    return loss


loss: Tensor = grouped.step(closure)
number: float = grouped.step(lambda: 0.5)
torch.autograd.backward(model(torch.ones(8, 4)).sum())
grouped.step()
norm = grouped.last_grad_norm
if norm is not None:
    print(norm.item(), grouped.skipped_steps.item(), grouped.skipped_steps_by_reason["above"])
grouped.load_state_dict(copy.deepcopy(grouped.state_dict()))
grouped.add_param_group(dict(params=[nn.Parameter(torch.zeros(3))], lr=1e-4))
version: str = fusedrms.__version__
