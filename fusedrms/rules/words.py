"""torch's words for the arithmetic of a rule: each takes what torch's function of that name takes. NumPy's are a part of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .arithmetic import COMPARED, Arithmetic
from .errors import meant
from .graph import Node

REDUCTIONS = {
    *("sum", "mean", "norm", "linalg_norm", "linalg_vector_norm", "vector_norm", "amax", "amin", "all", "any", "std", "var"),
    *("prod", "median", "dot", "vdot", "cumsum", "argmax", "argmin", "count_nonzero", "logsumexp", "softmax", "nansum", "nanmean", "numel"),
}
INSTEAD = {
    "max": "of two values write torch.maximum(a, b); the largest of all elements a rule does not see",
    "min": "of two values write torch.minimum(a, b); the least of all elements a rule does not see",
    **dict.fromkeys(("item", "detach", "clone", "contiguous", "cpu", "cuda", "requires_grad", "data"), "leave it out"),
    "relu": "write torch.clamp(x, min=0)",
    "sigmoid": "write 1 / (1 + torch.exp(-x))",
    "tanh": "write 1 - 2 / (1 + torch.exp(2 * x))",
    "isfinite": "write torch.abs(x) < torch.inf",
    "nan_to_num": "write torch.where(torch.isnan(x), 0.0, x)",
}
RANDOM = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "normal", "uniform", "poisson"),
    *("multinomial", "dropout", "seed", "manual_seed"),
}
SHAPES = {
    *("view", "reshape", "flatten", "squeeze", "unsqueeze", "expand", "expand_as", "t", "T", "mT", "transpose", "permute", "matmul", "mm"),
    *("stack", "cat", "shape", "size", "ndim", "dim", "device", "roll", "flip", "diff", "index_select", "gather", "masked_fill"),
}
INPLACE = {"iadd": "+", "isub": "-", "imul": "*", "itruediv": "/", "ipow": "**", "iand": "&", "ior": "|"}
FLOATS = ("float", "double", "half", "bfloat16")
COMPUTE_TYPE = "the dtype that a rule computes in"

WORDS: dict[str, Callable[..., Node]] = {}


def word(*names: str) -> Callable[[Callable[..., Node]], Callable[..., Node]]:
    """Under these names, and its own."""

    def keep(function: Callable[..., Node]) -> Callable[..., Node]:
        WORDS.update(dict.fromkeys((function.__name__.removesuffix("_"), *names), function))
        return function

    return keep


def _unary(name: str, *aliases: str) -> None:
    """A method of Arithmetic."""

    def unary(math: Arithmetic, input: Node) -> Node:
        return getattr(math, name)(input)

    unary.__name__ = name
    word(*aliases)(unary)


def _compared(op: str, *aliases: str) -> None:
    def compared(math: Arithmetic, input: Node, other: Node) -> Node:
        return math.compare(op, input, other)

    compared.__name__ = op
    word(*aliases)(compared)


_unary("sqrt")
_unary("rsqrt")
_unary("abs", "absolute")
_unary("sign", "sgn")
_unary("exp")
_unary("log")
for _op, _alias in zip(COMPARED, ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"), strict=True):
    _compared(_op, *(() if _alias == "equal" else (_alias,)))  # torch.equal() is a reduction


@word()
def add(math: Arithmetic, input: Node, other: Node, *, alpha: Node | None = None) -> Node:
    if alpha is None and input.boolean and other.boolean:
        return math.logical("or", input, other)
    return math.add(input, other if alpha is None else math.mul(alpha, other))


@word("subtract")
def sub(math: Arithmetic, input: Node, other: Node, *, alpha: Node | None = None) -> Node:
    _no_booleans(math, input, other)
    return math.sub(input, other if alpha is None else math.mul(alpha, other))


@word("negative")
def neg(math: Arithmetic, input: Node) -> Node:
    _no_booleans(math, input)
    return math.neg(input)


def _no_booleans(math: Arithmetic, *operands: Node) -> None:
    if any(one.boolean for one in operands):
        raise math.rule.error("torch subtracts no comparisons, nor from them: write (x > 0).float(), or ~(x > 0) for what is not so")


@word("multiply")
def mul(math: Arithmetic, input: Node, other: Node) -> Node:
    if input.boolean and other.boolean:
        return math.logical("and", input, other)
    return math.mul(input, other)


@word("divide", "true_divide")
def div(math: Arithmetic, input: Node, other: Node) -> Node:
    return math.div(input, other)


@word("power")
def pow_(math: Arithmetic, input: Node, exponent: Node) -> Node:
    return math.pow(input, exponent)


@word()
def square(math: Arithmetic, input: Node) -> Node:
    return math.mul(input, input)


@word()
def reciprocal(math: Arithmetic, input: Node) -> Node:
    return math.div(math.literal(1.0), input)


@word()
def lerp(math: Arithmetic, input: Node, end: Node, weight: Node) -> Node:
    """With a weight of the host's one sum of products: 1 - weight is then of float64. With another one as torch has it, by halves."""
    one = math.literal(1.0)
    if not weight.level:
        return math.add(math.mul(weight, end), math.mul(math.sub(one, weight), input))
    way = math.sub(end, input)
    near, far = math.add(math.mul(weight, way), input), math.sub(end, math.mul(way, math.sub(one, weight)))
    return math.where(math.compare("lt", weight, math.literal(0.5)), near, far)


@word()
def addcmul(math: Arithmetic, input: Node, tensor1: Node, tensor2: Node, *, value: Node | None = None) -> Node:
    return math.add(input, math.mul(tensor1 if value is None else math.mul(value, tensor1), tensor2))


