"""Whether all that was made of a rule computes the same: Numba's function, Triton's, and the user's own on float64 tensors.

How far apart results may be is what the rule itself makes of operands that are rounded otherwise: see kernels/perturbed.py.
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# a user's reference returns anything; NumPy's stubs are not for the oldest Python

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..kernels.launch import value_drivers
from ..kernels.perturbed import HOST, Rounding, perturbed
from ..kernels.rule import Rule
from .declared import ByHand, Declared, Written
from .errors import RuleError
from .options import LR
from .tracing import Traced, run
from .values import nested

ELEMENTS, SAMPLES = 256, 33  # the first is exact; that all others fall on one side of a branch is as likely as 1 to 2**32
STEPS = 1, 2, 3, 10, 1000
FACTOR = 4  # times the largest of so few samples
DIGITS = 1e-3  # of a result that rounding leaves, for its units in the last place to say anything
FUNCTION = "the function in torch"
TITLES = {"numba": "Numba", "triton": "Triton"}


class Subject(NamedTuple):
    """A rule, with what it is called with."""

    declared: Declared
    rule: Rule
    options: Mapping[str, float]  # its own numbers, by place
    flags: Mapping[str, bool]
    lr: float

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.declared.function.__name__ if isinstance(self.declared, Written) else self.rule.name

    @property
    def traced(self) -> Traced | None:
        return self.declared.traced(self.flags)[1] if isinstance(self.declared, Written) else None

    def numbers(self, step: float) -> list[float]:
        """The rule's, in its order."""
        if not (traced := self.traced):
            return [self.options[name] for name in self.rule.numbers]
        return list(map(float, traced.all_numbers(self.options, step)))

    def perturbed_numbers(self, step: float, rounding: Rounding) -> list[Any]:
        """Samples of the same, as they are where the host's float64 is rounded otherwise."""
        if not (traced := self.traced):
            return self.numbers(step)
        scope: dict[str, Any] = dict(HOST)
        exec(traced.host_source, scope)
        options = {name: rounding.values(value) for name, value in self.options.items()}
        with np.errstate(all="ignore"):
            return list(traced.in_order(scope["fixed"](options), scope["per_step"](options, rounding.values(step))))

    def run(self, values: np.ndarray, step: float) -> np.ndarray | None:
        """What the user's function makes of float64 tensors: the update and the new states; None of a rule of another kind."""
        if not isinstance(self.declared, Written):
            return None
        grad, param, *states = (torch.from_numpy(each.copy()) for each in values)
        given = dict(zip(self.rule.states, states, strict=True))
        with torch.device("cpu"), np.errstate(all="ignore"):
            numbers = {**self.options, **self.flags}
            try:
                update, new = run(self.declared.function, grad, param, given, lr=self.lr, numbers=numbers, step=step)
            except (RuntimeError, TypeError, ValueError) as error:
                raise RuleError(f"rule {self.name!r}: on tensors torch says {error}") from error
        return np.stack([each.numpy() for each in (update, *(new[name] for name in self.rule.states))])


class Case(NamedTuple):
    """One step of some elements, and how far apart results may be."""

    step: float
    values: np.ndarray  # grad, param, states, float64 that float32 holds
    numbers: list[float]
    results: dict[str, np.ndarray]  # by who computed them; what others are compared with is first
    bounds: dict[str, np.ndarray]  # by dtype; NaN where nothing can be said


def subject_of(declared: Declared, group: Mapping[str, Any]) -> Subject:
    """What a parameter group asks for; numbers that a GPU holds are not waited for: their defaults stand for them."""

    def plain(value: Any, default: float) -> float:
        if isinstance(value, Tensor):
            return float(value) if value.device.type == "cpu" and value.numel() == 1 else default
        return float(value)

    options = {place: plain(value, declared.places[place].default) for place, value in declared.given(group).items()}
    flags = {name: bool(group[name]) for name in declared.flags}
    rule = declared.traced(flags)[0] if isinstance(declared, Written) else _rule_of(declared)
    return Subject(declared, rule, options, flags, plain(group["lr"], LR))


