"""fusedrms.rule: an optimizer class of a function that says what a parameter loses."""

import inspect
import itertools
import keyword
import math
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch.optim.optimizer import ParamsT

from ..engine.options.naming import check_keywords, closest
from ..engine.state.precision import DIM_ORDER, MASTER, PARAM_EMA, SCALE
from ..kernels.rounding import STREAMS
from ..kernels.rule import State
from ..kernels.rules import Common
from .declared import Number, Written
from .errors import RuleError
from .optimizer import WrittenOptimizer
from .options import SHARED, signature
from .tracing import loses_all

GROUPS = ("params", "param_names", "initial_lr", "lr_in_momentum", "step", "self")  # what torch, or a checkpoint, takes for something else
MOST_FLAGS = 8
UpdateRule: TypeAlias = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]  # (grad, param, state, lr, n) -> (update, state)
TAKEN = ("step", MASTER, PARAM_EMA, "replace")  # in the state of a parameter, and of what the function sees


def rule(states: Iterable[str] | Mapping[str, State | float] = (), **options: Any) -> Callable[[UpdateRule], type[WrittenOptimizer]]:
    """Make an optimizer class of an update rule that is written as its equations, in torch's words.

    `rule(...)` is a decorator. The class that it makes is a `torch.optim.Optimizer` with the function's name, module and docstring, which
    takes `(params, lr, *numbers, weight_decay, *, flags, shared options)`; numbers and flags are the rule's own options.

    Examples:
        >>> @fusedrms.rule(states=["exp_avg"], lr=1e-4, decoupled_weight_decay=True, betas=(0.9, 0.99))
        ... def Lion(grad, param, state, lr, n):
        ...     beta1, beta2 = n.betas
        ...     update = torch.sign(torch.lerp(grad, state.exp_avg, beta1))
        ...     return lr * update, state.replace(exp_avg=torch.lerp(grad, state.exp_avg, beta2))
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = Lion(model.parameters(), weight_decay=0.1, state_dtype="8bit")
        >>> optimizer.param_groups[0]["betas"]
        (0.9, 0.99)

    The function computes one element. It is called when it is declared, with values that stand for one element. What it does with them is
    compiled, by Triton for GPUs and by Numba for CPUs. It is given `grad`, after scaling, clipping and coupled weight decay; `param`,
    before the step; `state.NAME`; `lr`; `n.NAME`; and `n.step`, the number of the parameter's step from 1. It returns what the parameter
    loses, and `state.replace(NAME=value, ...)` with a new value of each state. "Write a rule" in the documentation tells all that it may
    do.

    Args:
        states: What is remembered of each element from step to step: names, whose values start from 0, or a mapping from names to a number
            to start from or to a `State`. Default (): nothing.
        options: Options of the optimizer by name, with their defaults. A number, or a `Number` with its range, is `n.NAME` in the function,
            and a tuple of them is a tuple. True or False is itself there, so the function may branch on it. `lr` (1e-3 unless named) and
            the options that all rules share, such as `weight_decay` and `decoupled_weight_decay`, take these defaults.

    Returns:
        A decorator that makes a class of a function `(grad, param, state, lr, n) -> (update, state)`.

    Raises:
        RuleError: The function does what a rule cannot do. The message has the line.
        TypeError: A state or an option has the wrong type.
        ValueError: A state or an option cannot be one.
    """
    if callable(states):
        raise TypeError('fusedrms.rule is called first: write @fusedrms.rule(states=["exp_avg"]), or @fusedrms.rule() for a rule without')
    own, changed = _options(options)
    remembered = _states(states)
    if both := remembered.keys() & own.keys():
        raise ValueError(f"{sorted(both)[0]!r} is a state and an option of one rule: give one of them another name")

    def decorate(function: UpdateRule) -> type[WrittenOptimizer]:
        _check_function(function)
        numbers = {name: value for name, value in own.items() if not isinstance(value, bool)}
        flags = {name: value for name, value in own.items() if isinstance(value, bool)}
        declared = Written(function, remembered, numbers, flags)
        defaults = {name: _default(value) for name, value in own.items()}
        made = _class(function, declared, signature(defaults, changed))
        _check_all(declared)
        _warn_of_new_parameter(declared)
        made([torch.nn.Parameter(torch.zeros((), device="cpu"))])  # whose errors are those of defaults
        return made

    return decorate


def _check_all(declared: Written) -> None:
    """RuleError for what any set of flags leads to; ValueError for an option that none asks for."""
    if len(declared.flags) > MOST_FLAGS:
        raise ValueError(f"a rule has {MOST_FLAGS} options that are True or False at most, since each set of them has a kernel")
    read: set[str] = set()
    all_traced = True
    for chosen in itertools.product((False, True), repeat=len(declared.flags)):
        flags = dict(zip(declared.flags, chosen, strict=True))
        try:
            read |= declared.traced(flags)[1].read
        except RuleError:
            raise
        except Exception:  # the function refuses what does not go together
            if flags == declared.flags:
                raise
            all_traced = False
    if all_traced and (unread := [name for name in (*declared.numbers, *declared.flags) if name not in read]):
        raise ValueError(
            f"option {unread[0]!r} is none that all rules have, and the function never reads n.{unread[0]}: leave it out, or mend its name"
        )


def _warn_of_new_parameter(declared: Written) -> None:
    starts = {name: state.start for name, state in declared.states.items()}
    numbers = {place: one.default for place, one in declared.places.items()} | dict(declared.flags)
    if loses_all(declared.function, starts, numbers):
        name = declared.function.__name__
        warnings.warn(
            f"rule {name!r} seems to return the new parameter: where lr is 0, its update is the whole parameter. A rule returns what the "
            f"parameter loses: lr * ..., not param - lr * .... If that is meant, filter this warning",
            stacklevel=3,
        )


