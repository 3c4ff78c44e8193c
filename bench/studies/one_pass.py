"""What else a step does while values are in registers: its bytes, instructions and time, beside passes of their own.

    python -m bench.studies.one_pass [--numel 16777216] [--rounds 15] [--output bench/results]

On the CPU: steps of two float32 tensors with and without each option, and the same by torch's operations, one after the other in each
round; times are medians, ratios those of a round's neighbours. For sm_90: instructions of the compiled loop for each parameter. Writes
one_pass.json.
"""

# pyright: reportPrivateImportUsage=false

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from bench.common.arguments import check_output, make_parser, writing
from bench.common.machine import machine
from bench.common.store import dumped, short
from bench.common.text import figure, table
from fusedrms import FusedRMSProp
from fusedrms.kernels import devices, launch
from fusedrms.kernels.lang import interpreted
from fusedrms.kernels.storage import Storage
from fusedrms.tools import machine_code
from fusedrms.tools.files import write
from fusedrms.tools.roofline import multiprocessor
from fusedrms.tools.variants import variant

TARGET = "sm_90"
Step = Callable[[], Any]
Params = list[torch.nn.Parameter]


class Case(NamedTuple):
    name: str
    rule: str
    options: dict[str, Any]
    bytes: float  # that the step moves more for each parameter
    apart: Callable[[Params, FusedRMSProp], Step]  # the step with the same by torch's operations
    apart_bytes: float
    mode: str | None = None  # of variants.py, with this option


def _average(params: Params, optimizer: FusedRMSProp) -> Step:
    values, averages = [p.detach() for p in params], [p.detach().clone() for p in params]

    def step() -> None:
        optimizer.step()
        torch._foreach_lerp_(averages, values, 1e-4)

    return step


def _statistics(params: Params, optimizer: FusedRMSProp) -> Step:
    values = [p.detach() for p in params]

    def step() -> object:
        before, grads = [value.clone() for value in values], [p.grad for p in params if p.grad is not None]
        optimizer.step()
        torch._foreach_sub_(before, values)
        norms = [torch._foreach_norm(of) for of in (grads, before, values, [optimizer.state[p]["square_avg"] for p in params])]
        shares = [((grad == 0).sum(), (~grad.isfinite()).sum(), torch.linalg.vector_norm(grad, torch.inf)) for grad in grads]
        return norms, shares

    return step


def _caution(params: Params, optimizer: FusedRMSProp) -> Step:
    """The whole step by foreach: an update that was applied cannot be taken back."""
    values, square_avgs, buffers = ([p.detach() for p in params], *([torch.zeros_like(p) for p in params] for _ in range(2)))

    def step() -> None:
        grads = [p.grad for p in params if p.grad is not None]
        torch._foreach_mul_(square_avgs, 0.99)
        torch._foreach_addcmul_(square_avgs, grads, grads, 0.01)
        roots = torch._foreach_sqrt(square_avgs)
        torch._foreach_add_(roots, 1e-8)
        torch._foreach_mul_(buffers, 0.9)
        torch._foreach_addcdiv_(buffers, grads, roots)
        masks = [(product > 0).float() for product in torch._foreach_mul(buffers, grads)]
        torch._foreach_div_(masks, [mask.mean().clamp_(min=1e-3) for mask in masks])
        torch._foreach_mul_(masks, buffers)
        torch._foreach_add_(values, masks, alpha=-1e-2)

    return step


def _norm(params: Params, optimizer: FusedRMSProp) -> Step:
    """What a loop does that leaves out spikes: the host waits for the norm."""

    def step() -> None:
        norm = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
        if norm.item() < 1e9:
            optimizer.step()

    return step


CASES = (
    Case("weight average, `ema_decay`", "rmsprop", dict(ema_decay=0.9999), 8, _average, 12, mode="float32+ema"),
    Case("statistics, `stats=True`", "rmsprop", dict(stats=True), 0, _statistics, 70, mode="float32+stats"),
    Case("cautious updates, `caution`", "rmsprop_momentum", dict(momentum=0.9, caution=True), 16, _caution, 90, mode="float32+caution"),
    Case("gradient norm, `clip_grad_norm=math.inf`", "rmsprop", dict(clip_grad_norm=float("inf")), 4, _norm, 4),
    Case("spikes left out, `skip_above`", "rmsprop", dict(skip_above=(5.0, 128)), 4, _norm, 4),
)


