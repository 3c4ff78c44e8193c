"""Parameter groups with checked options, and the recipes that they ask for."""

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import Module
from torch.optim.optimizer import Optimizer, ParamsT

from ..kernels.rule import State
from .checkpoints.carrier import MODEL_PARALLEL
from .checkpoints.dcp import Group
from .checkpoints.groups import mend, unpack_group
from .options.checks import as_tuple, check_at_least_zero, check_common, check_infinities_show, check_present, plain
from .options.naming import Source, warn_of_unknown
from .options.recipe import Recipe
from .options.skip_above import agreed, skip_above
from .run import Run
from .seeds import default_seed
from .sharded import process_groups


def _fill_in_max_lr(options: dict[str, Any], lr: Any) -> None:
    """Let a decay that follows the learning rate be relative to that with which the optimizer was made; a copy, as a tensor may change."""
    if options.get("corrected_weight_decay") and options.get("max_lr_snapshot") is None:
        check_at_least_zero(dict(lr=lr), lr="learning rate")
        options["max_lr_snapshot"] = float(lr)


class GroupedOptimizer(Optimizer):
    """An optimizer whose parameter groups have all options, from wherever they come.

    Args:
        params: what the subclass was given.
        arguments: all arguments of its __init__, by name.
    """

    kinds: ClassVar[Mapping[str, State]]  # of the states that its rules have
    _source: Source | None = None  # the preset that has made it
    _seen: frozenset[str] = frozenset({"params", "param_names"})  # keys of groups that are no options, as _check_names has found

    def __init__(self, params: ParamsT, arguments: dict[str, Any]):
        defaults = {name: plain(value) for name, value in arguments.items() if name not in ("self", "params", "__class__")}
        if "lr" in defaults:
            _fill_in_max_lr(defaults, defaults["lr"])
        self._check_new(defaults)
        defaults = {name: as_tuple(value) for name, value in defaults.items()}
        defaults[MODEL_PARALLEL] = process_groups(defaults[MODEL_PARALLEL]) or None
        self._run = Run()
        if isinstance(params, Module):
            raise TypeError(f"params is a {type(params).__name__}, a model: pass its parameters(), or named_parameters()")
        super().__init__(params, defaults)
        if self.defaults.get("seed", 0) is None:
            self.defaults["seed"] = default_seed(self, self._params())
            for group in self.param_groups:
                self._fill_in_seed(group)

    @classmethod
    @cache
    def _class_defaults(cls, rule: bool = False) -> dict[str, Any]:
        """Every option with its default: of the first class with a constructor, the rule's, as the classes made from it change them."""
        found: dict[str, Any] = {}
        for base in reversed(cls.__mro__[: cls.__mro__.index(GroupedOptimizer)]):
            if rule and found:
                break
            own = dict(vars(base).get("_fixed", {}))
            if "__init__" in vars(base):
                parameters = inspect.signature(base.__init__).parameters.values()
                own |= {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
            found |= {name: value for name, value in own.items() if not found or name in found}
        return found

    def _params(self) -> Iterator[Tensor]:
        return (param for group in self.param_groups for param in group["params"])

    def _recipes(self) -> list[Recipe]:
        """One for each parameter group."""
        return self._run.recipes.of(self)

    def _check_new(self, options: dict[str, Any]) -> None:
        check_at_least_zero(options, lr="learning rate")
        self.check_group({**options, "seed": 0} if options["seed"] is None else options)

    def _check_names(self, g: int, group: dict[str, Any]) -> None:
        """Warn of each new key that looks like an option but is none."""
        if new := group.keys() - self._seen - self.defaults.keys():
            self._seen |= new
            warn_of_unknown(f"parameter group {g}", new, type(self).__name__, self.defaults.keys(), self._source)

    def _check_edited(self, g: int, group: dict[str, Any]) -> None:
        """Mend a group that anybody may have changed, or made by hand; ValueError or TypeError for what is wrong in it."""
        mend(g, group, self.defaults)
        check_present(g, group, self.defaults)
        if isinstance(group[MODEL_PARALLEL], set):
            raise ValueError(
                f"parameter group {g} lost its {MODEL_PARALLEL} in a pickle: set optimizer.param_groups[{g}][{MODEL_PARALLEL!r}] again, to "
                "process groups or to None"
            )
        self._check_names(g, group)
        self._check_values(g, group)

    def _check_values(self, g: int, group: dict[str, Any]) -> None:
        try:
            self.check_group(group)
        except (TypeError, ValueError) as error:
            raise type(error)(f"parameter group {g}: {error}") from None

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError or TypeError for a wrong option; a subclass checks its own as well."""
        check_common(group)
        skip_above(group)

    @abstractmethod
    def recipe(self, group: dict[str, Any]) -> Recipe:
        """What the options of a parameter group, which check_group has passed, ask for."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, such as layers that are no longer frozen.

        Args:
            param_group: A dict with `params`, and options that differ from the optimizer's. A preset's optimizer takes the preset's
                argument names too.

        Raises:
            ValueError: An option is wrong, or a parameter is in two groups or twice in this one.
            TypeError: An option or a parameter has the wrong type.
        """
        if isinstance(param_group, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - else torch says what it must be
            if self._source:
                param_group = self._source.translate(param_group)
            param_group = unpack_group(len(self.param_groups), param_group, self.defaults)
            param_group = {**param_group}
            _fill_in_max_lr(param_group, self.defaults["lr"])
            options = {key: plain(value) for key, value in param_group.items() if key in self.defaults}
            self._check_new(new := {**self.defaults, **param_group, **options})
            agreed(map(skip_above, [*self.param_groups, new]))
            check_infinities_show([*self.param_groups, new])
            self._check_names(len(self.param_groups), param_group)
            param_group.update(options)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*duplicate parameters")
            try:
                super().add_param_group(param_group)
            except UserWarning:  # two updates of one parameter in one launch would race
                raise ValueError("a parameter group lists the same parameter twice: list it once") from None
        group = self.param_groups[-1] = Group(self.param_groups[-1], self.defaults)
        mend(len(self.param_groups) - 1, group, self.defaults)
        self._fill_in_seed(group)

    def _mended(self) -> list[dict[str, Any]]:
        """The parameter groups, which anybody may have changed."""
        for g, group in enumerate(self.param_groups):
            mend(g, group, self.defaults)
        return self.param_groups

    def _fill_in_seed(self, group: dict[str, Any]) -> None:
        if group["seed"] is None:
            group["seed"] = self.defaults["seed"]
