"""Names for this package's optimizers in timm's registry."""

import inspect

from . import presets
from .graves import FusedRMSPropGraves
from .rmsprop import FusedRMSProp
from .smorms3 import FusedSMORMS3


def _options(**chosen: bool) -> dict[str, object]:
    """Those that make FusedRMSProp timm's RMSpropTF, but for what timm passes by itself."""
    found = inspect.unwrap(presets.timm_rmsprop_tf)(None, **chosen)
    return {name: value for name, value in found.items() if name not in ("lr", "weight_decay", "momentum")}


def register() -> list[str]:
    """Let timm's `create_optimizer_v2` know this package's optimizers.

    | name | the same as timm's | class |
    |---|---|---|
    | `fusedrmsprop` | `rmsprop` | `FusedRMSProp` |
    | `fusedrmsproptf` | `rmsproptf` | `FusedRMSProp` |
    | `fusedrmsproptfw` | `rmsproptfw`, with decoupled weight decay | `FusedRMSProp` |
    | `fusedrmspropgraves` | | `FusedRMSPropGraves` |
    | `fusedsmorms3` | | `FusedSMORMS3` |

    The first three have timm's defaults: alpha 0.9, momentum 0.9. All take the options of their class as well. A second call changes
    nothing.

    Returns:
        The names.

    Raises:
        ImportError: timm is not installed, or is older than 1.0.12.

    Examples:
        >>> import timm.optim  # doctest: +SKIP
        >>> from fusedrms.timm import register  # doctest: +SKIP
        >>> register()  # doctest: +SKIP
        ['fusedrmsprop', 'fusedrmsproptf', 'fusedrmsproptfw', 'fusedrmspropgraves', 'fusedsmorms3']
        >>> optimizer = timm.optim.create_optimizer_v2(torch.nn.Linear(4, 2), opt="fusedrmsproptf", lr=1e-3)  # doctest: +SKIP
    """
    try:
        from timm.optim._optim_factory import OptimInfo, default_registry  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("timm's registry of optimizers cannot be imported: install timm 1.0.12 or later, pip install -U timm") from error
    tf, decoupled = _options(), _options(decoupled_decay=True)
    made = [
        OptimInfo("fusedrmsprop", FusedRMSProp, "torch's RMSprop in one launch", has_momentum=True, defaults=dict(alpha=0.9)),
        OptimInfo("fusedrmsproptf", FusedRMSProp, "RMSpropTF in one launch", has_momentum=True, defaults=tf),
        OptimInfo("fusedrmsproptfw", FusedRMSProp, "the same with decoupled weight decay", has_momentum=True, defaults=decoupled),
        OptimInfo("fusedrmspropgraves", FusedRMSPropGraves, "Graves' centered RMSProp in one launch", has_momentum=True),
        OptimInfo("fusedsmorms3", FusedSMORMS3, "SMORMS3 in one launch"),
    ]
    known = default_registry.list_optimizers()
    for info in made:
        if info.name not in known or default_registry.get_optimizer_info(info.name) != info:
            default_registry.register(info)
    return [info.name for info in made]
