"""The recipes of an optimizer, kept from step to step."""

from itertools import repeat
from operator import is_, is_not, itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .options.checks import check_present, is_scheduled_lr
from .options.recipe import Recipe, with_lr
from .sharded import ProcessGroups

if TYPE_CHECKING:
    from .grouped import GroupedOptimizer

_Made = tuple[tuple[Any, ...], int, Recipe]  # options, number of keys, what they make
_FIXED = (int, float, str, type(None), torch.dtype, ProcessGroups)  # what cannot change in place
_UNMADE: tuple[tuple[Any, ...], int, Recipe | None] = (), 0, None


def _is_as_before(options: itemgetter, group: dict[str, Any], made: _Made) -> bool:
    before, n_keys, _ = made
    try:
        return bool(before) and len(group) == n_keys and all(map(is_, options(group), before))
    except KeyError:
        return False


class Recipes:
    """One recipe for each parameter group, made anew where an option is another object than it was, or one that may have changed.

    Attributes:
        capturable: a group is.
        skips: a group asks for skip_nonfinite.
    """

    capturable = skips = False

    def __init__(self) -> None:
        self._options: itemgetter | None = None  # reads those of a parameter group, lr first
        self._made: list[_Made] = []  # of each group
        self._recipes: list[Recipe] = []

    def of(self, optimizer: "GroupedOptimizer") -> list[Recipe]:
        """Those of its parameter groups, which are checked where they have changed; the same list as before where none has."""
        if self._options is None:
            self._options = itemgetter("lr", *(name for name in optimizer.defaults if name != "lr"))
        groups = optimizer.param_groups
        options = self._options
        if len(groups) != len(self._made) or not all(map(_is_as_before, repeat(options), groups, self._made)):
            made = self._made_anew(optimizer, options)
            self._recipes = [recipe for _, _, recipe in made]
            self.capturable = any(group["capturable"] for group in groups)
            self.skips = any(recipe.skip_nonfinite for recipe in self._recipes)
            self._made = made  # last: by it another thread knows that the others are up to date
        return self._recipes

    def _made_anew(self, optimizer: "GroupedOptimizer", options: itemgetter) -> list[_Made]:
        made = []
        for g, group in enumerate(optimizer.param_groups):
            try:
                values = options(group)
            except KeyError:
                check_present(g, group, optimizer.defaults)
                raise
            before, n_keys, recipe = self._made[g] if g < len(self._made) else _UNMADE
            changed = sum(map(is_not, values, before)) if len(before) == len(values) and n_keys == len(group) else -1
            # a schedule sets lr at each step, and nothing else
            if recipe is not None and changed == 1 and values[0] is not before[0] and is_scheduled_lr(values[0]):
                recipe = with_lr(recipe, values[0])
            elif recipe is None or changed:
                optimizer._check_edited(g, group)
                recipe, values = optimizer.recipe(group), options(group)
                if not all(isinstance(group[key], (*_FIXED, Tensor) if key == "lr" else _FIXED) for key in optimizer.defaults):
                    values = ()
            made.append((values, len(group), recipe))
        return made
