"""Chainer."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_flags
from ..graves import FusedRMSPropGraves
from ..rmsprop import FusedRMSProp
from ..smorms3 import FusedSMORMS3
from .preset import preset


@preset(FusedRMSProp, "Chainer", "7.8.1")
def chainer_rmsprop(
    params: ParamsT, lr: float | Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-8, eps_inside_sqrt: bool = False
) -> dict[str, Any]:
    """Chainer's RMSprop: epsilon outside of the root, or inside on request.

    Args:
        params: as of FusedRMSProp.
        lr: learning rate.
        alpha: decay of the square average.
        eps: added to the root, or to the square average.
        eps_inside_sqrt: to the latter.

    Source: Chainer, chainer/optimizers/rmsprop.py. Not carried over: an error where eps underflows in float16, since states are
    float32 here; hooks, which are options of a parameter group: ``WeightDecay`` is ``weight_decay``, ``GradientClipping``
    ``clip_grad_norm`` (here always before the decay, there in the order of the hooks), ``GradientHardClipping`` ``clip_grad_value``.
    """
    check_flags(dict(eps_inside_sqrt=eps_inside_sqrt), "eps_inside_sqrt")
    return dict(lr=lr, alpha=alpha, eps=eps, eps_placement="inside" if eps_inside_sqrt else "outside")


@preset(FusedRMSPropGraves, "Chainer", "7.8.1")
def chainer_rmsprop_graves(
    params: ParamsT, lr: float | Tensor = 1e-4, alpha: float = 0.95, momentum: float = 0.9, eps: float = 1e-4
) -> dict[str, Any]:
    """Chainer's RMSpropGraves: centered, epsilon inside of the root, the rate inside of the momentum.

    Args:
        params: as of FusedRMSProp.
        lr: learning rate.
        alpha: decay of both averages.
        momentum: decay of the momentum buffer.
        eps: added to the variance.

    Source: Chainer, chainer/optimizers/rmsprop_graves.py. Its ``delta`` has the opposite sign of ``momentum_buffer``. Hooks: as of
    :func:`chainer_rmsprop`.
    """
    return dict(lr=lr, alpha=alpha, momentum=momentum, eps=eps)


@preset(FusedSMORMS3, "Chainer", "7.8.1")
def chainer_smorms3(params: ParamsT, lr: float | Tensor = 0.001, eps: float = 1e-16) -> dict[str, Any]:
    """Chainer's SMORMS3.

    Args:
        params: as of FusedSMORMS3.
        lr: the largest learning rate.
        eps: added to the square average and to its root.

    Source: Chainer, chainer/optimizers/smorms3.py. Hooks: as of :func:`chainer_rmsprop`.
    """
    return dict(lr=lr, eps=eps)