def _of_loop(kernel: Any, constants: dict, storage: Storage, config: launch.GPUConfig) -> float:
    """Instructions of a kernel's loop for each parameter."""
    code, cores = machine_code.read(machine_code.build(kernel, constants, machine_code.target_of(TARGET))), multiprocessor(TARGET)
    return (cores.issued(code) if cores else len(code.loop)) / (config.block(storage) / config.threads)


def instructions(rule: str, mode: str = "float32") -> float:
    """Of the step."""
    from fusedrms.kernels.gpu.step import step_kernel

    storage = variant(rule, mode).storage
    config = launch.gpu_config(storage)
    warp_size = machine_code.target_of(TARGET).warp_size
    return _of_loop(step_kernel, launch.constants(rule, storage, True, config, warp_size), storage, config)


def _agreement(rule: str) -> float:
    """Of the launch that counts agreeing updates."""
    from fusedrms.kernels.gpu.agreement import agreement_kernel

    storage = variant(rule, mode="float32+caution").storage
    config = launch.gpu_config(storage)
    warp_size = machine_code.target_of(TARGET).warp_size
    return _of_loop(agreement_kernel, launch.agreement_constants(rule, storage, True, config, warp_size), storage, config)


def _added(case: Case) -> float | None:
    """Instructions that the option adds; None where another kernel counts them, whose loop is not the step's."""
    if case.mode is None:
        return None
    more = instructions(case.rule, case.mode) - instructions(case.rule)
    return more + _agreement(case.rule) if "caution" in case.options else more


def _timed(case: Case, numel: int, rounds: int) -> dict[str, float]:
    """Medians of ms, and of a round's ratios."""
    plain = {name: value for name, value in case.options.items() if name == "momentum"}
    steps: dict[str, Step] = {}
    for name, options in (("without", plain), ("with", case.options), ("apart", plain)):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(numel, device="cpu")) for _ in range(2)]
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer = FusedRMSProp(params, **options)
        steps[name] = case.apart(params, optimizer) if name == "apart" else optimizer.step
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 2):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - begin))
    times = {name: each[2:] for name, each in times.items()}
    found = {f"ms_{name}": statistics.median(each) for name, each in times.items()}
    for name, base in (("with", "without"), ("apart", "with")):
        found[f"{name}_against_{base}"] = statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))
    return found


def _table(results: dict) -> list[str]:
    header = "option", "bytes more", f"instructions more, {TARGET}", "time of a step", "as people do it: bytes more", "its time beside ours"
    rows = [
        (
            row["name"],
            figure(row["bytes"]),
            figure(row["instructions"]) or "a launch of its own",
            f"{row['with_against_without']:.2f}×",
            figure(row["apart_bytes"]),
            f"{row['apart_against_with']:.2f}×",
        )
        for row in results["options"]
    ]
    return table(header, rows)


TABLES: dict[str, Callable[[dict], list[str]]] = {"one pass": _table}


def main() -> None:
    parser = make_parser("bench.studies.one_pass", __doc__, output=True)
    parser.add_argument("--numel", type=int, default=1 << 24, help="elements of each of two tensors (default: 16777216)")
    parser.add_argument("--rounds", type=int, default=15, help="of each step (default: 15)")
    args = parser.parse_args()
    if interpreted():
        parser.error("TRITON_INTERPRET is set: the interpreter compiles nothing; unset it")
    if args.numel < 1 or args.rounds < 1:
        parser.error("--numel and --rounds must be at least 1")
    check_output(parser, args.output)
    options = []
    for case in CASES:
        known = dict(name=case.name, bytes=case.bytes, apart_bytes=case.apart_bytes, instructions=_added(case))
        options.append({key: short(value) for key, value in {**known, **_timed(case, args.numel, args.rounds)}.items()})
    command = f"{parser.prog} --numel {args.numel} --rounds {args.rounds}"
    results = {**machine(devices.find("cpu"), command), "numel": args.numel, "rounds": args.rounds, "options": options}
    print("\n".join(_table(results)))
    with writing(parser):
        write(args.output / "one_pass.json", dumped(results, "options"))


if __name__ == "__main__":
    main()
