"""From the options of a parameter group to the numbers that a launch reads."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ...kernels.rule import RULES, State
from ...kernels.rules import Common
from ..sharded import process_groups
from ..state.precision import PARAM_EMA, Precision
from .checks import number
from .skip_above import SkipAbove, skip_above


class Recipe(NamedTuple):
    """What a parameter group asks for; the numbers may change at every step."""

    common: Common  # numbers, or 0-d tensors on a GPU; lr a tensor anywhere
    rule: str  # its name
    states: dict[str, float | None]  # the names of its states, in its order, and what they start from; None: the parameter
    norm_over: str | None  # whose gradients' norm is limited: that of the "optimizer", of each "parameter", of none
    args: tuple[Any, ...]  # the rule's own, in its order; where they depend on steps, what they are at the first
    kinds: Mapping[str, State]  # of all states that rules of the optimizer have, whichever this one has
    at_step: Callable[[Any], Mapping[str, Any]] | None = None  # of steps, this one included: the rule's numbers that depend on them
    cautious: bool = False  # updates against their gradient's sign are left out
    ema_warmup: bool = False  # the weight in the parameter's average is at least 9 / (10 + step)
    precision: Precision = Precision()
    skip_nonfinite: bool = False  # the whole step, if a gradient of the optimizer holds a NaN or an infinity
    stats: int = 0  # every how many steps its parameters are measured; 0: never
    live: bool = False  # some numbers are tensors, whose values a step reads
    model_parallel: tuple[Any, ...] = ()  # process groups whose other processes hold other parameters
    skip_above: SkipAbove | None = None  # the whole step, if the norm of all gradients is a spike

    @property
    def kind(self) -> tuple[Any, ...]:
        """What the tables of a step are made for."""
        looks = self.norm_over, self.skip_nonfinite, self.skip_above
        return self.rule, tuple(self.states), self.cautious, self.stats, self.counts_steps, self.precision, looks, self.model_parallel

    @property
    def counts_steps(self) -> bool:
        """Whether numbers depend on how many steps a parameter has made."""
        return self.at_step is not None or self.ema_warmup

    def after_steps(self, steps: Any) -> dict[str, Any]:
        """Those numbers, by name; steps: this one included, a float or a 0-d float64 tensor, as the numbers are."""
        found = dict(self.at_step(steps)) if self.at_step else {}
        if self.ema_warmup:
            found["ema_weight"] = _at_least(self.common.ema_weight, 9 / (10 + steps))
        return found


def with_lr(recipe: Recipe, lr: float | Tensor) -> Recipe:
    """The same with another learning rate, in half of the time that _replace() takes: both are the first of their fields."""
    return Recipe._make((Common._make((lr, *recipe.common[1:])), *recipe[1:]))


def unclipped_norm(recipe: Recipe) -> Recipe:
    """The same with a norm of gradients before they are clipped by value; itself if it is that."""
    common = recipe.common
    return recipe if common.clip_normed == math.inf else recipe._replace(common=common._replace(clip_normed=math.inf))


def _at_least(number: Any, least: Any) -> Any:
    """The larger of two, each a float or a 0-d tensor."""
    if isinstance(number, Tensor):
        return number.clamp(min=least)
    return least.clamp(min=number) if isinstance(least, Tensor) else max(number, least)


def either(second: bool, value: Any, neutral: float) -> tuple[Any, Any]:
    """A number as the first or the second of two, of which the other is neutral."""
    return (neutral, value) if second else (value, neutral)


def limit(group: dict[str, Any], option: str) -> float:
    return math.inf if group[option] is None else number(group, option)


def precision(group: dict[str, Any]) -> Precision:
    return Precision(**{option: group[option] for option in Precision._fields})


def common(group: dict[str, Any], on_update: bool = False) -> Common:
    """The numbers that every rule shares.

    Args:
        group: a parameter group.
        on_update: clip_grad_norm scales the update, not the gradient.
    """
    clip_grad, clip_decayed = either(group["clip_after_decay"], limit(group, "clip_grad_value"), math.inf)
    clip_grad_norm, clip_update_norm = either(on_update, limit(group, "clip_grad_norm"), math.inf)
    coupled, decoupled = either(group["decoupled_weight_decay"], number(group, "weight_decay"), 0.0)
    if group["corrected_weight_decay"]:
        decoupled = decoupled * (number(group, "lr") / number(group, "max_lr_snapshot"))
    return Common(
        lr=group["lr"] if isinstance(group["lr"], Tensor) and group["lr"].numel() == 1 else number(group, "lr"),
        grad_scale=number(group, "rescale_grad") * (-1.0 if group["maximize"] else 1.0),
        ema_weight=0.0 if group["ema_decay"] is None else 1 - number(group, "ema_decay"),
        weight_decay=coupled,
        clip_grad=clip_grad,
        clip_normed=math.inf if on_update else clip_grad,
        clip_grad_norm=clip_grad_norm,
        clip_decayed=clip_decayed,
        decoupled_weight_decay=decoupled,
        clip_update_norm=clip_update_norm,
        clip_weights=limit(group, "clip_weights"),
    )


def recipe_of(
    group: dict[str, Any],
    rule: str,
    args: tuple[Any, ...],
    kinds: Mapping[str, State],
    *,
    starts: Mapping[str, float] | None = None,
    at_step: Callable[[Any], Mapping[str, Any]] | None = None,
) -> Recipe:
    """What a parameter group asks for, whose options have been checked.

    Args:
        group: with the options that all rules share; an option that a class lacks is off.
        rule: its name.
        args, kinds, at_step: as in Recipe.
        starts: what states start from, where that is not what the rule says.
    """
    own = {name: state.start for name, state in RULES[rule].states.items()} | dict(starts or {})
    average = {} if group["ema_decay"] is None else {PARAM_EMA: None}
    return Recipe(
        rule=rule,
        states={**own, **average},
        norm_over=None if group["clip_grad_norm"] is None else group["clip_norm_over"],
        common=common(group, on_update=group.get("clip_norm_on") == "update"),
        args=args,
        kinds=kinds,
        at_step=at_step,
        cautious=bool(group.get("caution")),
        ema_warmup=bool(group["ema_warmup"]),
        stats=int(group["stats"]),
        precision=precision(group),
        skip_nonfinite=group["skip_nonfinite"],
        model_parallel=process_groups(group["model_parallel_group"]),
        skip_above=skip_above(group),
    )
