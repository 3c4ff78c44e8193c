"""What the check() of an optimizer's class prints."""

from collections.abc import Sequence

from ..engine.options.naming import check_keywords
from ..kernels import devices, lang
from ..rules import compared
from ..rules.optimizer import RuleOptimizer
from . import inspect, printing
from .variants import variant_of


def check(
    cls: type[RuleOptimizer],
    reference: compared.Reference | None,
    modes: Sequence[str],
    targets: Sequence[str],
    *,
    seed: int,
    flags: dict[str, bool],
) -> list[inspect.Row]:
    """As RuleOptimizer.check()."""
    console = printing.console()
    check_keywords(f"{cls.__name__}.check()", flags, cls.declared.flags)
    subject = compared.subject_of(cls.declared, {**cls._class_defaults(), **flags})
    found = compared.check_drivers(subject, devices.find(), seed)
    if reference is not None:
        compared.check_reference(subject, found, reference)
    left_out = [target for target in targets if lang.interpreted() or (lang.triton is None and target != "cpu")]
    rows = [
        inspect.row(variant_of((cls, flags), cls.__name__, mode), target, True)
        for target in targets
        if target not in left_out
        for mode in modes
    ]
    if rows:
        console.print(inspect.table(rows), inspect.LEGEND, highlight=False)
    if left_out:
        why = "TRITON_INTERPRET is set" if lang.interpreted() else "Triton is missing; it exists on Linux only"
        console.print(f"not compiled for {', '.join(left_out)}: {why}", highlight=False)
    who = [name for name in found[0].results if name.endswith("float64") or name == compared.FUNCTION]
    console.print(f"{len(found)} steps of {compared.ELEMENTS} elements: {_listed(who, reference)} agree", highlight=False)
    for dtype in ("float32", "float64"):
        apart = compared.apart(found, dtype)
        said = "only Numba is installed" if apart is None else f"Numba and Triton are at most {apart:.3g} units in the last place apart"
        console.print(f"{dtype}: {said}", highlight=False)
    return rows


def _listed(who: list[str], reference: compared.Reference | None) -> str:
    names = [name.removesuffix(" in float64") for name in who] + (["the reference"] if reference is not None else [])
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
