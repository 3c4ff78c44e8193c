"""fusedrms compile: fills the compilers' disk caches, so that the first step of a job finds its kernels there."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from . import autotune
from .kernels import devices, lang, launch
from .options import UserError
from .variants import MODES, RULES, Variant, check, make, parse_mode, variant, words

USUAL = ["float32", "bfloat16", "bfloat16+stochastic", "bfloat16+split+8bit"]


def _step(rule: str, mode: str, device: torch.device, aligned: bool) -> None:
    """One step of a few elements, with all launches that a step can have."""
    dtype = parse_mode(mode)[0]
    first = 0 if aligned else 1
    param = torch.nn.Parameter(torch.zeros(128, device=device, dtype=dtype)[first:])
    param.grad = torch.zeros(128, device=device, dtype=dtype)[first:]
    optimizer = make(rule, mode, [param])
    optimizer.param_groups[0]["clip_grad_norm"] = 1.0
    optimizer.step()


def here(wanted: list[Variant], device: torch.device) -> Iterator[tuple[str, Callable[[], None]]]:
    """What compiles each variant for a device of this machine, by name."""
    for rule, mode, storage, _ in wanted:
        if device.type == "cpu":  # which runs the same code at any address
            yield f"{rule}, {mode}", lambda rule=rule, mode=mode: _step(rule, mode, device, True)
            continue
        for aligned in (True, False):
            rows = autotune.rows_for(autotune.device_name(device))
            tuned = {row.config for key, row in rows.items() if key[:3] == (rule, storage.label, aligned)}
            for config in {launch.default_config(device, storage, aligned), *tuned}:

                def run(rule=rule, mode=mode, aligned=aligned, config=config):
                    with autotune.forced(config):
                        _step(rule, mode, device, aligned)

                yield f"{rule}, {mode}, {'aligned' if aligned else 'unaligned'}", run


class _Absent:
    """Stands in for Triton's driver of a GPU that is not here; the compiler asks it only for the target."""

    def __init__(self, target):
        self.get_current_target = lambda: target
        self.get_current_device = lambda: target  # by which compiled kernels are kept apart
        self.get_current_stream = lambda device: 0


def warm(kernel: Any, arguments: tuple, constants: dict[str, Any], target: Any) -> Any:
    """What a launch on a GPU of a target compiles, that need not be here; arguments: tensors, dtypes in their place, and integers."""
    from triton import runtime

    driver: Any = runtime.driver
    driver.set_active(_Absent(target))
    try:
        return kernel.warmup(*arguments, grid=(1,), **constants)
    finally:
        driver.set_active(None)  # the next launch looks for the real one


def elsewhere(wanted: list[Variant], name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """What compiles each variant for a target that need not be here, by the way that a launch there takes."""
    from .machine_code import target_of

    target = target_of(name)
    from .kernels.norm import norms_kernel, squares_kernel
    from .kernels.step import step_kernel

    i32, i64, f64 = torch.int32, torch.int64, torch.float64
    yield "norms", lambda: warm(norms_kernel, (i64, f64, f64), launch.norms_constants(), target)
    for rule, mode, storage, n_hyper in wanted:
        hyper = getattr(torch, storage.compute)
        for aligned in (True, False):
            config = launch.gpu_config(storage, aligned)
            tables = i64, i64, i32, i32, i64, hyper

            def run(rule=rule, storage=storage, aligned=aligned, config=config, n_hyper=n_hyper, tables=tables):
                constants = launch.constants(rule, storage, aligned, n_hyper, config, target.warp_size)
                warm(step_kernel, (*tables, i32, i32, i64, 1, 1, config.chunk, f64), constants, target)
                squares = launch.squares_constants(storage.dtypes[0][0], aligned, n_hyper)
                warm(squares_kernel, (*tables, i64, f64, 1, f64), squares, target)

            yield f"{rule}, {mode}, {'aligned' if aligned else 'unaligned'}", run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        type=words,
        metavar="TARGET,...",
        help=f"of cpu, {', '.join(devices.KINDS)} (the GPUs here), sm_80, sm_90, sm_100, gfx942 (which need not be here); "
        "default: all devices here",
    )
    parser.add_argument("--rules", type=words, default=list(RULES), metavar="RULE,...", help=f"of {', '.join(RULES)} (default: all)")
    parser.add_argument(
        "--dtypes", type=words, default=USUAL, metavar="MODE,...", help=f"of {', '.join(MODES)} (default: {','.join(USUAL)})"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    check(args.rules, args.dtypes)
    if lang.interpreted():
        raise UserError("TRITON_INTERPRET is set: the interpreter compiles nothing; unset it")
    wanted = [variant(rule, mode) for mode in args.dtypes for rule in args.rules]
    work: list[tuple[str, str, Callable[[], None]]] = []
    for target in args.target or ["cpu", *dict.fromkeys(device.type for device in devices.gpus())]:
        if target in ("cpu", *devices.KINDS):
            try:
                found = devices.gpus(target) or [devices.find(target)]
            except LookupError as error:
                raise UserError(f"--target {target}: {error}; name its target, such as sm_90") from None
            jobs = [job for device in found for job in here(wanted, device)]
        else:
            jobs = list(elsewhere(wanted, target))
        work += [(target, what, job) for what, job in jobs]
    took = []
    for target, what, job in track(work, "compiling", console=console, disable=args.json):
        start = time.perf_counter()
        job()
        took.append(dict(target=target, what=what, seconds=round(time.perf_counter() - start, 3)))
    if args.json:
        print(json.dumps(took, indent=1))
    else:
        slow = sum(row["seconds"] > 0.5 for row in took)
        console.print(f"{len(took)} kernels in {sum(row['seconds'] for row in took):.0f} s, of which {slow} not in the caches before")
    return 0
