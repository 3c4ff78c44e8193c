"""Graves' own numbers."""

from typing import Any

from torch.optim.optimizer import ParamsT

from ..graves import FusedRMSPropGraves
from .preset import preset


@preset(FusedRMSPropGraves, "Graves 2013", "arXiv:1308.0850")
def graves2013(params: ParamsT) -> dict[str, Any]:
    """The optimizer of Graves, arXiv:1308.0850, with his numbers: decay .95, momentum .9, rate 1e-4, epsilon 1e-4.

    Args:
        params: as of FusedRMSProp.

    Source: equations 38-45. His clipping of derivatives inside of the network is no part of it.
    """
    return {}