def _class(function: Callable[..., Any], declared: Written, arguments: inspect.Signature) -> type[WrittenOptimizer]:
    names = list(arguments.parameters)[1:]

    def __init__(self: WrittenOptimizer, params: ParamsT, *args: Any, **options: Any):
        if "betas" in options and "beta1" in names:
            raise TypeError(
                f"{type(self).__name__}() has no betas: pass {', '.join(f'{name}=' for name in names if name.startswith('beta'))}"
            )
        check_keywords(f"{type(self).__name__}()", options, names)
        bound = arguments.bind(self, params, *args, **options)
        bound.apply_defaults()
        super(made, self).__init__(params, bound.arguments)

    __init__.__signature__ = arguments  # pyright: ignore[reportFunctionMemberAccess]
    own = {name: getattr(function, name) for name in ("__module__", "__qualname__", "__doc__")}
    members = {**own, "__init__": __init__, "declared": declared, "kinds": declared.states}
    made: type[WrittenOptimizer] = type(function.__name__, (WrittenOptimizer,), members)
    return made


def _check_function(function: Any) -> None:
    if not inspect.isfunction(function) or not function.__name__.isidentifier():
        raise TypeError(
            f"fusedrms.rule() makes an optimizer of a function with a name, and {function!r} is none: use def, and call rule() with @"
        )


def _states(states: Iterable[str] | Mapping[str, State | float]) -> dict[str, State]:
    """By their names, with what is not said."""
    if isinstance(states, str):
        raise TypeError(f"states={states!r} is a string: pass a list of names, [{states!r}]")
    names = list(states)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"state {twice!r} is named twice")
    starts = states if isinstance(states, Mapping) else dict.fromkeys(names, State())  # pyright: ignore[reportUnknownVariableType]
    known: dict[str, State | float] = dict(starts)  # pyright: ignore[reportUnknownArgumentType] - of names that might be a mapping too
    if len(known) >= STREAMS:
        raise ValueError(f"a rule has {STREAMS - 1} states at most, and this one has {len(known)}: compute some of them from the others")
    found: dict[str, State] = {}
    for name, value in known.items():
        _check_name(name, "state")
        if name in TAKEN or name.endswith((SCALE, DIM_ORDER)):
            raise ValueError(f"a state cannot be called {name!r}, which means something else already: give it another name")
        state = value if isinstance(value, State) else State(value)
        if not _is_finite(state.start):
            raise TypeError(f"state {name!r} starts from {state.start!r}: it takes a finite number, 0.0 say, or a fusedrms.State")
        if state.nonnegative and state.start < 0:
            raise ValueError(f"state {name!r} is never negative, but it starts from {state.start!r}: start from 0 or more")
        if state.mean is not None:
            raise ValueError(f"state {name!r} has mean={state.mean!r}, which rules of this package alone may have: leave it out")
        found[name] = state._replace(start=float(state.start))
    return found


def _options(options: Mapping[str, Any]) -> tuple[dict[str, Number | tuple[Number, ...] | bool], dict[str, Any]]:
    """Those of the rule's own, and other defaults of lr and those that all share."""
    own: dict[str, Number | tuple[Number, ...] | bool] = {}
    changed: dict[str, Any] = {}
    shared = frozenset(("lr", *SHARED))
    for name, value in options.items():
        if name in shared:
            changed[name] = value
            continue
        _check_name(name, "option")
        if name in (*GROUPS, *Common._fields):  # a launch finds its numbers by their names
            raise ValueError(f"an option cannot be called {name!r}, which means something else already: give it another name")
        if name == "state":
            raise TypeError("fusedrms.rule() takes states=, and no state=")
        if meant := closest(name, shared):
            raise ValueError(f"option {name!r} is near {meant!r}, which all rules have: did you mean that? If not, give it another name")
        own[name] = value if isinstance(value, bool) else _numbers(name, value)
    return own, changed


def _numbers(name: str, value: Number | float | Sequence[Number | float]) -> Number | tuple[Number, ...]:
    if not isinstance(value, list | tuple) or isinstance(value, Number):
        return _number(name, value)
    if not value:
        raise ValueError(f"option {name}={value!r} has no numbers: give it some, (0.9, 0.999) say, or leave it out")
    return tuple(_number(f"{name}[{k}]", one) for k, one in enumerate(value))


def _default(value: Number | tuple[Number, ...] | bool) -> Any:
    if isinstance(value, Number):
        return value.default
    return tuple(one.default for one in value) if isinstance(value, tuple) else value


def _number(name: str, value: Any) -> Number:
    known = value if isinstance(value, Number) else Number(value)
    default, least, most = known
    if not _is_finite(default):
        if "[" in name:  # in a tuple
            raise TypeError(f"option {name}={value!r} is no finite number: give it one")
        raise TypeError(f"option {name}={value!r} is neither a finite number nor True or False: give it a number, or a tuple of numbers")
    if not least <= default <= most:
        hint = f": give its range, fusedrms.Number({default!r}, least=-math.inf)" if default < least == 0 else ""
        raise ValueError(f"option {name} is {default!r}, which is not from {least!r} to {most!r}{hint}")
    return known


def _is_finite(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _check_name(name: Any, what: str) -> None:
    fits = isinstance(name, str) and name.isidentifier() and unicodedata.is_normalized("NFKC", name)  # as Python reads a name
    if not fits or keyword.iskeyword(name) or name.startswith("_"):
        raise ValueError(f"{name!r} is no name of a {what}: give it a Python name that begins with a letter")
