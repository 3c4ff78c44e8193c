"""What a user's function is given while it is traced, and while it is run: values, states by name, and numbers by name."""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# users' functions pass and return anything; NumPy's stubs are not for the oldest Python

import numbers
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from . import words
from .arithmetic import Arithmetic
from .errors import Rule, RuleError, meant
from .graph import ELEMENT, HOST, Node


class Value:
    """A number that is not known yet: operations on it become operations of the rule."""

    __slots__ = ("math", "node")

    def __init__(self, math: Arithmetic, node: Node):
        object.__setattr__(self, "math", math)
        object.__setattr__(self, "node", node)

    def __repr__(self) -> str:
        return f"<{self.node.name or self.node.op}, which is not known yet>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # protocols are asked for
        if name == "dtype":
            return words.COMPUTE_TYPE
        if name not in words.WORDS:
            raise self.math.rule.error(words.unknown(name))

        def method(*args: Any, **keywords: Any) -> Value:
            return applied(self.math, name, (self, *args), keywords)

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        raise self.math.rule.error(f"a value's {name} cannot be set: make a new value")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> "Value":
        return applied(_math_of(args, kwargs or {}), function.__name__, args, kwargs or {})

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **keywords: Any) -> "Value":
        if method != "__call__":
            raise self.math.rule.error(f"numpy.{ufunc.__name__}.{method} needs all elements at once, and a rule sees one at a time")
        return applied(self.math, ufunc.__name__, args, keywords)

    def __array_function__(self, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Value":
        return applied(self.math, function.__name__, args, kwargs)

    def _what(self) -> str:
        if self.node.level == ELEMENT:
            return "a value that differs from element to element"
        return "the learning rate, which may change" if self.node.level > HOST else "an option or the step, which may change"

    def __bool__(self) -> bool:
        flag = " An option whose default is True or False may be branched on." if self.node.level == HOST else ""
        raise self.math.rule.error(
            f"a rule cannot branch on {self._what()}: write torch.where(condition, a, b) in place of if, (0 < x) & (x < 1) of 0 < x < 1, "
            f"a & b of a and b, torch.maximum(a, b) of max(a, b).{flag}"
        )

    def _refused(self, what: str, remedy: str) -> Any:
        raise self.math.rule.error(f"{what} of {self._what()}: it is not known while the rule is written; {remedy}")

    def __float__(self) -> float:
        return self._refused("float(), or a function of math,", "write torch.sqrt(x), say")

    def __int__(self) -> int:
        return self._refused("int()", "leave it out")

    def __index__(self) -> int:
        return self._refused("an index or range()", "use a number of Python's")

    def __len__(self) -> int:
        return self._refused("len(), or torch.tensor(),", "write the value itself")

    def __iter__(self) -> Any:
        return self._refused("iteration", "a rule sees one element at a time")

    def __contains__(self, value: Any) -> bool:
        return self._refused("`in`", "compare with ==")

    def __getitem__(self, key: Any) -> Any:
        return self._refused("an element", "a rule sees one at a time: leave the index out")

    def __setitem__(self, key: Any, value: Any) -> None:
        self._refused("setting an element", "use torch.where(condition, a, b)")

    def __round__(self, digits: int | None = None) -> Any:
        return self._refused("round()", "leave it out")

    def __deepcopy__(self, memo: dict[int, Any]) -> "Value":
        return self

    __hash__ = object.__hash__


def _operator(name: str, swapped: bool = False) -> Callable[..., Value]:
    def operate(self: Value, *other: Any) -> Value:
        return applied(self.math, name, (*other, self) if swapped else (self, *other), {})

    return operate


def _no_operator(sign: str, remedy: str) -> Callable[..., Any]:
    def operate(self: Value, other: Any) -> Any:
        raise self.math.rule.error(f"{sign} is not for a rule: {remedy}")

    return operate


for _dunder in ("add", "sub", "mul", "pow", "truediv", "and", "or"):
    _word = {"truediv": "div", "and": "__and__", "or": "__or__"}.get(_dunder, _dunder)
    setattr(Value, f"__{_dunder}__", _operator(_word))
    setattr(Value, f"__r{_dunder}__", _operator(_word, swapped=True))
for _dunder in ("neg", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Value, f"__{_dunder}__", _operator(_dunder))
for _dunder in words.INPLACE:
    setattr(Value, f"__{_dunder}__", _operator(f"__{_dunder}__"))
for _dunder, _sign, _remedy in (
    ("matmul", "@", "write *"),
    ("floordiv", "//", "write /"),
    ("mod", "%", "compute it outside, and set an option"),
    ("divmod", "divmod()", "write /"),
    ("xor", "^", "write ** for a power, or != for conditions"),
    ("lshift", "<<", "write *"),
    ("rshift", ">>", "write /"),
):
    setattr(Value, f"__{_dunder}__", _no_operator(_sign, _remedy))
    setattr(Value, f"__r{_dunder}__", _no_operator(_sign, _remedy))


def _math_of(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Arithmetic:
    waiting: list[Any] = [*args, *keywords.values()]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, Value):
            return one.math
        waiting += one if isinstance(one, list | tuple) else ()
    raise TypeError("no value of a rule among the arguments")


def applied(math: Arithmetic, name: str, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Value:
    return Value(math, words.apply(math, name, args, keywords, lambda value: node_of(math, value)))


def node_of(math: Arithmetic, value: Any) -> Node:
    """Of a value, or of a literal."""
    if isinstance(value, Value):
        if value.math is not math:
            raise math.rule.error("a value of another call of a rule: a rule computes with what it is given, and keeps nothing")
        return value.node
    literal = value
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim or (isinstance(value, Tensor) and value.device.type != "cpu"):
            where = f" on {value.device}" if isinstance(value, Tensor) else ""
            raise math.rule.error(f"a tensor of shape {tuple(value.shape)}{where} is no literal: make it a state, or write a number")
        literal = value.item()
    if isinstance(literal, bool | np.bool_):
        return math.literal(bool(literal))
    if not isinstance(literal, numbers.Real | np.floating | np.integer):
        raise math.rule.error(f"{value!r:.60} is no number: write a float, an option or a value that the rule is given")
    try:
        return math.literal(float(literal))
    except OverflowError:
        raise math.rule.error("float64 cannot hold this literal: scale what it goes with") from None


class Missing(RuleError, AttributeError):
    """There is no such option or state, as hasattr() asks."""


class _Named:
    """Values by name, as attributes."""

    _noun, _letter = "", ""
    _else: ClassVar[Mapping[str, str]] = {}  # what to write for names that something else has

    def __init__(self, rule: Rule, values: Mapping[str, Any]):
        object.__setattr__(self, "_rule", rule)
        object.__setattr__(self, "_values", dict(values))
        object.__setattr__(self, "_read", set())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._values:
            raise Missing(str(self._rule.error(f"there is no {self._noun} {name!r}: {self._else.get(name) or meant(name, self._values)}")))
        self._read.add(name)
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise self._rule.error(f"{self._letter}.{name} cannot be set: {self._instead(name)}")

    def __getitem__(self, key: Any) -> Any:
        raise self._rule.error(f"{self._noun}s are attributes: write {self._letter}.{key if isinstance(key, str) else 'NAME'}")

    def __iter__(self) -> Any:
        raise self._rule.error(f"{self._noun}s are attributes, and not counted: write {self._letter}.NAME")

    def _instead(self, name: str) -> str:
        return ""


def nested(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers by their places, as a rule sees them: betas[0] and betas[1] as the tuple betas."""
    found: dict[str, Any] = {}
    for place, value in numbers.items():
        name, in_tuple, _ = place.partition("[")
        found[name] = (*found.get(name, ()), value) if in_tuple else value
    return found


class Numbers(_Named):
    """`n`: the options that a rule declares, and the step."""

    _noun, _letter = "option", "n"
    _else: ClassVar = dict(
        lr="the learning rate is an argument, write lr",
        weight_decay="weight decay is applied around the rule; for one of your own declare an option of another name",
    )

    def __init__(self, rule: Rule, numbers: Mapping[str, Any]):
        super().__init__(rule, nested(numbers))

    def __repr__(self) -> str:
        return "n, which has all options: write n.NAME"

    def _instead(self, name: str) -> str:
        return f"options are set by who uses the optimizer; write {name} = ..., a name of the function's own"


class State(_Named):
    """`state`: what is kept of each element, and which of it has been replaced."""

    _noun, _letter = "state", "state"
    _else: ClassVar = dict(step="write n.step")

    def __repr__(self) -> str:
        return "state, which has all states: write state.NAME"

    def __init__(self, rule: Rule, values: Mapping[str, Any], convert: Callable[[Any], Any], replaced: Collection[str] = ()):
        super().__init__(rule, values)
        object.__setattr__(self, "_convert", convert)
        object.__setattr__(self, "_replaced", frozenset(replaced))

    def _instead(self, name: str) -> str:
        return f"return update, state.replace({name}=...)"

    def replace(self, *args: Any, **changes: Any) -> "State":
        """The same with other values."""
        if args:
            raise self._rule.error("state.replace() takes names: state.replace(exp_avg=...)")
        for name in changes:
            if name not in self._values:
                raise self._rule.error(f"there is no state {name!r} to replace: {meant(name, self._values)}")
        changed = {name: self._convert(value) for name, value in changes.items()}
        return State(self._rule, self._values | changed, self._convert, self._replaced | changed.keys())


def outcome(rule: Rule, result: Any) -> tuple[Any, dict[str, Any]]:
    """The update and the new states that a rule has returned."""
    said = "it must return the update and the states: return update, state.replace(...)"
    if not (isinstance(result, tuple) and len(result) == 2):
        raise rule.error(f"it returns {_describe(result)}; {said}")
    update, state = result
    if not isinstance(state, State):
        raise rule.error(f"the second value that it returns is {_describe(state)}; {said}")
    if not isinstance(update, Value | Tensor):
        raise rule.error(f"the update is {_describe(update)}, which no element of the gradient is in; {said}")
    values, replaced = object.__getattribute__(state, "_values"), object.__getattribute__(state, "_replaced")
    for name in values:
        if name not in replaced:
            raise rule.error(f"the state {name!r} is not replaced: add {name}=... to state.replace(), or {name}=state.{name} to keep it")
    return update, values


def _describe(value: Any) -> str:
    if isinstance(value, Value):
        return "a value alone"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "nothing" if value is None else f"{value!r:.60}"
