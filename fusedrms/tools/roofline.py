"""What a kernel's registers and instructions mean on a GPU: how many warps fit, and whether memory or arithmetic limits it.

Arithmetic is counted as turns of the schedulers, at the boost clock: a bound that no kernel beats, since some instructions take several.
"""

import functools
import json
import pathlib
from typing import NamedTuple

from .machine_code import Code


class Multiprocessor(NamedTuple):
    """What one holds and issues; gpus.json says why and where from."""

    lanes: int  # whose instructions it issues each clock
    counted: str  # how the opcodes of those begin
    warp: int  # threads
    warps: int  # that it holds at most
    programs: int  # that it holds at most
    registers: int  # of 32 bits
    register_unit: int  # a warp gets a multiple
    shared: int  # bytes
    shared_reserved: int  # bytes that each program takes beside its own

    def issued(self, code: Code) -> int:
        """Instructions of the loop that take a turn."""
        return sum(opcode.startswith(self.counted) for opcode in code.loop)

    def resident(self, code: Code, threads: int) -> int:
        """Warps that it holds of a kernel with so many threads a program; each of 4 schedulers has its own registers."""
        each, used = -(-threads // self.warp), -(-code.registers * self.warp // self.register_unit) * self.register_unit
        limits = [self.programs, 4 * min(self.warps // 4, self.registers // 4 // used) // each]
        if code.shared:
            limits.append(self.shared // (code.shared + self.shared_reserved))
        return min(limits) * each


class GPU(NamedTuple):
    name: str
    target: str
    memory: float  # bytes
    bandwidth: float  # bytes a second
    multiprocessors: int
    clock: float  # boost, in Hz


class Limit(NamedTuple):
    """What limits a step on a GPU."""

    gpu: str
    issuable: float  # instructions a parameter while the memory moves its bytes
    by: str  # memory or arithmetic
    ns: float  # a parameter
    share: float  # of the bandwidth


@functools.cache
def _data() -> dict:
    return json.loads((pathlib.Path(__file__).parent / "gpus.json").read_text())


@functools.cache
def multiprocessor(target: str) -> Multiprocessor | None:
    """Of a target's GPUs, if they are known."""
    found = _data()["multiprocessors"].get(target)
    return found and Multiprocessor(*(found[field] for field in Multiprocessor._fields))


@functools.cache
def known() -> dict[str, GPU]:
    """Every GPU by the first word of its name, such as h200."""
    found = (GPU(*(gpu[field] for field in GPU._fields)) for gpu in _data()["gpus"])
    return {gpu.name.split()[0].lower(): gpu for gpu in found}


def gpus(target: str) -> tuple[GPU, ...]:
    """The known GPUs that run a target's code."""
    return tuple(gpu for gpu in known().values() if gpu.target == target)


def limit(gpu: GPU, n_bytes: float, instructions: float) -> Limit:
    """For so many bytes and instructions a parameter."""
    cores = multiprocessor(gpu.target)
    assert cores
    issuable = n_bytes * cores.lanes * gpu.multiprocessors * gpu.clock / gpu.bandwidth
    share = min(1.0, issuable / instructions)
    return Limit(gpu.name, issuable, "arithmetic" if share < 1 else "memory", n_bytes / gpu.bandwidth / share * 1e9, share)
