"""MindSpore."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_positive
from ..rmsprop import FusedRMSProp
from .preset import preset
from .tensorflow import tensorflow_options


@preset(FusedRMSProp, "MindSpore", "2.10.0")
def mindspore_rmsprop(
    params: ParamsT,
    learning_rate: float | Tensor = 0.1,
    decay: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-10,
    centered: bool = False,
    loss_scale: float = 1.0,
    weight_decay: float = 0.0,
) -> dict[str, Any]:
    """MindSpore's nn.RMSProp: epsilon inside of the root, the rate inside of the momentum, square averages from 1.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate, ten times that of most.
        decay: decay of the averages.
        momentum: decay of the momentum buffer.
        epsilon: added to the square average, or to the variance.
        centered: divide by the standard deviation.
        loss_scale: gradients are divided by it first.
        weight_decay: L2 penalty.

    Source: MindSpore, python/mindspore/nn/optim/rmsprop.py, the kernels for CPUs and GPUs. No documentation says that averages start
    from 1. Unless centered, the kernel for CPUs has epsilon outside of the root for each 8 elements of a parameter, which AVX takes at
    once, and inside for the up to 7 that remain; here it is inside for all. Centered, where a variance is not positive, that kernel leaves
    an element out. Not carried over: use_locking, which stands before centered; weight_decay is none for names with "beta" or "gamma"
    there: use a parameter group with weight_decay=0.
    """
    check_positive(dict(loss_scale=loss_scale), "loss_scale")
    options = tensorflow_options(learning_rate, decay, momentum, epsilon, centered)
    return options | dict(rescale_grad=1 / loss_scale, weight_decay=weight_decay)
