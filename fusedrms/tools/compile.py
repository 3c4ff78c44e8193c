"""fusedrms compile: fills the compilers' disk caches, so that the first step of a job finds its kernels there."""

import argparse
import functools
import json
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track

from ..engine.tables import configs
from ..kernels import caches, devices, lang, launch
from ..kernels.rules import columns
from ..kernels.tables import dtype_of
from . import printing
from .errors import UserError
from .variants import FORM, OWN_RULE, RULES, Variant, check, make, parse_mode, variant, words

USUAL = ["float32", "bfloat16", "bfloat16+stochastic", "bfloat16+split+8bit"]


class Asked(NamedTuple):
    """Which kernels: each rule and mode for each target."""

    targets: tuple[str, ...]
    rules: tuple[str, ...]
    modes: tuple[str, ...]


class Job(NamedTuple):
    """One kernel, or the few that a step with it launches."""

    target: str
    what: str
    run: Callable[[], None]


Ended = Generator[tuple[int, Callable[[], float]], None, None]  # of jobs


def _step(rule: str, mode: str, device: torch.device, aligned: bool) -> None:
    """One step of a few elements, with all launches that a step can have."""
    dtype = parse_mode(mode)[0]
    first = 0 if aligned else 1
    param = torch.nn.Parameter(torch.zeros(128, device=device, dtype=dtype)[first:])
    param.grad = torch.zeros(128, device=device, dtype=dtype)[first:]
    optimizer = make(rule, mode, [param])
    optimizer.param_groups[0].update(clip_grad_norm=1.0, capturable=True)
    optimizer.step()


def here(wanted: list[Variant], device: torch.device) -> Iterator[tuple[str, Callable[[], None]]]:
    """What compiles each variant for a device of this machine, by name."""
    for name, mode, storage, rule in wanted:
        if device.type == "cpu":  # which runs the same code at any address
            yield f"{rule}, {mode}", lambda rule=rule, mode=mode: _step(rule, mode, device, True)
            continue
        for aligned in (True, False):
            rows = configs.rows_for(configs.device_name(device))
            tuned = {row.config for key, row in rows.items() if key[:3] == (name, storage.label, aligned)}
            tuned = {config for config in tuned if configs.unusable(config, device, storage) is None}
            for config in sorted({launch.default_config(device, storage), *tuned}):

                def run(rule=rule, mode=mode, aligned=aligned, config=config):
                    with configs.forced(config):
                        _step(rule, mode, device, aligned)

                yield f"{rule}, {mode}, {'aligned' if aligned else 'unaligned'}", run


class _Absent:
    """Stands in for Triton's driver of a GPU that is not here; the compiler asks it only for the target."""

    def __init__(self, target):
        self.get_current_target = lambda: target
        self.get_current_device = lambda: target  # by which compiled kernels are kept apart
        self.get_current_stream = lambda device: 0


def warm(kernel: Any, constants: dict[str, Any], target: Any, arguments: dict[str, Any] | None = None, compute: str = "float32") -> Any:
    """What a launch on a GPU of a target compiles, that need not be here.

    Args:
        kernel: of kernels/gpu.
        constants: what it is compiled for.
        target: of target_of().
        arguments: its tensors and integers, by name; by default the dtypes of its tables, and numbers.
        compute: the dtype of hyperparameters.
    """
    from triton import runtime

    names = [name for name in kernel.arg_names if name not in constants]
    values = [_argument(name, compute) if arguments is None else arguments[name] for name in names]
    driver: Any = runtime.driver
    driver.set_active(_Absent(target))
    try:
        return caches.loaded(kernel, lambda: kernel.warmup(*values, grid=(1,), **constants))
    finally:
        driver.set_active(None)  # the next launch looks for the real one


def _argument(name: str, compute: str) -> Any:
    """In place of an argument: the dtype of a tensor, or a number."""
    return getattr(torch, dtype_of(name.removesuffix("_ptr"), compute)) if name.endswith("_ptr") else 1024


