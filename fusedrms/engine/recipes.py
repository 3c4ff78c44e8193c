"""The recipes of an optimizer, kept from step to step."""

from operator import is_, is_not, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .options.checks import check_infinities_show, check_present, is_scheduled_lr, limits_norm
from .options.recipe import Recipe, unclipped_norm, with_lr
from .options.skip_above import SkipAbove, agreed
from .ownership.same_options import SameOptions

if TYPE_CHECKING:
    from .grouped import GroupedOptimizer

_FIXED = (int, float, str, type(None), torch.dtype, tuple)  # what cannot change in place; tuples are of numbers or process groups


def _is_fixed(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not (isinstance(value, tuple) and any(isinstance(one, Tensor) for one in value))


class _Made(NamedTuple):
    """What was made of a parameter group; it holds none of its parameters."""

    options: tuple[Any, ...] = ()  # lr first; none if one may change in place
    n_keys: int = 0
    recipe: Recipe | None = None


_UNMADE = _Made()


class Recipes:
    """One recipe for each parameter group, made anew where an option is another object than it was, or one that may have changed.

    Attributes:
        capturable: a group is.
        skips: a group asks for skip_nonfinite or skip_above.
        skip_above: of all groups that have it.
        stats: every how many steps groups are measured, but for 0.
    """

    capturable = skips = False
    skip_above: SkipAbove | None = None
    stats: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self._names: list[str] = []  # of the options, lr first
        self._options: itemgetter | None = None  # reads them
        self._same: SameOptions | None = None  # as they were; None if one may have changed in place
        self._made: list[_Made] = []  # of each group
        self._recipes: list[Recipe] = []

    def of(self, optimizer: "GroupedOptimizer") -> list[Recipe]:
        """Those of its parameter groups, which are checked where they have changed; the same list as before where none has."""
        if self._same is None or not self._same.hold(optimizer.param_groups):
            self._renew(optimizer)
        return self._recipes

    def _renew(self, optimizer: "GroupedOptimizer") -> None:
        groups = optimizer.param_groups
        if self._options is None:
            self._names = ["lr", *(name for name in optimizer.defaults if name != "lr")]
            self._options = itemgetter(*self._names)
        made = [self._made_anew(optimizer, self._options, g) for g in range(len(groups))]
        recipes = [each.recipe for each in made if each.recipe]
        skips = any(recipe.skip_nonfinite or recipe.skip_above for recipe in recipes)
        self.skip_above = agreed(recipe.skip_above for recipe in recipes) if skips else None
        if skips:
            check_infinities_show(groups)
            if not any(map(limits_norm, groups)):  # then it is taken to find infinities and spikes, which clipping would hide
                recipes = [unclipped_norm(recipe) for recipe in recipes]
        if len(recipes) != len(self._recipes) or not all(map(is_, recipes, self._recipes)):
            self._recipes = recipes
        self.capturable = any(group["capturable"] for group in groups)
        self.skips = skips
        self.stats = frozenset(recipe.stats for recipe in recipes if recipe.stats)
        self._made, values = made, [each.options for each in made]
        # last: by it another thread knows that the others are up to date
        if not all(values):
            self._same = None
        elif self._same is None or not self._same.take(groups, values):
            self._same = SameOptions(groups, self._names, values)

    def _made_anew(self, optimizer: "GroupedOptimizer", options: itemgetter, g: int) -> _Made:
        group = optimizer.param_groups[g]
        try:
            values = options(group)
        except KeyError:
            check_present(g, group, optimizer.defaults)
            raise
        before = self._made[g] if g < len(self._made) else _UNMADE
        same_keys = len(before.options) == len(values) and before.n_keys == len(group)
        changed = sum(map(is_not, values, before.options)) if same_keys else -1
        recipe = before.recipe
        # a schedule sets lr at each step, and nothing else
        lr_alone = changed == 1 and values[0] is not before.options[0] and not group["corrected_weight_decay"]
        if recipe is not None and lr_alone and is_scheduled_lr(values[0]):
            recipe = with_lr(recipe, values[0])
        elif recipe is None or changed:
            optimizer._check_edited(g, group)
            recipe, values = optimizer.recipe(group), options(group)
            if any(isinstance(number, Tensor) for number in (*recipe.common, *recipe.args)):
                recipe = recipe._replace(live=True)
            lr_kinds = _FIXED if group["corrected_weight_decay"] else (*_FIXED, Tensor)
            if not all(_is_fixed(group[key], lr_kinds if key == "lr" else _FIXED) for key in optimizer.defaults):
                return _Made(recipe=recipe)
        return _Made(options=values, n_keys=len(group), recipe=recipe)
