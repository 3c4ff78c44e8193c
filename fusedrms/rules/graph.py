"""The operations of a rule: each different one once, in the order in which the user's function came to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

HOST, UNIFORM, ELEMENT = range(3)  # computed by the host; by the kernel, for all elements at once; for each element

SIGNS = dict(add="+", sub="-", mul="*", div="/", lt="<", le="<=", gt=">", ge=">=", eq="==", ne="!=") | {"and": "&", "or": "|"}
INFIX = {op: f"{{}} {sign} {{}}" for op, sign in SIGNS.items()}  # operations as the kernels and the host write them


@dataclass(frozen=True, eq=False)
class Node:
    """A value: an operation on others, a literal (`value`), or something that the rule is given (`name`)."""

    order: int
    op: str
    args: tuple["Node", ...] = ()
    level: int = HOST
    boolean: bool = False
    nonnegative: bool = False  # never less than 0; it may be NaN
    per_step: bool = False  # of the host's: the step is in it
    name: str = ""
    value: Any = None

    @property
    def is_literal(self) -> bool:
        return self.op == "literal"


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes by what they are; `made` finds an operation that is there already."""

    made: dict[tuple[Any, ...], Node] = field(default_factory=dict[tuple[Any, ...], Node])

    def _node(self, key: tuple[Any, ...], **fields: Any) -> Node:
        if key not in self.made:
            self.made[key] = Node(len(self.made), key[0], **fields)
        return self.made[key]

    def given(self, op: str, name: str = "", level: int = ELEMENT, nonnegative: bool = False) -> Node:
        """What a rule is given."""
        return self._node((op, name), name=name, level=level, nonnegative=nonnegative, per_step=op == "step")

    def literal(self, value: float | bool) -> Node:
        key = ("literal", value if isinstance(value, bool) else float(value).hex(), isinstance(value, bool))
        return self._node(key, value=value, boolean=isinstance(value, bool), nonnegative=value >= 0)

    def make(self, op: str, *args: Node, boolean: bool = False, nonnegative: bool = False, least: int = HOST) -> Node:
        """The operation `op` of nodes; least: the lowest level that it may be computed at."""
        level = max(least, *(arg.level for arg in args))
        per_step = level == HOST and any(arg.per_step for arg in args)
        return self._node((op, *args), args=args, level=level, boolean=boolean, nonnegative=nonnegative, per_step=per_step)


def reachable(results: Iterable[Node], least: int = HOST) -> Sequence[Node]:
    """The nodes of a level or higher that results are made of, and they themselves, in order."""
    found: set[Node] = set()
    waiting = [node for node in results if node.level >= least]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [arg for arg in node.args if arg.level >= least]
    return sorted(found, key=lambda node: node.order)