def _rule_of(declared: Declared) -> Rule:
    assert isinstance(declared, ByHand)
    return declared.rule


def _drawn(random: np.random.Generator) -> np.ndarray:
    """Normal numbers, of many magnitudes, and some zeros."""
    values = random.standard_normal(ELEMENTS)
    values[::2] *= 10.0 ** random.uniform(-9, 4, ELEMENTS // 2)
    values[random.random(ELEMENTS) < 0.06] = 0
    return values.astype(np.float32).astype(np.float64)


def cases(subject: Subject, device: torch.device, seed: int = 0) -> list[Case]:
    """Several steps, computed by all, each from the states that the first of them has left."""
    random, drivers = np.random.default_rng(seed), value_drivers(device)
    states = [np.full(ELEMENTS, state.start) for state in subject.declared.states.values()]
    found = []
    for number, step in enumerate(map(float, STEPS)):
        values = np.stack([_drawn(random), _drawn(random), *states])
        numbers, results, bounds = subject.numbers(step), {}, {}
        if (own := subject.run(values, step)) is not None:
            results[FUNCTION] = own
        exact = Rounding("float64", (SAMPLES, ELEMENTS), seed + number)
        hosts = subject.perturbed_numbers(step, exact)
        for dtype in ("float64", "float32"):
            rounding = Rounding(dtype, (SAMPLES, ELEMENTS), seed + number)
            bounds[dtype] = _bounds(perturbed(subject.rule, rounding, values, subject.lr, [rounding.held(one) for one in hosts]), rounding)
            with np.errstate(all="ignore"):  # NumPy is what Triton's interpreter computes with
                given, args = values.astype(dtype), np.array([subject.lr, *numbers]).astype(dtype)
                for name, driver in drivers.items():
                    results[f"{TITLES[name]} in {dtype}"] = driver(subject.rule.name, given, args).astype(np.float64)
        found.append(Case(step, values, numbers, results, bounds))
        with np.errstate(over="ignore"):
            new = next(iter(results.values()))[1:].astype(np.float32).astype(np.float64)
        states = [np.where(np.isfinite(after), after, before) for after, before in zip(new, states, strict=True)]
    return found


def _bounds(samples: np.ndarray, rounding: Rounding) -> np.ndarray:
    with np.errstate(all="ignore"):
        spread = np.abs(samples - samples[0]).max(0)
    return np.where(np.isfinite(samples).all(0), FACTOR * (spread + rounding.tiny), np.nan)


def differing(case: Case, name: str) -> tuple[int, int] | None:
    """Which value, the update or a state, of which element is another than it may be; None where all are right."""
    base, bound = next(iter(case.results.values())), case.bounds["float32" if name.endswith("float32") else "float64"]
    return first_beyond(case.results[name], base, bound)


def first_beyond(found: np.ndarray, base: np.ndarray, bound: np.ndarray) -> tuple[int, int] | None:
    with np.errstate(invalid="ignore"):
        wrong = ~np.isnan(bound) & ~(np.abs(found - base) <= bound)
    return None if not wrong.any() else tuple(int(n) for n in np.argwhere(wrong)[0])  # pyright: ignore[reportReturnType]


def described(subject: Subject, case: Case, value: int, element: int, results: Mapping[str, np.ndarray]) -> str:
    """What one element was given and what each made of it."""
    names = "the update", *(f"the state {name!r}" for name in subject.rule.states)
    inputs = dict(zip(("grad", "param", *subject.rule.states), map(float, case.values[:, element]), strict=True))
    inputs |= {"lr": subject.lr, **subject.options, **subject.flags, "step": case.step}
    given = ", ".join(f"{name}={one!r}" for name, one in inputs.items())
    each = "; ".join(f"{name}: {float(result[value, element])!r}" for name, result in results.items())
    return f"{names[value]} of element {element} at step {case.step:g}. {each}. They were given {given}"


def check_drivers(subject: Subject, device: torch.device, seed: int = 0) -> list[Case]:
    """The cases, once all agree.

    Raises:
        RuntimeError: somebody computes something else.
        RuleError: a state that is never negative becomes so.
    """
    found = cases(subject, device, seed)
    for case in found:
        _check_signs(subject, case)
        for name in case.results:
            if place := differing(case, name):
                text = described(subject, case, *place, case.results)
                raise RuntimeError(
                    f"rule {subject.name!r}: its kernels and the function in torch give different results: {name} differs in {text}. "
                    "If the function reads variables that have changed since it was declared, make them options, or declare it again; "
                    "else a compiler is wrong, or this package: please report it with the rule, and do not train with it"
                )
    return found


def _check_signs(subject: Subject, case: Case) -> None:
    name, base = next(iter(case.results.items()))
    for value, (state, said) in enumerate(subject.rule.states.items(), 1):
        if said.nonnegative and (base[value] < -np.nan_to_num(case.bounds["float64"][value])).any():
            text = described(subject, case, value, int(np.nanargmin(base[value])), {name: base})
            raise RuleError(f"rule {subject.name!r}: the state {state!r} is declared nonnegative, and becomes negative: {text}")


_compared: set[tuple[str, str, str]] = set()


def _without_zeros(subject: Subject) -> Subject:
    """The same with numbers that leave nothing out, as a rate that warms up from 0 does."""
    options = {name: value or min(1.0, subject.declared.places[name].most) / 2 for name, value in subject.options.items()}
    return subject._replace(options=options, lr=subject.lr or LR)


def compare_once(declared: Written, group: Mapping[str, Any], device: torch.device) -> None:
    """check_drivers() of a user's rule, the first time in this process."""
    rule, traced = declared.traced(group)
    key = rule.name, traced.host_source, device.type
    if key not in _compared:
        subject = subject_of(declared, group)
        check_drivers(subject, device)
        if (other := _without_zeros(subject)) != subject:
            check_drivers(other, device)
        _compared.add(key)


def apart(found: list[Case], dtype: str = "float32") -> float | None:
    """The largest difference between both drivers in units in the last place, of results that keep digits; None of one driver alone."""
    most, names = 0.0, [f"{title} in {dtype}" for title in TITLES.values()]
    for case in found:
        if not case.results.keys() >= set(names):
            return None
        one, other = (case.results[name] for name in names)
        with np.errstate(all="ignore"):
            larger = np.maximum(np.abs(one), np.abs(other)).astype(dtype)
            units = np.abs(one - other) / np.spacing(np.maximum(larger, np.finfo(dtype).tiny))
            known = (case.bounds[dtype] <= DIGITS * larger) & np.isfinite(units)
        most = max(most, float(units[known].max(initial=0)))
    return most


class Given(dict[str, Any]):
    """States, or options and the step, as items and as attributes."""

    __getattr__ = dict.__getitem__

    def replace(self, **changes: Any) -> "Given":
        return Given(self | changes)


Reference = Callable[..., tuple[Any, Mapping[str, Any]]]


def _named(states: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}=..." for name in states)


OTHER_ORDER = 16  # times what rounding explains: a reference may take its operations in another order, and others


def check_reference(subject: Subject, found: list[Case], reference: Reference) -> None:
    """Compare with a user's NumPy function, in float64, at each step.

    Raises:
        AssertionError: it computes something else.
        TypeError: it does not return an update and a dict of all states.
    """
    for case in found:
        states = Given(zip(subject.rule.states, case.values[2:].copy(), strict=True))
        n = Given({**nested(subject.options), **subject.flags, "step": case.step})
        with np.errstate(all="ignore"):
            result: Any = reference(case.values[0].copy(), case.values[1].copy(), states, subject.lr, n)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping) and result[1].keys() == states.keys()):
            what = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"{type(result).__name__} alone"
            raise TypeError(f"the reference returns {what}: let it return the update and all states, state.replace({_named(states)})")
        own = np.stack(
            [np.broadcast_to(np.asarray(each, np.float64), ELEMENTS) for each in (result[0], *(result[1][name] for name in states))]
        )
        name, base = next(iter(case.results.items()))
        if place := first_beyond(own, base, OTHER_ORDER * case.bounds["float64"]):
            text = described(subject, case, *place, {name: base, "the reference": own})
            raise AssertionError(f"the rule {subject.name!r} and its reference differ in {text}")
