"""Options that do not exist, or have other values."""

import torch
from torch import nn

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3

model = nn.Linear(4, 2)
FusedRMSProp(model.parameters(), learning_rate=1e-3)  # wrong
FusedRMSProp(model.parameters(), lr="1e-3")  # wrong
FusedRMSProp(model.parameters(), eps_placement="middle")  # wrong
FusedRMSProp(model.parameters(), state_dtype="16bit")  # wrong
FusedRMSProp(model.parameters(), state_dtype=torch.float32)
FusedRMSProp(model.parameters(), master_weights=True)  # wrong
FusedRMSProp(model.parameters(), clip_norm_over="group")  # wrong
FusedRMSProp(model.parameters(), clip_norm_on="updates")  # wrong
FusedRMSProp(model.parameters(), skip_above=5.0)  # wrong
FusedRMSProp(model.parameters(), initial_square_avg=torch.ones(()))  # wrong
FusedRMSProp(model.parameters(), 1e-3, 0.99, 1e-8, 0, "0.9")  # wrong
FusedRMSProp(model)  # wrong
FusedRMSProp()  # wrong
FusedRMSPropGraves(model.parameters(), clip_grad_nrm=1.0)  # wrong
FusedRMSPropGraves(model.parameters(), centered=False)  # wrong
FusedRMSPropGraves(model.parameters(), caution=True)
FusedSMORMS3(model.parameters(), alpha=0.9)  # wrong
FusedSMORMS3(model.parameters(), model_parallel_group="model")  # wrong
