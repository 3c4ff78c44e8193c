"""PuzzleLib."""

from typing import Any

from torch.optim.optimizer import ParamsT

from ..graves import FusedRMSPropGraves
from ..rmsprop import FusedRMSProp
from ..smorms3 import FusedSMORMS3
from .preset import preset


@preset(FusedRMSProp, "PuzzleLib", "bd59115")
def puzzlelib_rmsprop(params: ParamsT, learnRate: float = 1e-3, factor: float = 0.9, epsilon: float = 1e-5) -> dict[str, Any]:
    """PuzzleLib's RMSProp: epsilon outside of the root.

    Args:
        params: as of FusedRMSProp.
        learnRate: learning rate.
        factor: decay of the square average.
        epsilon: added to the root.

    Source: PuzzleLib, Optimizers/RMSProp.py. Its gradients are -dL/dw, so its code adds what is subtracted here.
    """
    return dict(lr=learnRate, alpha=factor, eps=epsilon)


@preset(FusedRMSPropGraves, "PuzzleLib", "bd59115")
def puzzlelib_rmsprop_graves(
    params: ParamsT, learnRate: float = 1e-4, alpha: float = 0.95, momRate: float = 0.9, epsilon: float = 1e-4
) -> dict[str, Any]:
    """PuzzleLib's RMSPropGraves: centered, epsilon inside of the root, the rate inside of the momentum.

    Args:
        params: as of FusedRMSProp.
        learnRate: learning rate.
        alpha: decay of both averages.
        momRate: decay of the momentum buffer.
        epsilon: added to the variance.

    Source: PuzzleLib, Optimizers/RMSPropGraves.py. Its documentation swaps the two averages below the root: the code computes
    sqrt(E[g²] - E[g]² + epsilon). Its buffer has the opposite sign of ``momentum_buffer``.
    """
    return dict(lr=learnRate, alpha=alpha, momentum=momRate, eps=epsilon)


@preset(FusedSMORMS3, "PuzzleLib", "bd59115")
def puzzlelib_smorms3(params: ParamsT, learnRate: float = 1e-3, epsilon: float = 1e-16) -> dict[str, Any]:
    """PuzzleLib's SMORMS3.

    Args:
        params: as of FusedRMSProp.
        learnRate: the largest learning rate.
        epsilon: added to the square average and to its root.

    Source: PuzzleLib, Optimizers/SMORMS3.py. Its documentation swaps r and 1 - r, puts epsilon inside of the last root, and
    gives 1e-5 as its default; the code does none of this.
    """
    return dict(lr=learnRate, eps=epsilon)
