"""The RMSProp family for PyTorch. One launch of a compiled kernel updates a whole model: Triton's on GPUs, Numba's on CPUs.

* `FusedRMSProp`, `FusedRMSPropGraves`, `FusedSMORMS3`: optimizers.
* `presets`: the RMSProp of other systems and papers, with their names and defaults.
* `schedules`: learning rate schedules of neon and TensorFlow.
* `rule`, `State`, `Number`, `RuleError`: optimizers of your own equations.
* `apply_in_backward`: steps within the backward pass.
* `export_master`: parameters in full precision.
* `Memory`: how many bytes an optimizer holds.

`fusedrms.planner` and `fusedrms.timm` are imported by name. They serve `torch.distributed.checkpoint` and timm.

Attributes:
    __version__: Version of the package, "major.minor.patch".

Examples:
    >>> from fusedrms import FusedRMSProp
    >>> model = torch.nn.Linear(4, 2)
    >>> optimizer = FusedRMSProp(model.parameters(), lr=1e-3)
    >>> model(torch.ones(8, 4)).square().mean().backward()
    >>> optimizer.step()
"""

# May import: fusedrms.classes, fusedrms.presets, fusedrms.rules, fusedrms.schedules, fusedrms.engine.*.

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
