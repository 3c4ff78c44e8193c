"""The RMSProp family for PyTorch as one fused multi-tensor launch."""

# May import: fusedrms.classes, fusedrms.presets, fusedrms.rules, fusedrms.engine.*.

from . import presets, schedules
from .backward import apply_in_backward
from .engine.state.masters import export_master
from .engine.state.usage import Memory
from .graves import FusedRMSPropGraves
from .rmsprop import FusedRMSProp
from .rules.declare import rule
from .rules.declared import Number, State
from .rules.errors import RuleError
from .smorms3 import FusedSMORMS3
from .version import __version__

__all__ = [
    "FusedRMSProp",
    "FusedRMSPropGraves",
    "FusedSMORMS3",
    "Memory",
    "Number",
    "RuleError",
    "State",
    "__version__",
    "apply_in_backward",
    "export_master",
    "presets",
    "rule",
    "schedules",
]
