"""Compiles a kernel for a GPU that is not here, and reads what came out: registers, spills, the unmasked loop."""

import pathlib
import re
import subprocess
import tempfile
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class Code(NamedTuple):
    registers: int  # a thread
    spilled: int  # bytes of local memory, or spilled registers
    loop: list[str]  # opcodes of the unmasked loop
    accesses: list[int]  # bytes a thread reads or writes at once in it


def compiled(kernel, signature: dict[str, str], constants: dict, target: GPUTarget) -> Code:
    constants = dict(constants)
    options = {name: constants.pop(name) for name in ("num_warps", "maxnreg") if name in constants}
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        signature={name: signature.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    asm = triton.compile(source, target=target, options=options).asm
    return _read_sass(asm["cubin"]) if target.backend == "cuda" else _read_amdgcn(asm["amdgcn"])


def _cuobjdump(cubin: bytes, option: str) -> str:
    tool = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout


def _loop(code: list[tuple[int, str, int | None]]) -> list[str]:
    """Opcodes of the first loop, from the target of a backward branch to the branch; code is (address, opcode, branch target)."""
    last, first = min((address, target) for address, _, target in code if target is not None and target < address)
    return [opcode for address, opcode, _ in code if first <= address <= last]


def _read_sass(cubin: bytes) -> Code:
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", _cuobjdump(cubin, "--dump-resource-usage")))
    code = []
    for address, opcode, rest in re.findall(
        r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)([^;]*);", _cuobjdump(cubin, "--dump-sass")
    ):
        target = re.search(r"\b0x([0-9a-f]+)", rest) if opcode.startswith("BRA") else None
        # a branch to itself pads the end of the code
        code.append((int(address, 16), opcode, int(target[1], 16) if target and target[1] != address.lstrip("0") else None))
    loop = _loop(code)
    accesses = [int((re.search(r"\.[US]?(8|16|64|128)\b", op) or [0, 32])[1]) // 8 for op in loop if op.startswith(("LDG", "STG"))]
    local = sum(opcode.startswith(("LDL", "STL")) for opcode in loop)
    return Code(int(usage["REG"]), int(usage["STACK"]) + int(usage["LOCAL"]) + local, loop, accesses)


def _read_amdgcn(text: str) -> Code:
    def metadata(key):
        return int(re.search(rf"\.{key}:\s+(\d+)", text)[1])

    labels, code, address = {}, [], 0
    for line in text.splitlines():
        if label := re.match(r"(\.?\w+):", line):
            labels[label[1]] = address
        elif op := re.match(r"\t([a-z]\w+)\s*([^;]*)", line):
            code.append((address, op[1], op[2].strip()))
            address += 1
    branches = [(at, op, labels.get(rest) if op.startswith(("s_cbranch", "s_branch")) else None) for at, op, rest in code]
    loop = _loop(branches)
    width = {"dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16, "ushort": 2, "short": 2, "ubyte": 1, "byte": 1}
    accesses = [width.get(op.split("_")[2], 2) for op in loop if re.match(r"(global|buffer)_(load|store)_", op)]
    return Code(
        metadata("vgpr_count"),
        metadata("vgpr_spill_count") + metadata("sgpr_spill_count") + metadata("private_segment_fixed_size"),
        loop,
        accesses,
    )
