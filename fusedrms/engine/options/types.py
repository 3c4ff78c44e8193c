"""What values options may have, in the words of type checkers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
else:  # torch can be built without
    ProcessGroup = getattr(torch.distributed, "ProcessGroup", Any)

EpsPlacement: TypeAlias = Literal["outside", "inside", "both", "floor"]
NormOn: TypeAlias = Literal["gradient", "update"]
NormOver: TypeAlias = Literal["optimizer", "parameter"]
MasterWeights: TypeAlias = Literal["float32", "split", "split24"]
StateDtype: TypeAlias = torch.dtype | Literal["8bit", "4bit"]
ModelParallelGroup: TypeAlias = ProcessGroup | DeviceMesh | Sequence[ProcessGroup | DeviceMesh]


class GravesOptions(TypedDict, total=False):
    """What FusedRMSPropGraves takes by name alone: the options of FusedRMSProp, of which three have one value."""

    centered: Literal[True]
    capturable: bool
    foreach: bool | None
    maximize: bool
    differentiable: bool
    eps_placement: Literal["inside"]
    lr_in_momentum: Literal[True]
    nesterov: bool
    decoupled_weight_decay: bool
    corrected_weight_decay: bool
    max_lr_snapshot: float | Tensor | None
    initial_square_avg: float
    bias_correction: bool
    rescale_grad: float | Tensor
    clip_grad_value: float | Tensor | None
    clip_after_decay: bool
    clip_grad_norm: float | Tensor | None
    clip_norm_on: NormOn
    clip_norm_over: NormOver
    clip_weights: float | Tensor | None
    caution: bool
    stochastic_rounding: bool
    master_weights: MasterWeights | None
    state_dtype: StateDtype
    seed: int | None
    skip_nonfinite: bool
    ema_decay: float | Tensor | None
    ema_warmup: bool
    stats: bool | int
    skip_above: tuple[float, int] | None
    model_parallel_group: ModelParallelGroup | None
