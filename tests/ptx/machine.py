"""Runs the PTX that Triton compiles, on a CPU, and checks every access to memory; see run().

All threads of a grid run at once: a register is an array with a number for each. Where threads part, those at the smallest address
run on alone until they are level with others. Names and meanings are those of the PTX ISA; what is not written here is a Fault.
"""

import functools
import itertools
import re
from typing import NamedTuple

import numpy as np

from .memory import WARP, Bytes, Fault, Memory
from .opcodes import TYPES, table

SHARED = "global_smem"  # Triton's name for the shared memory of a block, which begins at address 0
POISON = 0xDEADBEEFDEADBEEF  # what a register holds before it is written
UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


class Instruction(NamedTuple):
    line: int
    text: str
    guard: str | None  # a predicate,
    wanted: bool  # and which value of it lets threads take part
    opcode: str
    operands: list[str]


class Kernel(NamedTuple):
    code: list[Instruction]
    labels: dict[str, int]
    params: list[str]
    widths: dict[str, int]  # bits of registers, by the letters of their names
    threads: int  # of a block


_INSTRUCTION = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*?)\s*;")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^\s,]+")


def parse(ptx: str) -> Kernel:
    """The only kernel of a PTX text."""
    head, _, body = ptx.partition(".entry")[2].partition("\n{\n")
    first = ptx[: len(ptx) - len(body)].count("\n") + 1
    body, _, tail = body.partition("\n}\n")
    params = re.findall(r"\.param\s+\.\w+.*?(\w+),?\n", head)
    threads = re.search(r"\.reqntid\s+(\d+)", head)
    if not threads or ".entry" in tail:
        raise Fault("not a single kernel with .reqntid")
    code, labels, widths = [], {}, {}
    for number, line in enumerate(body.splitlines(), start=first):
        text = re.sub(r"//.*", "", line).strip().replace("shared::cta", "shared")  # the same, longer
        if label := re.fullmatch(r"(\$\w+):", text):
            labels[label[1]] = len(code)
        elif register := re.fullmatch(r"\.reg\s+\.(\w+)\s+%(\w+)<\d+>;", text):
            widths[register[2]] = 1 if register[1] == "pred" else int(register[1][1:])
        elif text and not re.match(r"\.(loc|pragma)\b", text):
            found = _INSTRUCTION.fullmatch(text)
            if not found:
                raise Fault(f"line {number} is not understood: {text}")
            code.append(Instruction(number, text, found[2], not found[1], found[3], _OPERAND.findall(found[4])))
    return Kernel(code, labels, params, widths, int(threads[1]))


