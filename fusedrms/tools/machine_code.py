"""Compiles kernels for targets that need not be here, and reads what came out: registers, spills, the unmasked loop."""

import functools
import inspect
import itertools
import re
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

from ..kernels import lang, launch
from ..kernels.storage import Storage
from ..kernels.tables import dtype_of
from .errors import UserError

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


class Code(NamedTuple):
    """What a kernel became on a GPU."""

    registers: int  # a thread
    spilled: int  # bytes of stack and local memory, or spilled registers
    shared: int  # bytes a program
    loop: list[str]  # opcodes of the unmasked loop
    accesses: list[int]  # bytes a thread reads or writes at once in it


class Instruction(NamedTuple):
    opcode: str
    operands: str
    target: int | None  # the number of the instruction that it may jump to


def target_of(name: str) -> Any:
    """Triton's GPUTarget of a name such as sm_90 or gfx942.

    Raises:
        UserError: there is no such target, or nothing that compiles for it.
    """
    if lang.interpreted():
        raise UserError("TRITON_INTERPRET is set, and the interpreter compiles nothing: unset it")
    kind = re.fullmatch(r"sm_(\d{2,3})|gfx(90[0-9a-c]|9[45]\d|1[0-2]\d\d)", name)
    if not kind:
        raise UserError(f"target {name!r} is unknown: it must be cpu, or have the form sm_NN or gfxNNN, such as {', '.join(TARGETS)}")
    if lang.triton is None:
        raise UserError(f"target {name}: Triton compiles kernels for GPUs, and exists on Linux only: use the target cpu")
    from triton.backends.compiler import GPUTarget

    if not kind[1]:
        return GPUTarget("hip", name, 64 if name.startswith("gfx9") else 32)
    known = set(re.findall(r"'(sm_\d+)'", _run(_ptxas(int(kind[1])), "--help")))
    if name not in known:  # LLVM would abort this process
        raise UserError(f"target {name} is unknown to this Triton: take one of {', '.join(sorted(known, key=lambda n: int(n[3:])))}")
    return GPUTarget("cuda", int(kind[1]), 32)


def _path(find: Callable[[], Any]) -> str:
    """Of one of Triton's tools."""
    try:
        return find().path
    except RuntimeError as error:  # Cannot find ptxas-blackwell
        name = str(error).split()[-1]
        variable = f"TRITON_{name.replace('-', '_').upper()}_PATH"
        raise UserError(f"{name} is missing: reinstall triton, which brings it, or set {variable} to the path of CUDA's") from None


def _tool(name: str) -> str:
    from triton import knobs

    return _path(lambda: getattr(knobs.nvidia, name))


def _ptxas(number: int) -> str:
    """The one that Triton compiles for an architecture with; it has had two since 3.6, and divides them otherwise since 3.9."""
    from triton.backends.nvidia.compiler import get_ptxas

    return _path(lambda: get_ptxas(*[number][: len(inspect.signature(get_ptxas).parameters)]))


@functools.cache
def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _type(name: str, compute: str) -> str:
    """What Triton calls the type of an argument that is no constant."""
    if not name.endswith("_ptr"):
        return "i32"
    return "*" + dtype_of(name.removesuffix("_ptr"), compute).replace("int", "i").replace("float", "fp")


