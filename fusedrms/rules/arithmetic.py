"""The arithmetic of a rule, decided while it is traced, so that all devices and compilers compute the same.

A product that something is added to is fused with it, the left one of two: no compiler fuses by itself here. What only options, the
step and literals are in is the host's. Nothing else is put in another order.
"""

import math

import numpy as np

from . import host
from .errors import Rule
from .graph import ELEMENT, HOST, UNIFORM, Graph, Node

MOST_POWER = 64  # an exponent; by then float32 has left few numbers

COMPARED = ("lt", "le", "gt", "ge", "eq", "ne")
BOTH, EITHER = all, any  # of its operands must not be negative for a result not to be
SIGNS = {"add": BOTH, "mul": BOTH, "div": BOTH, "quotient": BOTH, "fma": BOTH, "smaller": BOTH, "larger": EITHER}


class Arithmetic:
    def __init__(self, rule: Rule):
        self.rule, self.graph = rule, Graph()
        self.grad = self.graph.given("grad")
        self.param = self.graph.given("param")
        self.lr = self.graph.given("lr", level=UNIFORM)

    def literal(self, value: float | bool) -> Node:
        return self.graph.literal(value)

    def _make(self, op: str, *args: Node, boolean: bool = False, nonnegative: bool = False, least: int = HOST) -> Node:
        if least == HOST and all(arg.is_literal for arg in args):
            return self.literal(host.evaluate(op, *(arg.value for arg in args)))
        if op in SIGNS:
            nonnegative = nonnegative or SIGNS[op](arg.nonnegative for arg in args)
        node = self.graph.make(op, *args, boolean=boolean, nonnegative=nonnegative, least=least)
        if node.level > HOST:
            for arg in args:
                self._check_literal(arg)
        return node

    def _check_literal(self, node: Node) -> None:
        if node.is_literal and not node.boolean:
            with np.errstate(over="ignore", under="ignore"):
                held = np.float32(node.value)
            if (np.isinf(held) and not math.isinf(node.value)) or (held == 0 and node.value != 0):
                raise self.rule.error(f"float32 cannot hold the literal {node.value!r}: scale what it goes with")
            if math.isnan(node.value):
                raise self.rule.error("a literal NaN: a rule has none; write a number")

    def number(self, a: Node) -> Node:
        """A boolean as 1 or 0."""
        if not a.boolean:
            return a
        if a.level == HOST:
            return self._make("float", a, nonnegative=True)
        return self.where(a, self.literal(1.0), self.literal(0.0))

    def condition(self, a: Node) -> Node:
        """A boolean that the kernel can test: one of the host's comes to it as a number."""
        if a.level > HOST or a.is_literal:
            return a
        return self._make("ne", self.number(a), self.literal(0.0), boolean=True, least=UNIFORM)

    def neg(self, a: Node) -> Node:
        a = self.number(a)
        if a.level == HOST:
            return a.args[0] if a.op == "neg" else self._make("neg", a)
        if a.op != "mul":
            return self._make("mul", a, self.literal(-1.0))
        x, y = a.args  # exact, whichever factor is negated: where it costs least
        if y.is_literal and y.value == -1:
            return x
        return self.mul(x, self.neg(y)) if y.level < x.level else self.mul(self.neg(x), y)

    def add(self, a: Node, b: Node) -> Node:
        a, b = self.number(a), self.number(b)
        for product, other in ((a, b), (b, a)):
            if product.op == "mul" and product.level > HOST:
                return self._fma(product, other)
        return self._make("add", a, b)

    def sub(self, a: Node, b: Node) -> Node:
        a, b = self.number(a), self.number(b)
        if a.op == "mul" and a.level > HOST:
            return self._fma(a, self.neg(b))
        if b.op == "mul" and b.level > HOST:
            negative = self.neg(b)
            return self._fma(negative, a) if negative.op == "mul" else self.add(a, negative)
        return self._make("sub", a, b)

    def _fma(self, product: Node, other: Node) -> Node:
        x, y = product.args
        x, y = (y, x) if x.is_literal else (x, y)  # tl.fma() takes its type from the first
        return self._make("fma", x, y, other, nonnegative=product.nonnegative and other.nonnegative)

    def mul(self, a: Node, b: Node) -> Node:
        a, b = self.number(a), self.number(b)
        return self._make("mul", a, b, nonnegative=a is b)

    def div(self, a: Node, b: Node) -> Node:
        a, b = self.number(a), self.number(b)
        if b.level == HOST and a.level > HOST:
            return self.mul(a, self._make("div", self.literal(1.0), b))
        return self._make("quotient" if b.nonnegative and b.level > HOST else "div", a, b)

    def pow(self, a: Node, b: Node) -> Node:
        a, b = self.number(a), self.number(b)
        if a.level == b.level == HOST:
            return self._make("pow", a, b, nonnegative=a.nonnegative)
        if not b.is_literal:
            raise self.rule.error("an exponent must be a literal, unless both sides are options: write torch.exp(y * torch.log(x))")
        exponent = b.value
        if exponent in (0.5, -0.5):
            return self.sqrt(a) if exponent > 0 else self.rsqrt(a)
        if exponent != int(exponent) or abs(exponent) > MOST_POWER:
            raise self.rule.error(
                f"the exponent {exponent!r} is neither 0.5, -0.5 nor a whole number up to {MOST_POWER}: write torch.exp(y * torch.log(x))"
            )
        result, square, left = None, a, abs(int(exponent))
        while left:
            if left & 1:
                result = square if result is None else self.mul(result, square)
            left >>= 1
            square = self.mul(square, square) if left else square
        result = result or self.literal(1.0)
        return self.div(self.literal(1.0), result) if exponent < 0 else result

    def _unary(self, op: str, a: Node, nonnegative: bool = False) -> Node:
        return self._make(op, self.number(a), nonnegative=nonnegative)

    def sqrt(self, a: Node) -> Node:
        return self._unary("sqrt", a, True)

    def rsqrt(self, a: Node) -> Node:
        return self.div(self.literal(1.0), self.sqrt(a)) if a.level == HOST else self._unary("rsqrt", a, True)

    def abs(self, a: Node) -> Node:
        return self._unary("abs", a, True)

    def exp(self, a: Node) -> Node:
        return self._unary("exp", a, True)

    def log(self, a: Node) -> Node:
        return self._unary("log", a)

    def sign(self, a: Node) -> Node:
        """0 of a NaN, as torch has it."""
        zero, a = self.literal(0.0), self.number(a)
        negative = self.where(self.compare("lt", a, zero), self.literal(-1.0), zero)
        return self.where(self.compare("gt", a, zero), self.literal(1.0), negative)

    def extreme(self, op: str, a: Node, b: Node) -> Node:
        """`larger` or `smaller` of two; a NaN of either stays."""
        a, b = self.number(a), self.number(b)
        return self._make(op, *((b, a) if a.is_literal else (a, b)))

    def compare(self, op: str, a: Node, b: Node) -> Node:
        return self._make(op, self.number(a), self.number(b), boolean=True)

    def truth(self, a: Node) -> Node:
        return a if a.boolean else self.compare("ne", a, self.literal(0.0))

    def logical(self, op: str, a: Node, b: Node) -> Node:
        """`and` or `or` of two conditions."""
        for one, other in ((a, b), (b, a)):
            if one.is_literal:
                return other if one.value == (op == "and") else one
        if max(a.level, b.level) > HOST:
            a, b = self.condition(a), self.condition(b)
        return self._make(op, a, b, boolean=True)

    def invert(self, a: Node) -> Node:
        return a.args[0] if a.op == "not" else self._make("not", a, boolean=True)

    def where(self, condition: Node, a: Node, b: Node) -> Node:
        if condition.is_literal:
            return a if condition.value else b
        if a.boolean and b.boolean:
            return self.logical("or", self.logical("and", condition, a), self.logical("and", self.invert(condition), b))
        a, b = self.number(a), self.number(b)
        nonnegative = a.nonnegative and b.nonnegative
        if max(condition.level, a.level, b.level) == HOST:
            return self._make("where", condition, a, b, nonnegative=nonnegative)
        condition = self.condition(condition)
        if condition.op == "not":
            condition, a, b = condition.args[0], b, a
        if a.is_literal and b.is_literal:  # neither has a type
            a = self._make("like", self.grad if condition.level == ELEMENT else self.lr, a)
        return self._make("where", condition, a, b, nonnegative=nonnegative)

    def element(self, a: Node) -> Node:
        """What a state can store: a value for each element."""
        a = self.number(a)
        return a if a.level == ELEMENT else self._make("like", self.grad, a)
