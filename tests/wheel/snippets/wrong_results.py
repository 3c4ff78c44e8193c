"""Results that are taken for something else, and methods that are given something else."""

import torch
from torch import Tensor, nn

from fusedrms import FusedRMSProp, apply_in_backward, export_master

model = nn.Linear(4, 2)
optimizer = FusedRMSProp(model.parameters())
loss: Tensor = optimizer.step()  # wrong
number: str = optimizer.step(lambda: 0.5)  # wrong
optimizer.step(0.5)  # wrong
norm: Tensor = optimizer.last_grad_norm  # wrong
print(optimizer.memory().bytes)  # wrong
optimizer.memory(planned=True).per_parameter["total"].item()  # wrong
optimizer.stats()["weight"]  # wrong
optimizer.stats().total["grad_norm"].item()
for _, _average in optimizer.averages():  # wrong
    pass
with optimizer.averaged() as averaged:
    averaged.parameters()  # wrong
export_master(model)  # wrong
export_master(optimizer)[0]  # wrong
optimizer.share_memory(lock=1.0)  # wrong
apply_in_backward(model, torch.optim.RMSprop)  # wrong
apply_in_backward(model, FusedRMSProp, norm_from="next")  # wrong
print(apply_in_backward(model, FusedRMSProp).lr)  # wrong