def build(kernel: Any, constants: dict[str, Any], target: Any, compute: str = "float32") -> Any:
    """A kernel compiled for a target, from Triton's disk cache if it is there.

    Args:
        kernel: a function of fusedrms.kernels.
        constants: what it is compiled for, of launch.py.
        target: of target_of().
        compute: the dtype of hyperparameters.

    Raises:
        UserError: Triton cannot.
    """
    from triton import compile
    from triton.compiler import ASTSource

    constants = dict(constants)
    options = {name: constants.pop(name) for name in ("num_warps", "maxnreg", "enable_fp_fusion") if name in constants}
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        signature={name: "constexpr" if name in constants else _type(name, compute) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    try:
        return compile(source, target=target, options=options)
    except Exception as error:
        name = f"sm_{target.arch}" if target.backend == "cuda" else target.arch
        raise UserError(f"Triton cannot compile {kernel.__name__} for {name}: {str(error).splitlines()[0]}") from error


def step_constants(rule: str, storage: Storage, aligned: bool, target: Any) -> dict[str, Any]:
    """What the step of a rule is compiled for there, where nobody has tuned it."""
    config = launch.gpu_config(storage)
    return launch.constants(rule, storage, aligned, config, 64 if target.backend == "hip" else 32)


def disassembled(binary: Any) -> str:
    """The text of a kernel's machine code: SASS, or AMD's."""
    if "cubin" not in binary.asm:
        return binary.asm["amdgcn"]
    return _of_cubin(binary.asm["cubin"], "nvdisasm", "--print-code", "--no-dataflow")  # half of the time that cuobjdump takes


def _of_cubin(cubin: bytes, tool: str, *options: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return _run.__wrapped__(_tool(tool), *options, file.name)


def read(binary: Any) -> Code:
    """What build() gave."""
    text, shared = disassembled(binary), binary.metadata.shared
    if "cubin" not in binary.asm:
        return read_amdgcn(text, shared)
    return read_sass(_of_cubin(binary.asm["cubin"], "cuobjdump", "--dump-resource-usage"), text, shared)


def instructions(text: str) -> list[Instruction]:
    """Those of an assembly text, in its order: SASS, AMD's, x86's or ARM's."""
    lines, labels = [], {}
    for line in text.splitlines():
        if label := re.match(r"([.\w]+):", line):
            labels[label[1]] = len(lines)
        elif found := re.match(r"\s+(?:/\*[0-9a-f]{4,}\*/\s+)?(?:@!?U?P\w+\s+)?([A-Za-z][\w.]*)(?:\s+([^;#]*)|;|$)", line):
            lines.append((found[1], (found[2] or "").strip()))
    jumps = re.compile(r"BRA|s_c?branch|j|b$|b\.|[ct]bn?z")
    return [
        Instruction(opcode, operands, next((labels[word] for word in re.findall(r"[.\w]+", operands) if word in labels), None))
        if jumps.match(opcode)
        else Instruction(opcode, operands, None)
        for opcode, operands in lines
    ]


def loops(code: list[Instruction]) -> list[list[Instruction]]:
    """From the target of each backward jump to the jump; a jump to itself, which pads the end of SASS, is none."""
    return [code[one.target : number + 1] for number, one in enumerate(code) if one.target is not None and one.target < number]


def _first_loop(text: str) -> list[str]:
    found = loops(instructions(text))
    if not found:
        raise UserError("no loop was found in the machine code: please report it, with the files that --asm writes")
    return [one.opcode for one in found[0]]


def read_sass(usage: str, sass: str, shared: int) -> Code:
    """Of what cuobjdump says of resources and nvdisasm of the code."""
    used = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    loop = _first_loop(sass)
    widths = [re.search(r"\.[US]?(8|16|64|128|256)\b", opcode) for opcode in loop if opcode.startswith(("LDG", "STG"))]
    local = sum(opcode.startswith(("LDL", "STL")) for opcode in loop)
    return Code(used["REG"], used["STACK"] + used["LOCAL"] + local, shared, loop, [int(w[1]) // 8 if w else 4 for w in widths])


_AMD_BYTES = dict(byte=1, ubyte=1, sbyte=1, short=2, ushort=2, sshort=2, dword=4, dwordx2=8, dwordx3=12, dwordx4=16)
_AMD_BYTES |= {f"{sign}{bits}": bits // 8 for sign, bits in itertools.product("biu", (8, 16, 32, 64, 96, 128))}  # of gfx11 and later


def read_amdgcn(text: str, shared: int) -> Code:
    def metadata(key: str) -> int:
        return sum(map(int, re.findall(rf"\.{key}:\s+(\d+)", text)))

    loop = _first_loop(text)
    kinds = [
        match[1] for opcode in loop if (match := re.match(r"(?:global|buffer|flat)_(?:load|store)_(?:d16_(?:hi_)?)?(\w+?)(?:_|$)", opcode))
    ]
    spilled = metadata("vgpr_spill_count") + metadata("sgpr_spill_count") + metadata("private_segment_fixed_size")
    return Code(metadata("vgpr_count"), spilled, shared, loop, [_AMD_BYTES[kind] for kind in kinds])
