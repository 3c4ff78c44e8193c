"""Options, presets and classes, as a command line would choose them."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, presets

model = nn.Linear(4, 2).to(torch.bfloat16)
Where = Literal["outside", "inside"]


def make(where: Where, lean: bool) -> FusedRMSProp:
    return FusedRMSProp(
        model.parameters(),
        eps_placement=where,
        master_weights="split" if lean else None,
        state_dtype="8bit" if lean else torch.float32,
        ema_decay=0.999,
    )


def last(optimizer: FusedRMSProp | FusedSMORMS3) -> Tensor | None:
    return optimizer.last_grad_norm


lean: FusedRMSProp = make("inside", True)
graves = FusedRMSPropGraves(model.parameters(), 1e-4, momentum=torch.tensor(0.9), clip_grad_norm=1.0, master_weights="split", centered=True)
smorms3 = FusedSMORMS3(model.parameters(), eps=1e-10, decoupled_weight_decay=True, state_dtype=torch.bfloat16)
known: dict[str, Callable[[list[nn.Parameter]], FusedRMSProp]] = {
    "keras": presets.keras_rmsprop,
    "dqn": lambda params: presets.dqn2015(params, minibatch_size=64),
    "tensorflow": lambda params: presets.tensorflow_rmsprop(params, torch.tensor(1e-3), centered=True),
}
keras: FusedRMSProp = known["keras"](list(model.parameters()))
by_paper: FusedRMSPropGraves = presets.graves2013(model.parameters())
memory: FusedSMORMS3 = presets.chainer_smorms3(model.parameters(), lr=1e-3)
names: list[str] = [member.name for member in presets.find("dqn") if member.eps == "inside"]
print([lean, graves, smorms3, by_paper, memory], names, last(keras))
