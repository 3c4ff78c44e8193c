"""How the values of a launch lie in memory: what the kernels are compiled for beside the rule."""

from typing import NamedTuple

from .quant import GROUP
from .tables import UNIT_COUNTS, UNIT_SUMS

ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int16": 2, "int8": 1, "uint8": 1, "int4": 0.5, "uint4": 0.5}

# The format of a value, by which both drivers load and store it.
PLAIN = 0  # one row of addresses, of whatever float dtype
MASTER = 1  # two rows: a 16-bit parameter and the float32 master that it is rounded from
SPLIT = 2  # two rows: a bfloat16 parameter and the remainder, int16, that its float32 master has beyond it; int8 of a 24-bit master
QUANTIZED = 3  # two rows: codes of 8 or 4 bits, these in words of four, and the float32 scale of each group

WORDS = {"int4": "int16", "uint4": "uint16"}  # what codes of 4 bits are read and written in
TOP = {"uint8": 255, "int8": 127, "uint4": 15, "int4": 7}  # the largest code

FLAGS = ("stochastic", "variance", "average", "cautious", "measured")  # that a label names


def format_of(dtypes: tuple[str, ...]) -> int:
    """Of a value whose rows have these dtypes."""
    if len(dtypes) == 1:
        return PLAIN
    if dtypes[0] in TOP and dtypes[1:] == ("float32",):
        return QUANTIZED
    return {"int16": SPLIT, "int8": SPLIT, "float32": MASTER}[dtypes[1]]


class Storage(NamedTuple):
    """The values of a launch: grad, param, state 0, ..., and the parameter's average if there is one."""

    dtypes: tuple[tuple[str, ...], ...]  # of each the dtypes of its rows of addresses, as torch names them
    stochastic: bool = False  # 16-bit parameters are rounded stochastically
    variance: bool = False  # state 0 is kept as the variance about state 1
    average: bool = False  # the last value is the parameter's average
    cautious: bool = False  # updates against their gradient's sign are left out
    measured: bool = False  # statistics are taken, as in tables.UNIT_SUMS
    # a shard whose first element is no first of four that share a random word, or in which the lower 32 bits of offsets in the parameter
    # begin anew within a chunk: random bits depend on all 64
    straddles: bool = False

    @property
    def label(self) -> str:
        """What its speed hangs on, in words, such as "bfloat16, bfloat16+int16, uint8+float32, stochastic"."""
        flags = [name for name in FLAGS if getattr(self, name)]
        return ", ".join([*map("+".join, self.dtypes), *flags])

    @classmethod
    def of_label(cls, label: str) -> "Storage":
        """What a label says; ValueError if it is none."""
        parts = label.split(", ")
        flags = {name: name in parts for name in FLAGS}
        found = cls(tuple(tuple(part.split("+")) for part in parts if part not in flags), **flags)
        if found.label != label or len(found.dtypes) < 2 or not set(sum(found.dtypes, ())) <= ITEMSIZE.keys():
            raise ValueError(f"{label!r} is no label of a storage")
        return found

    @property
    def compute(self) -> str:
        """The dtype of all arithmetic."""
        return "float64" if self.dtypes[1] == ("float64",) else "float32"

    @property
    def formats(self) -> tuple[int, ...]:
        """Of each value."""
        return tuple(map(format_of, self.dtypes))

    @property
    def flags(self) -> tuple[bool, ...]:
        """Those of FLAGS."""
        return tuple(getattr(self, name) for name in FLAGS)

    @property
    def n_states(self) -> int:
        """Of the rule."""
        return len(self.dtypes) - 2 - self.average

    @property
    def n_columns(self) -> int:
        """Of a row of unit_sums."""
        return len(UNIT_SUMS) + self.n_states + len(UNIT_COUNTS)

    @property
    def quantized(self) -> list[int]:
        """Which values are kept as codes; of grad, param, state 0, ..."""
        return [v for v, format in enumerate(self.formats) if format == QUANTIZED]

    @property
    def drawn(self) -> list[int]:
        """Which values are rounded stochastically: states in fewer bits, parameters where `stochastic` says so, masters of 24 bits."""
        lean = [v for v, (dtype, *_) in enumerate(self.dtypes) if v > 1 and dtype not in ("float32", "float64")]
        return [1, *lean] if self.stochastic or "int8" in self.dtypes[1] else lean

    @property
    def random(self) -> bool:
        """Whether anything is rounded stochastically."""
        return bool(self.drawn)

    @property
    def streams(self) -> list[str]:
        """Dtypes of what a step reads and writes for each element: the gradient once, all rows but scales twice."""
        rows = [row for v, value in enumerate(self.dtypes) for row in (value[:1] if v in self.quantized else value)]
        return rows + rows[1:]

    @property
    def traffic(self) -> float:
        """Bytes that a step reads and writes for each parameter."""
        return sum(ITEMSIZE[name] for name in self.streams) + len(self.quantized) * 2 * ITEMSIZE["float32"] / GROUP
