"""The RMSProp family for PyTorch as one fused multi-tensor launch."""

# May import: fusedrms.classes, fusedrms.presets, fusedrms.engine.*.

from . import presets, schedules
from .backward import apply_in_backward
from .engine.state.masters import export_master
from .engine.state.usage import Memory
from .rmsprop import FusedRMSProp, FusedRMSPropGraves
from .smorms3 import FusedSMORMS3
from .version import __version__

__all__ = [
    "FusedRMSProp",
    "FusedRMSPropGraves",
    "FusedSMORMS3",
    "Memory",
    "__version__",
    "apply_in_backward",
    "export_master",
    "presets",
    "schedules",
]
