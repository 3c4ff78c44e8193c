"""The RMSProp family for PyTorch as one fused multi-tensor launch."""

from .rmsprop import FusedRMSProp
from .version import __version__

__all__ = ["FusedRMSProp", "__version__"]
