"""The optimizer of a declared rule: options in, Recipe out; everything else is FusedOptimizer's."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from torch.optim.optimizer import ParamsT

from ..engine.optimizer import FusedOptimizer
from ..engine.options.checks import check_choice, check_flags
from ..engine.options.recipe import Recipe, recipe_of
from ..engine.options.types import NormOn
from ..engine.sharded import local
from .compared import Reference, compare_once
from .declared import Declared, Written


class RuleOptimizer(FusedOptimizer):
    """What all optimizer classes have in common that `rule` makes, and `FusedSMORMS3` too.

    Attributes:
        declared: The rule, its states and its options.
    """

    declared: ClassVar[Declared]

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        if "clip_norm_on" in group:
            check_choice(group, "clip_norm_on", get_args(NormOn))
            check_flags(group, "caution")
        self.declared.check(group)

    def recipe(self, group: dict[str, Any]) -> Recipe:
        rule, numbers, at_step = self.declared.asked(group)
        return recipe_of(group, rule.name, numbers, self.kinds, at_step=at_step)

    @classmethod
    def check(
        cls,
        reference: Reference | None = None,
        *,
        modes: str | Sequence[str] = ("float32", "bfloat16+split+8bit"),
        targets: str | Sequence[str] = ("sm_90", "cpu"),
        seed: int = 0,
        **flags: bool,
    ) -> list[Any]:
        """Print what the rule's kernels become, and compare all who compute it: Numba, Triton, the function itself, and a reference.

        Args:
            reference: A NumPy function `(grad, param, state, lr, n) -> (update, states)` of float64 arrays [n_elements]. It is compared at
                several steps. It is written like the rule, with `state.NAME`, `n.NAME` and `state.replace(...)`; its states may be a dict
                too. Default None: no reference.
            modes: Precision modes, as in `fusedrms inspect`. Default ("float32", "bfloat16+split+8bit").
            targets: Devices to compile for, as in `fusedrms inspect`. Default ("sm_90", "cpu").
            seed: Seed of the random numbers. Default 0.
            flags: True-or-False options of the rule, where not their defaults are meant.

        Returns:
            A row of the printed table for each target and mode.

        Raises:
            RuntimeError: Numba, Triton and the function do not compute the same.
            AssertionError: The reference computes something else. The message has the step, the value and both results.
        """
        tool = importlib.import_module("fusedrms.tools.check")  # it loads rich
        return tool.check(cls, reference, _several(modes), _several(targets), seed=seed, flags=flags)


def _several(words: str | Sequence[str]) -> Sequence[str]:
    return [words] if isinstance(words, str) else words


class WrittenOptimizer(RuleOptimizer):
    """An optimizer of a class that `rule` has made. The class's `__init__` has a signature of its own; type checkers take any options.

    Attributes:
        declared: The rule, its states and its options.
    """

    declared: ClassVar[Written]  # pyright: ignore[reportIncompatibleVariableOverride]

    if TYPE_CHECKING:

        def __init__(self, params: ParamsT, *args: Any, **options: Any): ...

    def _check_rules(self) -> None:
        for group in self.param_groups:
            for device in {local(param).device for param in group["params"]}:
                compare_once(self.declared, group, device)
