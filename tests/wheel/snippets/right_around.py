"""What stands around an optimizer: schedules, the backward pass, processes, checkpoints."""

from typing import Any

import torch
import torch.multiprocessing as mp
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from fusedrms import FusedRMSProp, FusedRMSPropGraves, apply_in_backward, presets, schedules
from fusedrms.planner import LoadPlanner, repacked

model = nn.Linear(4, 2)
optimizer = FusedRMSProp(model.parameters(), lr=0.1).share_memory()
steps: list[LRScheduler] = [
    schedules.ExponentialDecay(optimizer, decay_steps=2.4, decay_rate=0.97, staircase=True, warmup_steps=5),
    schedules.StepSchedule(optimizer, [30, 60], change=[0.1, 0.01]),
    schedules.MultiStepSchedule(optimizer, step_config=(30, 60), change=0.1),
    torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10),
]
rate: float = schedules.PolySchedule(optimizer, 90, power=2.0).rate(0.1, epoch=45)
locked: FusedRMSProp = optimizer.share_memory(lock=mp.Lock()).share_memory(lock=True)
in_backward: FusedRMSProp = apply_in_backward(model, FusedRMSProp, norm_from="previous", clip_grad_norm=1.0)
graves: FusedRMSPropGraves = apply_in_backward(list(model.parameters()), presets.graves2013)
torch.autograd.backward(model(torch.ones(8, 4)).sum())
planner = LoadPlanner(allow_partial_load=False)
group: dict[str, Any] = repacked(dict(params=[0], lr=1e-3, alpha=0.99, eps=1e-8, momentum=0.9, lr_in_momentum=True))
print(steps, rate, locked, graves, planner, group)
