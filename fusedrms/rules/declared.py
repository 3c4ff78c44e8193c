"""What a rule is declared with: its states, its options, and the functions of registers that are made of it."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ..engine.options.checks import check_flags, check_within, number
from ..kernels.rule import RULES, Rule, State, declare
from .source import function_of
from .tracing import Traced, trace

AtStep = Callable[[Any], Mapping[str, Any]]


class Number(NamedTuple):
    """An option of a rule that is a number, with the range that it must be in.

    Args:
        default: Its value where none is given.
        least: Least value that it may have. Default 0: what may be negative says so.
        most: Largest value that it may have. Default math.inf: no limit.

    Examples:
        >>> @fusedrms.rule(states=["momentum_buffer"], momentum=fusedrms.Number(0.9, most=1.0))
        ... def Momentum(grad, param, state, lr, n):
        ...     buffer = n.momentum * state.momentum_buffer + grad
        ...     return lr * buffer, state.replace(momentum_buffer=buffer)
        >>> Momentum([torch.ones(2)], momentum=1.5)
        Traceback (most recent call last):
        ValueError: Invalid momentum value: 1.5; it must be a finite number from 0 to 1
    """

    default: float
    least: float = 0.0
    most: float = math.inf


NumberOptions = Mapping[str, Number | tuple[Number, ...]]


def _by_place(numbers: NumberOptions, values: Mapping[str, Any]) -> dict[str, Any]:
    """A value of each number by its place: eps, betas[0], betas[1]."""
    found: dict[str, Any] = {}
    for option, one in numbers.items():
        value = values[option]
        found |= {option: value} if isinstance(one, Number) else {f"{option}[{k}]": each for k, each in enumerate(value)}
    return found


class Asked(NamedTuple):
    """What a parameter group asks of a rule."""

    rule: Rule
    numbers: tuple[Any, ...]  # of the rule, in its order; those that depend on steps as of the first
    at_step: AtStep | None  # as in Recipe


class Declared:
    """A rule and the options of its own.

    Args:
        states: what it remembers of each element.
        numbers: its options that are numbers, or tuples of numbers.
        flags: its options that are True or False, with their defaults.

    Attributes:
        places: each number by its place.
    """

    def __init__(self, states: Mapping[str, State], numbers: NumberOptions, flags: Mapping[str, bool]):
        self.states, self.numbers, self.flags = states, numbers, flags
        self.places: dict[str, Number] = _by_place(numbers, numbers)

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError or TypeError for a wrong value of an option of its own."""
        check_flags(group, *self.flags)
        given = self.given(group)
        for place, one in self.places.items():
            check_within(given, place, one.least, one.most)

    @abstractmethod
    def asked(self, group: dict[str, Any]) -> Asked:
        """What a parameter group, whose options have been checked, asks for."""

    def given(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Its numbers in a parameter group, by place, as they are there; ValueError for a tuple that is none, or of another length."""
        for option, one in self.numbers.items():
            if not isinstance(one, Number) and not (isinstance(group[option], list | tuple) and len(group[option]) == len(one)):
                example = tuple(each.default for each in one)
                raise ValueError(f"{option}={group[option]!r} is not supported: it must be a tuple of {len(one)} numbers, {example} say")
        return _by_place(self.numbers, group)

    def options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The same as floats, or as 0-d tensors on a GPU."""
        given = self.given(group)
        return {place: number(given, place) for place in given}


class ByHand(Declared):
    """A rule of kernels/rules.py, which takes its options as they are; rule: its name, numbers: its options."""

    def __init__(self, rule: str, **numbers: Number):
        super().__init__(RULES[rule].states, numbers, {})
        self.rule = RULES[rule]

    def asked(self, group: dict[str, Any]) -> Asked:
        options = self.options(group)
        return Asked(self.rule, tuple(options[name] for name in self.rule.numbers), None)


class Written(Declared):
    """A rule that is written in torch's words: one function of registers for each set of flags, made when it is first asked for.

    Args:
        function: which is traced, and sees flags as they are; its name is the rule's.
        states, numbers, flags: as of Declared.
    """

    def __init__(self, function: Callable[..., Any], states: Mapping[str, State], numbers: NumberOptions, flags: Mapping[str, bool]):
        super().__init__(states, numbers, flags)
        self.function = function
        self._traced: dict[tuple[bool, ...], tuple[Rule, Traced]] = {}

    def traced(self, flags: Mapping[str, Any]) -> tuple[Rule, Traced]:
        """What was made of it for such flags.

        Raises:
            RuleError: the function does what a rule cannot.
        """
        chosen = tuple(bool(flags[name]) for name in self.flags)
        if chosen not in self._traced:
            traced = trace(
                self.function,
                name=self.function.__name__,
                states=tuple(self.states),
                numbers={place: one.least >= 0 for place, one in self.places.items()},
                static=dict(zip(self.flags, chosen, strict=True)),
                nonnegative_states=[name for name, state in self.states.items() if state.nonnegative],
                more=repr(self.states),
            )
            rule = Rule(traced.name, function_of(traced.source, traced.name), self.states, traced.numbers, {})
            self._traced[chosen] = declare(rule), traced
        return self._traced[chosen]

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        self.traced(group)

    def asked(self, group: dict[str, Any]) -> Asked:
        rule, traced = self.traced(group)
        options = self.options(group)
        at_step = partial(traced.numbers_at, options) if traced.per_step else None
        return Asked(rule, traced.all_numbers(options, 1.0), at_step)
