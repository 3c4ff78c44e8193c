"""Schedules without their optimizer, and with other arguments."""

from torch import nn

from fusedrms import FusedRMSProp, schedules

model = nn.Linear(4, 2)
optimizer = FusedRMSProp(model.parameters())
schedules.StepSchedule(step_config=[30], change=[0.1])  # wrong
schedules.StepSchedule(optimizer, [30], change=0.1)  # wrong
schedules.StepSchedule(optimizer, [30], change=[0.1])
schedules.MultiStepSchedule(optimizer, [30, 60], "0.1")  # wrong
schedules.PowerSchedule(optimizer, step_config=[10], change=0.1)  # wrong
schedules.ExponentialDecay(optimizer, decay_rate=0.97)  # wrong
schedules.ExpSchedule(model, 0.1)  # wrong
schedules.CosineSchedule(optimizer)  # wrong
rate: str = schedules.PolySchedule(optimizer, 90, 2.0).rate(0.1, 45)  # wrong
