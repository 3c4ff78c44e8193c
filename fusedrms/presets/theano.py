"""Theano, and what was built on it: Lasagne, Blocks."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..engine.options.checks import check_positive
from ..graves import FusedRMSPropGraves
from ..rmsprop import FusedRMSProp
from .preset import preset


@preset(FusedRMSPropGraves, "Theano", "DeepLearningTutorials 11c4651")
def theano_rmsprop(params: ParamsT) -> dict[str, Any]:
    """The rmsprop of Theano's tutorial on LSTMs, with its numbers: decay .95, momentum .9, rate 1e-4, epsilon 1e-4.

    Args:
        params: as of FusedRMSProp.

    Source: DeepLearningTutorials, code/lstm.py. Its function takes a learning rate, and ignores it: the rule is Graves', with his numbers.
    """
    return dict(lr=1e-4, alpha=0.95, momentum=0.9, eps=1e-4)


@preset(FusedRMSProp, "Lasagne", "0.2.dev1, 5d3c63c")
def lasagne_rmsprop(params: ParamsT, learning_rate: float | Tensor = 1.0, rho: float = 0.9, epsilon: float = 1e-6) -> dict[str, Any]:
    """Lasagne's updates.rmsprop: epsilon inside of the root, a rate of 1 by default.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        rho: decay of the square average.
        epsilon: added to the square average.

    Source: Lasagne, lasagne/updates.py. Its ``total_norm_constraint`` is ``clip_grad_norm`` of a parameter group, to 1e-7 of the norm.
    """
    return dict(lr=learning_rate, alpha=rho, eps=epsilon, eps_placement="inside")


@preset(FusedRMSProp, "Blocks", "c69c2dc")
def blocks_rmsprop(
    params: ParamsT, learning_rate: float | Tensor = 1.0, decay_rate: float = 0.9, max_scaling: float = 1e5
) -> dict[str, Any]:
    """Blocks' RMSProp: the root is at least 1 / max_scaling, a rate of 1 by default.

    Args:
        params: as of FusedRMSProp.
        learning_rate: learning rate.
        decay_rate: decay of the square average.
        max_scaling: the most that a gradient is multiplied by, apart from the rate.

    Raises:
        ValueError: max_scaling is not above 0.

    Source: Blocks, blocks/algorithms/__init__.py. Its ``StepClipping`` before it is ``clip_grad_norm`` of a parameter group.
    """
    check_positive(dict(max_scaling=max_scaling), "max_scaling")
    return dict(lr=learning_rate, alpha=decay_rate, eps=1 / max_scaling, eps_placement="floor")