def elsewhere(wanted: list[Variant], name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """What compiles each variant for a target that need not be here, by the way that a launch there takes."""
    from .machine_code import target_of

    target = target_of(name)
    from ..kernels.gpu.agreement import agreement_kernel
    from ..kernels.gpu.count import count_kernel
    from ..kernels.gpu.norm import norms_kernel, squares_kernel
    from ..kernels.gpu.step import step_kernel

    yield "norms", lambda: warm(norms_kernel, launch.norms_constants(), target)
    yield "count", lambda: warm(count_kernel, launch.count_constants(), target)
    for name, mode, storage, rule in wanted:
        for aligned in (True, False):

            def run(rule=name, storage=storage, aligned=aligned):
                made = rule, storage, aligned, launch.gpu_config(storage), target.warp_size
                warm(step_kernel, launch.constants(*made), target, compute=storage.compute)
                if storage.cautious:
                    warm(agreement_kernel, launch.agreement_constants(*made), target, compute=storage.compute)
                squares = launch.squares_constants(storage.dtypes[0][0], aligned, len(columns(rule)))
                warm(squares_kernel, squares, target, compute=storage.compute)

            yield f"{rule}, {mode}, {'aligned' if aligned else 'unaligned'}", run


def jobs(asked: Asked) -> list[Job]:
    """In the same order in every process.

    Raises:
        UserError: a target that is not known, or not here.
    """
    wanted = [variant(rule, mode) for mode in asked.modes for rule in asked.rules]
    made: list[Job] = []
    for target in asked.targets:
        if target in ("cpu", *devices.KINDS):
            try:
                found = devices.gpus(target) or [devices.find(target)]
            except LookupError as error:
                raise UserError(f"--target {target}: {error}; for a GPU of another machine give its architecture, such as sm_90") from None
            named = [job for device in found for job in here(wanted, device)]
        else:
            named = list(elsewhere(wanted, target))
        made += [Job(target, what, run) for what, run in named]
    return made


def seconds(job: Job) -> float:
    """How long it takes to compile.

    Raises:
        OSError: the result could not be kept.
    """
    start = time.perf_counter()
    job.run()
    if problem := caches.unusable.get(caches.NUMBA if job.target == "cpu" else caches.TRITON):
        raise OSError(problem)
    return time.perf_counter() - start


_known = functools.cache(jobs)  # of a process that compiles many of them


def _nth(asked: Asked, n: int) -> float:
    return seconds(_known(asked)[n])


def _left_alone() -> None:
    """Ctrl-C comes to all processes of a terminal: the first one answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def in_processes(asked: Asked, n_jobs: int, n_processes: int) -> Ended:
    """The number of each job as it ends, and what returns its seconds or raises its error; closing it ends those under way."""
    spawn = multiprocessing.get_context("spawn")  # a fork would take over a GPU's driver
    with ProcessPoolExecutor(n_processes, spawn, _left_alone) as pool:
        try:
            futures = {pool.submit(_nth, asked, n): n for n in range(n_jobs)}
            for future in as_completed(futures):
                yield futures[future], future.result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def one_by_one(work: list[Job]) -> Ended:
    """The same in this process."""
    for n, job in enumerate(work):
        yield n, functools.partial(seconds, job)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        type=words,
        metavar="TARGET,...",
        help=f"what to compile for: cpu, {', '.join(devices.KINDS)} (the GPUs of this machine), or GPUs of other machines: sm_80, sm_90, "
        "sm_100, gfx942 (default: all devices of this machine)",
    )
    parser.add_argument(
        "--rules", type=words, default=list(RULES), metavar="RULE,...", help=f"update rules: {', '.join(RULES)} (default: all), {OWN_RULE}"
    )
    parser.add_argument(
        "--dtypes", type=words, default=USUAL, metavar="MODE,...", help=f"precision modes, each {FORM} (default: {', '.join(USUAL)})"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="how many processes compile at the same time (default: %(default)s)"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    check(args.rules, args.dtypes)
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: give a number of at least 1")
    if lang.interpreted():
        raise UserError("TRITON_INTERPRET is set, and the interpreter compiles nothing: unset it")
    targets = args.target or ["cpu", *dict.fromkeys(device.type for device in devices.gpus())]
    asked = Asked(tuple(targets), tuple(args.rules), tuple(args.dtypes))
    work = jobs(asked)
    took: dict[int, float] = {}
    failed: dict[int, Exception] = {}
    with closing(one_by_one(work) if args.jobs == 1 else in_processes(asked, len(work), args.jobs)) as ended:
        for n, result in track(ended, "compiling", total=len(work), console=printing.for_progress(console, not args.json)):
            try:
                took[n] = result()
            except Exception as error:
                failed[n] = error
    if failed:
        traceback.print_exception(next(iter(failed.values())))
    for n, error in failed.items():
        print(f"fusedrms compile: {work[n].target}: {work[n].what}: {type(error).__name__}: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps([dict(target=work[n].target, what=work[n].what, seconds=round(took[n], 3)) for n in sorted(took)], indent=1))
    else:
        slow = sum(each > 0.5 for each in took.values())
        console.print(f"{len(took)} kernels in {sum(took.values()):.0f} s, {slow} of them not yet in the caches")
    return int(bool(failed))
