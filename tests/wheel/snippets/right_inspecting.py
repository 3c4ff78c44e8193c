"""What an optimizer tells: memory, statistics, averages and masters."""

import torch
from torch import Tensor, nn

from fusedrms import FusedRMSProp, Memory, export_master

model = nn.Linear(4, 2).to(torch.bfloat16)
optimizer = FusedRMSProp(model.named_parameters(), ema_decay=0.999, ema_warmup=True, stats=True, master_weights="split24")
planned: Memory = optimizer.memory(planned=True)
states: dict[str, int] = planned.states
per_parameter: float = planned.per_parameter["total"]
torch.autograd.backward(model(torch.ones(8, 4, dtype=torch.bfloat16)).sum())
optimizer.step()
stats = optimizer.stats()
largest: Tensor = stats.parameters["weight"]["grad_max"]
ratios: list[Tensor] = [values["update_ratio"] for values in stats.groups.values()]
numbers: dict[str, float] = stats.as_dict(prefix="optimizer/")
averages: dict[str, Tensor] = {name: average for name, _, average in optimizer.averages()}
with optimizer.averaged():
    output: Tensor = model(torch.ones(1, 4, dtype=torch.bfloat16))
masters: dict[Tensor, Tensor] = {parameter: value.cpu() for parameter, value in export_master(optimizer)}
optimizer.release()
print(per_parameter, states, largest, ratios)
print(numbers, averages, output.dtype, len(masters))
