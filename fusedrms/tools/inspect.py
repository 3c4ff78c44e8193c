"""fusedrms inspect: what the kernels become, for devices that need not be here, and what limits them there."""

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.progress import track
from rich.table import Table

from ..kernels.storage import ITEMSIZE, Storage
from . import cpu_code, files, machine_code, printing
from .errors import UserError
from .machine_code import TARGETS, Code, target_of
from .roofline import Limit, gpus, limit, multiprocessor
from .variants import FORM, MODES, OWN_RULE, RULES, Variant, check, find, variant, words

USUAL = ("float32", "bfloat16", "bfloat16+stochastic", "bfloat16+split+8bit")
GPUS = ", ".join(TARGETS)
FEW = 8  # kernels are compiled before another process has imported torch


class Row(NamedTuple):
    """What the step of a rule in a mode became for a target; None: not known, or nothing that such a target has."""

    rule: str
    mode: str
    target: str
    aligned: bool  # every address is a multiple of 16 bytes
    n_bytes: float  # that a step reads and writes for each parameter
    instructions: float | None  # of the first unmasked loop, a parameter; on AMD's GPUs those of vector arithmetic, which take turns
    widths: tuple[int, ...]  # bytes that are read or written at once; of a vector on a CPU
    vectorised: bool  # as wide as the addresses allow, and nothing is read or written twice
    registers: int | None  # a thread
    spilled: int | None  # bytes of stack and local memory, or spilled registers; on a CPU accesses to the stack, which are usual
    shared: int | None  # bytes a program
    occupancy: float | None  # share of the warps that a multiprocessor can hold
    limits: tuple[Limit, ...]  # on each known GPU

    @property
    def problems(self) -> list[str]:
        spills = [f"spills {self.spilled} bytes or registers"] if self.spilled and self.target != "cpu" else []
        return spills + ([] if self.vectorised else [f"accesses memory {list(self.widths)} bytes at a time"])


def is_vectorised(code: Code, storage: Storage, n: int, aligned: bool) -> bool:
    """Whether a thread accesses each row for its n elements at once; by element where only that divides the addresses."""
    expected = Counter()
    for name in storage.streams:
        width = min(16, n * ITEMSIZE[name]) if aligned else ITEMSIZE[name]
        expected[width] += n * ITEMSIZE[name] // width
    found = Counter(code.accesses)
    columns = storage.n_columns if storage.measured else 0  # of the row that a block writes
    # of 4 bytes, read and written once by a thread for all of its elements, or for each where these do not lie side by side; AMD's
    # compiler reads four of them at once, which needs no more of the address there
    others, allowed = found - expected, {4, 16} if any(opcode.startswith("global_") for opcode in code.loop) else {4}
    allowed |= {ITEMSIZE[storage.compute]} if columns else set()
    scales = 2 * len(storage.quantized) * (1 if aligned else n)
    return not expected - found and set(others) <= allowed and others.total() <= scales + columns


def _build(one: Variant, name: str, aligned: bool) -> tuple[Any, dict[str, Any], Any]:
    target = target_of(name)
    from ..kernels.gpu.step import step_kernel

    constants = machine_code.step_constants(one.rule, one.storage, aligned, target)
    return machine_code.build(step_kernel, constants, target, one.storage.compute), constants, target


def row(one: Variant, name: str, aligned: bool) -> Row:
    """What one variant becomes for a target."""
    known = dict(rule=one.asked, mode=one.mode, target=name, aligned=aligned, n_bytes=one.storage.traffic)
    return Row(**known, **(_on_cpu(one) if name == "cpu" else _on_gpu(one, name, aligned)))


def _row_elsewhere(one: Variant, name: str, aligned: bool) -> Row:
    """The same in another process, which may not know a rule of the user's yet."""
    find(one.asked)
    return row(one, name, aligned)


def _on_cpu(one: Variant) -> dict[str, Any]:
    """The fields of a Row that say what was compiled for this machine's CPU."""
    step, signature = cpu_code.build(one.rule, one.storage)
    code = cpu_code.read(step.inspect_asm(signature), one.storage)
    return dict(
        instructions=code.per_param,
        widths=(code.width,) if code.width else (),
        vectorised=code.width != 0,
        registers=None,
        spilled=code.stack,
        shared=None,
        occupancy=None,
        limits=(),
    )


def _on_gpu(one: Variant, name: str, aligned: bool) -> dict[str, Any]:
    """The same for a GPU's target."""
    binary, constants, target = _build(one, name, aligned)
    code, threads = machine_code.read(binary), constants["num_warps"] * target.warp_size
    n, cores = constants["BLOCK"] // threads, multiprocessor(name)
    each = (cores.issued(code) if cores else len(code.loop)) / n
    return dict(
        instructions=each,
        widths=tuple(sorted(set(code.accesses))),
        vectorised=is_vectorised(code, one.storage, n, aligned),
        registers=code.registers,
        spilled=code.spilled,
        shared=code.shared,
        occupancy=cores and cores.resident(code, threads) / cores.warps,
        limits=tuple(limit(gpu, one.storage.traffic, each) for gpu in gpus(name)),
    )