class _Machine:
    def __init__(self, kernel: Kernel, grid: int, args: list[int], memory: Memory, shared: int, seed: int | None):
        self.kernel, self.grid, self.memory = kernel, grid, memory
        # what Triton adds to the kernel's own is scratch memory, which these do not use
        self.params = dict(itertools.zip_longest(kernel.params, args, fillvalue=0))
        self.thread = np.arange(grid * kernel.threads)
        self.block = self.thread // kernel.threads
        self.bytes = dict(shared=Bytes(shared * grid, kernel.threads, one_writer=False))
        self.bytes["global"] = memory.begin(kernel.threads)
        self.shared = shared  # bytes of each block
        self.epoch = np.zeros(grid, np.int64)  # barriers that each block has passed
        self.table = table(seed)
        self.registers: dict[str, np.ndarray] = {}
        self.special = {
            "%tid.x": self.thread % kernel.threads,
            "%ctaid.x": self.block,
            "%ntid.x": np.full_like(self.thread, kernel.threads),
            "%nctaid.x": np.full_like(self.thread, grid),
        }
        self.active = self.thread  # those that take part, in order

    def run(self) -> None:
        code, end = self.kernel.code, len(self.kernel.code)
        at = np.zeros(len(self.thread), np.int64)
        while (here := at.min()) < end:
            group = np.flatnonzero(at == here)
            level = at.min(initial=end, where=at > here)
            while here < level:
                one = code[here]
                here += 1
                try:
                    self.active = group if one.guard is None else self.taking_part(group, one)
                    if one.opcode in ("bra", "bra.uni", "ret"):
                        at[group] = here
                        at[self.active] = self.kernel.labels[one.operands[0]] if one.operands else end
                        break
                    if len(self.active):
                        self.execute(one.opcode, one.operands)
                except Fault as fault:
                    raise Fault(f"{fault}; line {one.line}: {one.text}") from None
            else:
                at[group] = level

    def taking_part(self, group: np.ndarray, one: Instruction) -> np.ndarray:
        self.active = group
        return group[self.value(one.guard, "pred") == one.wanted]

    # operands

    def value(self, operand: str, kind: str) -> np.ndarray:
        """Of each active thread, typed."""
        dtype = TYPES[kind]
        if operand in self.special:
            return self.special[operand][self.active].astype(dtype)
        if operand[0] == "%":
            if operand not in self.registers:
                raise Fault(f"{operand} was never written")
            raw = self.registers[operand][self.active]
            if raw.dtype.itemsize > dtype.itemsize and dtype.kind in "iu":  # the lower bits, as cvt and st take them
                raw = raw.astype(UNSIGNED[dtype.itemsize])
            if raw.dtype.itemsize != dtype.itemsize or (raw.dtype.kind == "b") != (kind == "pred"):
                raise Fault(f"{operand} does not hold a {kind}")
            return raw.view(dtype)
        of_float = operand.startswith(("0f", "0d"))
        number = 0 if operand == SHARED else int(operand[2:], 16) if of_float else int(operand.rstrip("U"), 0)
        if kind == "pred":
            return np.full(len(self.active), number != 0)
        bits = np.full(len(self.active), number % (1 << 8 * dtype.itemsize), UNSIGNED[dtype.itemsize])
        return bits.view(dtype)

    def put(self, operand: str, values: np.ndarray) -> None:
        """Into a register that is as wide, or wider: then with the sign of a signed number."""
        if operand == "_":
            return
        bits = self.kernel.widths[re.match(r"%([a-z]+)", operand)[1]]
        if bits > 1:
            values = np.ascontiguousarray(values)
            if values.dtype.kind == "f":
                values = values.view(UNSIGNED[values.dtype.itemsize])
            values = values.astype(f"{values.dtype.kind}{bits // 8}", casting="safe").view(UNSIGNED[bits // 8])
        if operand not in self.registers:
            self.registers[operand] = np.full(len(self.thread), POISON % (1 << bits), values.dtype)
        self.registers[operand][self.active] = values

    # instructions

    def execute(self, opcode: str, operands: list[str]) -> None:
        name, *rest = opcode.split(".")
        if opcode in self.table:
            _, kinds, function = self.table[opcode]
            if opcode in ("min.f32", "max.f32") and len(operands) == 4:  # of three, on sm_100
                kinds, function = ("f32",) * 3, lambda a, b, c, of_two=function: of_two(of_two(a, b), c)
            if len(operands) != 1 + len(kinds):
                raise Fault("wrong number of operands")
            self.put(operands[0], function(*map(self.value, operands[1:], kinds)))
        elif opcode == "setp.eq.f16x2":
            both = [np.ascontiguousarray(self.value(operand, "b32")).view(np.float16).reshape(-1, 2) for operand in operands[1:]]
            for predicate, equal in zip(operands[0].split("|"), (both[0] == both[1]).T, strict=True):
                self.put(predicate, equal)
        elif name == "mov" and len(rest) == 1 and rest[0] in TYPES:
            self.move(rest[0], *operands)
        elif name in ("ld", "st") and len(rest) >= 2:
            self.access(name, rest, operands)
        elif opcode == "bar.sync" and operands == ["0"]:
            count = np.bincount(self.block[self.active], minlength=self.grid)
            if not np.isin(count, (0, self.kernel.threads)).all():
                raise Fault("a barrier that only some threads of a block reach")
            self.epoch[count > 0] += 1
        elif opcode == "shfl.sync.bfly.b32" and operands[3:] == ["31", "-1"]:
            values = self.value(operands[1], "b32").reshape(self.warps())
            lanes = np.arange(WARP) ^ int(operands[2])
            self.put(operands[0], values[:, lanes].ravel())
        elif found := re.fullmatch(r"(ld|st)matrix\.sync\.aligned\.m8n8\.x([124])\.shared\.b16", opcode):
            self.matrices(int(found[2]), *(operands[::-1] if found[1] == "ld" else operands), loaded=found[1] == "ld")
        elif found := re.fullmatch(r"redux\.sync\.((?:max|min)\.(?:[su]32|f32)|add\.[su]32)", opcode):
            if (self.value(operands[2], "u32") != 0xFFFFFFFF).any():
                raise Fault("not all threads of a warp take part")
            lanes = self.value(operands[1], found[1][-3:]).reshape(self.warps()).T
            self.put(operands[0], np.repeat(functools.reduce(self.table[found[1]][2], lanes), WARP))
        else:
            raise Fault(f"unknown instruction {opcode}")

    def warps(self) -> tuple[int, int]:
        """The shape of values, a row for each warp, all of whose threads must take part."""
        if len(self.active) % WARP or (self.active.reshape(-1, WARP) % WARP != np.arange(WARP)).any():
            raise Fault("threads of a warp are missing")
        return len(self.active) // WARP, WARP

    def move(self, kind: str, target: str, source: str) -> None:
        """mov; braces take a number apart or put it together, the lower part first."""
        if target[0] == source[0] == "{" or (kind[0] != "b" and "{" in (target[0], source[0])):
            raise Fault("unknown form of mov")
        if target[0] == "{":
            parts = re.findall(r"[\w%]+", target)
            pieces = self.value(source, kind).view(UNSIGNED[TYPES[kind].itemsize // len(parts)]).reshape(-1, len(parts))
            for part, piece in zip(parts, pieces.T, strict=True):
                self.put(part, piece)
        elif source[0] == "{":
            parts = re.findall(r"[\w%]+", source)
            each = f"b{8 * TYPES[kind].itemsize // len(parts)}"
            for part in parts:  # half of a pair may never be used
                if part not in self.registers:
                    self.put(part, np.full(len(self.active), POISON, np.uint64).astype(TYPES[each]))
            self.put(target, np.stack([self.value(part, each) for part in parts], axis=1).view(TYPES[kind]).ravel())
        else:
            self.put(target, self.value(source, kind))

    def matrices(self, count: int, where: str, what: str, loaded: bool) -> None:
        """ldmatrix and stmatrix: lane 8 m + r has the address of row r of matrix m, 16 bytes; each has 4 bytes of every matrix."""
        warps, active, registers = self.warps()[0], self.active, re.findall(r"%\w+", what)
        if len(registers) != count:
            raise Fault("unknown form of access")
        stored = None if loaded else np.stack([self.value(register, "b32").reshape(warps, WARP) for register in registers], axis=1)
        self.active = active[active % WARP < 8 * count]  # the addresses of the others are not looked at
        rows = self.touch("shared", self.address(where, "shared"), 16, None if loaded else stored.view(np.uint8).reshape(-1, 16))
        self.active = active
        if loaded:
            for register, words in zip(registers, rows.view(np.uint32).reshape(warps, count, WARP).swapaxes(0, 1), strict=True):
                self.put(register, words.ravel())

    def access(self, name: str, rest: list[str], operands: list[str]) -> None:
        """ld and st."""
        space, *vector, kind = rest
        count = {"": 1, "v2": 2, "v4": 4}.get("".join(vector))
        if count is None or kind not in TYPES or space not in ("global", "shared", "param"):
            raise Fault("unknown form of access")
        where, what = (operands[1], operands[0]) if name == "ld" else operands
        registers, dtype = re.findall(r"%\w+", what), TYPES[kind]
        if len(registers) != count:
            raise Fault("unknown form of access")
        if space == "param":
            number = self.params[where.strip("[]")] % (1 << 8 * dtype.itemsize)
            self.put(registers[0], np.full(len(self.active), number, UNSIGNED[dtype.itemsize]).view(dtype))
        elif name == "ld":
            values = self.touch(space, self.address(where, space), dtype.itemsize * count)
            for register, column in zip(registers, values.view(dtype).T, strict=True):
                self.put(register, column)
        else:
            columns = np.stack([self.value(register, kind) for register in registers], axis=1)
            self.touch(space, self.address(where, space), dtype.itemsize * count, columns.view(np.uint8))

    def address(self, where: str, space: str) -> np.ndarray:
        found = re.fullmatch(rf"\[\s*(%\w+|{SHARED})\s*(?:\+\s*(-?\d+))?\s*\]", where)
        if not found:
            raise Fault("unknown form of address")
        return self.value(found[1], "b64" if space == "global" else "b32").astype(np.int64) + int(found[2] or 0)

    def touch(self, space: str, address: np.ndarray, size: int, values: np.ndarray | None = None) -> np.ndarray:
        """Read so many bytes at each address, or write them; [threads, size]."""
        if (address % size).any():
            raise Fault(f"access of {size} bytes misaligned at {address[address % size != 0][0]:#x}")
        block = self.block[self.active]
        if space == "global":
            at = self.memory.positions(address, size)
        elif (address < 0).any() or (address + size > self.shared).any():
            raise Fault(f"access of {size} bytes outside of the {self.shared} bytes of shared memory")
        else:
            at = (block * self.shared + address)[:, None] + np.arange(size)
        who = self.active[:, None], self.epoch[block][:, None]
        if values is None:
            return self.bytes[space].read(at, *who)
        self.bytes[space].write(at, values, *who)
        return values


def run(ptx: str, grid: int, args: list[int], memory: Memory, shared: int = 0, seed: int | None = None) -> None:
    """Run a kernel on all blocks of a grid.

    Args:
        ptx: of one kernel.
        grid: the number of blocks, along x.
        args: addresses and integers, one for each of the kernel's arguments.
        memory: what it may read and write.
        shared: bytes of shared memory of each block.
        seed: None: approximations are rounded right; else each is off, either way or not at all, by as much as the ISA allows.

    Raises:
        Fault: an access that is out of bounds, misaligned, of memory that was never written, or that races with another; an
            instruction that this machine does not know.
    """
    machine = _Machine(parse(ptx), grid, args, memory, shared, seed)
    with np.errstate(all="ignore"):
        machine.run()
