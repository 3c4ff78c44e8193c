"""Reads what the Numba driver becomes on this machine's CPU: the width of its vectors, and the instructions of its loops."""

import re
from typing import Any, NamedTuple

import numba

from ..kernels import lang
from ..kernels.cpu import step as cpu
from ..kernels.storage import ITEMSIZE, Storage
from .errors import UserError
from .machine_code import Instruction, instructions, loops


class CPUCode(NamedTuple):
    """What the loops became that run where all options have their neutral values; None: not to be found in this machine's code."""

    width: int | None  # bytes of a vector, 0 where nothing is vectorised
    per_param: float | None  # instructions
    stack: int | None  # accesses to the stack, which lacks of registers cause


# the bytes that an instruction stores, by what it is or by the register that it stores
_X86_STORES = [
    (r"v?mov(?:[ua]p[sd]|dq\w*|ntp[sd]|ntdq)\s+%([xyz])mm", dict(x=16, y=32, z=64)),
    (r"vcvtps2ph\s+\S+\s*%([xyz])mm", dict(x=8, y=16, z=32)),
    (r"vpmov(?:qd|dw|wb)\s+%([xyz])mm", dict(x=8, y=16, z=32)),
    (r"vpmov(?:db|qw)\s+%([xyz])mm", dict(x=4, y=8, z=16)),
    (r"vextract[fi](128|32x4|64x2|64x4|32x8)\s", {"128": 16, "32x4": 16, "64x2": 16, "64x4": 32, "32x8": 32}),
    (r"v?(?:mov(q|sd|[lh]p[sd])|pextr(q))\s", 8),
    (r"v?(?:mov(d|ss|l)|pextr(d))\s", 4),
    (r"v?(?:pextr(w)|mov(w))\s", 2),
    (r"v?(?:pextr(b)|mov(b))\s", 1),
]
_ARM_BYTES = dict(q=16, d=8, x=8, s=4, w=4, h=2, b=1)
_LANES = {"16b": 16, "8h": 16, "4s": 16, "2d": 16, "8b": 8, "4h": 8, "2s": 8, "1d": 8, "b": 1, "h": 2, "s": 4, "d": 8}
# every loop of a step multiplies or takes roots, in vectors only where it is vectorised; scalable ones (z) have no known width
_ARITHMETIC = re.compile(r"v?(?:mul|div|sqrt)p[sd]\s.*%([xyz])mm\d+$|f(?:mul|div|sqrt)\s+(?:(v)\d+\.(?:4s|2d)|(z)\d+\.)")


def _stored(one: Instruction) -> int | None:
    """Bytes that an instruction writes to memory but the stack; None if that is not known."""
    text, last = f"{one.opcode} {one.operands}", one.operands.rpartition("[" if "[" in one.operands else " ")[2]
    if re.match(r"st", one.opcode):  # ARM
        if "[sp" in one.operands:
            return 0
        if pair := re.match(r"(st[nu]?[rp]r?)(b|h)?\s+([a-z])\d+", text):
            each = _ARM_BYTES[pair[2] or pair[3]]
            return each * (2 if pair[1] in ("stp", "stnp") else 1)
        lists = re.match(r"st1\s+\{([^}]*)\}", text)
        return sum(_LANES[kind] for kind in re.findall(r"v\d+\.(\w+)", lists[1])) if lists else None
    if not last.endswith(")") or "%rsp" in last or re.match(r"cmp|v?u?comis|test|lea|bt|prefetch|j|call", one.opcode):
        return 0  # no memory, or read only: the last operand of an x86 instruction is what it writes
    for pattern, size in _X86_STORES:
        if found := re.match(pattern, text):
            return size[found[1]] if isinstance(size, dict) else size
    return None


def _width(loop: list[Instruction]) -> int | None:
    found = [match for one in loop if (match := _ARITHMETIC.match(f"{one.opcode} {one.operands}"))]
    if any(match[3] for match in found):
        return None
    return max((dict(x=16, y=32, z=64, v=16)[match[1] or match[2]] for match in found), default=0)


def read(assembly: str, storage: Storage) -> CPUCode:
    """Of what Numba shows; the loops are known by what they store."""
    inner: list[list[Instruction]] = []
    for loop in sorted(loops(instructions(assembly)), key=len):
        # else it is around another; those over a group may be unrolled
        if storage.quantized or not any(kept[0] is one for kept in inner for one in loop):
            inner.append(loop)
    vectors = [(loop, width) for loop in inner if (width := _width(loop)) != 0]
    if not vectors:
        return CPUCode(0, None, None)
    if any(width is None for _, width in vectors):
        return CPUCode(None, None, None)
    n_bytes = sum(ITEMSIZE[name] for rows in storage.dtypes[1:] for name in rows)
    updates = []
    for loop, width in vectors:
        stored = [_stored(one) for one in loop]
        total, least = sum(filter(None, stored)), (width or 0) // ITEMSIZE[storage.compute]
        if None in stored:
            continue
        if total % n_bytes == 0 and total // n_bytes >= least:
            updates.append((len(loop) / (total // n_bytes), loop))
    width = max(width or 0 for _, width in vectors)
    if not updates or storage.quantized:  # whose groups go through several loops, some of them unrolled
        return CPUCode(width, None, None)
    per_param, hot = min(updates, key=lambda pair: pair[0])
    stack = sum(bool(re.search(r"(?<![,\w(])-?\d*\(%rsp\)|\[sp\b", one.operands)) for one in hot)
    return CPUCode(width, per_param, stack)


def build(rule: str, storage: Storage) -> tuple[Any, Any]:
    """The driver's loop compiled here, and the signature that its inspect_asm() takes: what is in a disk cache cannot be read."""
    if lang.interpreted():
        raise UserError("TRITON_INTERPRET is set, so Numba compiles nothing for the CPU: unset it")
    cpu.compiled(rule, storage)
    loop: Any = cpu._step
    signature = next(args for args in loop.overloads if (args[0].rule, args[0].storage) == (rule, storage))
    options = {name: loop.targetoptions[name] for name in ("nogil", "error_model")}
    step = numba.njit(**options)(loop.py_func)
    step.compile(signature)
    return step, signature