def rows(rules: Sequence[str], modes: Sequence[str], targets: Sequence[str], aligned: bool = True) -> Iterator[Row]:
    """One for each rule, mode and target, compiled by several processes where it pays; so a script needs `if __name__ == "__main__"`.

    Raises:
        UserError: a rule, mode or target that does not exist, or that cannot be compiled here.
    """
    check(rules, modes)
    for target in targets:
        if target != "cpu":
            target_of(target)
    jobs = [(variant(rule, mode), target, aligned or target == "cpu") for target in targets for mode in modes for rule in rules]
    n_processes = min(os.cpu_count() or 1, len(jobs) // FEW)
    if n_processes < 2:
        yield from (row(*job) for job in jobs)
        return
    with ProcessPoolExecutor(n_processes, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(_row_elsewhere, *zip(*jobs, strict=True))
        except BrokenProcessPool:
            raise UserError("a compiler has ended its process: give one rule, mode and target to see its message") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _widths(row: Row) -> str:
    return "/".join(map(str, row.widths)) or ("?" if row.vectorised else "none")


def _optional(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def table(rows: Iterable[Row]) -> Group:
    """A table for each target, to be printed."""
    shown: dict[str, Table] = {}
    for row in rows:
        if row.target not in shown:
            on_cpu = row.target == "cpu"
            table = shown[row.target] = Table(title=row.target + ("" if row.aligned else ", unaligned"), title_justify="left")
            for header in ("rule", "mode"):
                table.add_column(header)
            own = ("vector", "stack") if on_cpu else ("widths", "regs", "spilled", "shared", "occupancy")
            for header in ("bytes", "instr", *own, *(one.gpu for one in row.limits)):
                table.add_column(header, justify="right")
        cells = [f"{row.n_bytes:g}", _optional(row.instructions, ".1f"), _widths(row)]
        cells += [] if row.target == "cpu" else [_optional(row.registers, "d")]
        cells += [_optional(row.spilled, "d")]
        cells += [] if row.target == "cpu" else [_optional(row.shared, "d"), _optional(row.occupancy, ".0%")]
        cells += [f"{one.issuable:.0f} {one.by} {one.ns * 1e3:.2f}" for one in row.limits]
        shown[row.target].add_row(row.rule.rpartition(":")[2], row.mode, *cells, style="red" if row.problems else None)
    return Group(*shown.values())


LEGEND = (
    "bytes, instr: what a step moves and executes for each parameter. regs: registers of a thread. Red: registers are spilled, or memory"
    " is not accessed as widely as it could be. Under a GPU's name: how many instructions it can issue while its memory moves those bytes;"
    " what limits a step there, memory or arithmetic; picoseconds for each parameter, or milliseconds for a billion. 8-bit states have two"
    " loops on GPUs; the one for options that are off is counted."
)


def as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    return [{**row._asdict(), "limits": [one._asdict() for one in row.limits], "problems": row.problems} for row in rows]


@contextlib.contextmanager
def _writing(directory: pathlib.Path) -> Iterator[None]:
    """Say what --asm can do about a directory, made if need be, that cannot be written."""
    try:
        files.check_folder(directory)
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        wrong = pathlib.Path(error.filename or directory)
        raise UserError(f"--asm {directory}: {wrong} cannot be written ({error.strerror}): name another folder") from None


def dump(rule: str, mode: str, target: str, directory: pathlib.Path, aligned: bool = True) -> list[pathlib.Path]:
    """Write the machine code and what it was made from; the files' paths."""
    one = variant(rule, mode)
    if target == "cpu":
        step, signature = cpu_code.build(one.rule, one.storage)
        texts = {"ll": step.inspect_llvm(signature), "s": step.inspect_asm(signature)}
    else:
        binary = _build(one, target, aligned)[0]
        texts = {"ll": binary.asm["llir"], **{kind: binary.asm[kind] for kind in ("ttgir", "ptx") if kind in binary.asm}}
        texts["sass" if "cubin" in binary.asm else "amdgcn"] = machine_code.disassembled(binary)
    with _writing(directory):
        paths = []
        for kind, text in texts.items():
            paths.append(directory / f"{one.rule}.{mode}.{target}{'' if aligned else '.unaligned'}.{kind}")
            files.write(paths[-1], text)
    return paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    choices = {
        "--target": f"what to compile for: cpu (this machine's), {GPUS}, or another sm_NN or gfxNNN (default: {GPUS})",
        "--rule": f"update rules: {', '.join(RULES)} (default: all), {OWN_RULE}",
        "--mode": f"precision modes: all, or each {FORM} (default: {', '.join(USUAL)})",
    }
    for name, text in choices.items():
        parser.add_argument(name, f"{name}s", type=words, action="extend", metavar=f"{name[2:].upper()},...", help=text)
    parser.add_argument(
        "--unaligned", action="store_true", help="show the kernels for tensors whose addresses are no multiples of 16 bytes"
    )
    parser.add_argument("--asm", type=files.place, metavar="DIR", help="also write machine code, PTX and LLVM IR into this folder")


def run(args: argparse.Namespace, console: Console) -> int:
    targets = TARGETS if args.target is None else args.target
    rules = tuple(RULES) if args.rule is None else args.rule
    modes = MODES if args.mode == ["all"] else USUAL if args.mode is None else args.mode
    if not targets:
        raise UserError("--target: give at least one")
    if args.asm is not None:
        with _writing(args.asm):  # before anything is compiled
            pass
    n = len(rules) * len(modes) * len(targets)
    work = rows(rules, modes, targets, aligned=not args.unaligned)
    progress = printing.for_progress(console, console.is_terminal and not args.json)
    found = list(track(work, "compiling", total=n, console=progress, transient=True))
    if args.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        console.print(table(found), LEGEND, highlight=False)
        for one in found:
            for problem in one.problems:
                console.print(f"{one.rule}, {one.mode}, {one.target}: {problem}", style="red", highlight=False, soft_wrap=True)
    if args.asm is not None:
        written = [path for one in found for path in dump(one.rule, one.mode, one.target, args.asm, one.aligned)]
        if not args.json:
            console.print(f"{len(written)} files written to {args.asm}", highlight=False, soft_wrap=True)
    return int(any(one.problems for one in found))