@word()
def addcdiv(math: Arithmetic, input: Node, tensor1: Node, tensor2: Node, *, value: Node | None = None) -> Node:
    return math.add(input, math.div(tensor1 if value is None else math.mul(value, tensor1), tensor2))


@word()
def where(math: Arithmetic, condition: Node, input: Node, other: Node) -> Node:
    if not condition.boolean:
        raise math.rule.error("the condition of torch.where must be a comparison, such as x != 0, and no number")
    return math.where(condition, input, other)


@word()
def maximum(math: Arithmetic, input: Node, other: Node) -> Node:
    return math.extreme("larger", input, other)


@word()
def minimum(math: Arithmetic, input: Node, other: Node) -> Node:
    return math.extreme("smaller", input, other)


@word("clip")
def clamp(math: Arithmetic, input: Node, min: Node | None = None, max: Node | None = None) -> Node:
    if min is None and max is None:
        raise math.rule.error("clamp without a limit: give it min or max")
    input = input if min is None else maximum(math, input, min)
    return input if max is None else minimum(math, input, max)


@word()
def clamp_min(math: Arithmetic, input: Node, min: Node) -> Node:
    return maximum(math, input, min)


@word()
def clamp_max(math: Arithmetic, input: Node, max: Node) -> Node:
    return minimum(math, input, max)


@word()
def zeros_like(math: Arithmetic, input: Node) -> Node:
    return math.literal(0.0)


@word()
def ones_like(math: Arithmetic, input: Node) -> Node:
    return math.literal(1.0)


@word()
def isnan(math: Arithmetic, input: Node) -> Node:
    return math.compare("ne", input, input)


@word()
def logical_and(math: Arithmetic, input: Node, other: Node) -> Node:
    return math.logical("and", math.truth(input), math.truth(other))


@word()
def logical_or(math: Arithmetic, input: Node, other: Node) -> Node:
    return math.logical("or", math.truth(input), math.truth(other))


@word()
def logical_not(math: Arithmetic, input: Node) -> Node:
    return math.invert(math.truth(input))


def _of_booleans(math: Arithmetic, sign: str, word: str, *operands: Node) -> None:
    if not all(one.boolean for one in operands):
        raise math.rule.error(f"{sign} is for comparisons, such as x > 0, and not for numbers: write torch.{word}")


@word("__and__")
def bitwise_and(math: Arithmetic, input: Node, other: Node) -> Node:
    _of_booleans(math, "&", "logical_and", input, other)
    return math.logical("and", input, other)


@word("__or__")
def bitwise_or(math: Arithmetic, input: Node, other: Node) -> Node:
    _of_booleans(math, "|", "logical_or", input, other)
    return math.logical("or", input, other)


@word("invert")
def bitwise_not(math: Arithmetic, input: Node) -> Node:
    _of_booleans(math, "~", "logical_not", input)
    return math.invert(input)


@word("type")
def to(math: Arithmetic, input: Node, dtype: Any) -> Node:
    """A comparison as 1.0 or 0.0. Numbers stay as they are: a rule computes in one dtype. dtype: of torch, or another value."""
    if dtype is COMPUTE_TYPE or getattr(dtype, "dtype", "") is COMPUTE_TYPE or getattr(dtype, "is_floating_point", False) is True:
        return math.number(input)
    raise math.rule.error(f".to({dtype!r}) is of another kind than a rule's numbers: write .to(grad.dtype)")


@word()
def type_as(math: Arithmetic, input: Node, other: Node) -> Node:
    return math.number(input)


def _as_float(math: Arithmetic, input: Node) -> Node:
    return math.number(input)


WORDS.update(dict.fromkeys(FLOATS, _as_float))


def apply(math: Arithmetic, name: str, args: Sequence[Any], keywords: Mapping[str, Any], convert: Callable[[Any], Node]) -> Node:
    """The word of that name; convert: makes a node of what it is given."""
    if name not in WORDS:
        raise math.rule.error(unknown(name))
    signature = inspect.signature(WORDS[name])
    given = {key: one for key, one in keywords.items() if one is not None}  # torch fills in what nobody gave
    try:
        bound = signature.bind(math, *args, **given)
    except TypeError as error:
        names = ", ".join(list(signature.parameters)[1:])
        raise math.rule.error(f"{name}: {error}; in a rule it takes {names}") from None
    for key, one in list(bound.arguments.items())[1:]:
        if key != "dtype" and not (one is None and signature.parameters[key].default is None):
            bound.arguments[key] = convert(one)
    return WORDS[name](*bound.args, **bound.kwargs)


def unknown(name: str) -> str:
    """Why there is no such word, and what to write instead."""
    if sign := INPLACE.get(name.strip("_")):
        return f"{sign}= would change a value in place, and a rule makes new ones: write x = x {sign} y"
    if name.endswith("_") and not name.startswith("_"):
        return f"{name} would change a value in place, and a rule makes new ones: write x = x.{name.strip('_')}(...)"
    if remedy := INSTEAD.get(name):
        return f"there is no {name} in a rule: {remedy}"
    if name in REDUCTIONS:
        return f"{name} needs all elements at once, and a rule sees one at a time: compute it outside, and make the result an option"
    if name in RANDOM:
        return f"{name} is random, and a rule computes the same each time: leave it out"
    if name in SHAPES:
        return f"{name} is about a tensor's shape or memory, and a rule sees one element at a time: write what becomes of one"
    words = sorted({function.__name__.strip("_") for function in WORDS.values() if function is not _as_float})
    return f"there is no {name} in a rule: {meant(name, words)}"
