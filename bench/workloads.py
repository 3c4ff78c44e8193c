"""What is timed: lists of shapes, and algorithms by their implementations."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.plan import Plan


def gpt2_small() -> list[tuple[int, ...]]:
    """The 148 parameters of GPT-2 small, 124 million numbers."""
    width, block = 768, []
    for n_in, n_out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
        block += [(n_in, n_out), (n_out,)]
    block += [(width,)] * 4  # two layer norms
    return [(50257, width), (1024, width), *block * 12, (width,), (width,)]


WORKLOADS: dict[str, list[tuple[int, ...]]] = {
    "2 of 4096x4096": [(4096, 4096)] * 2,
    "GPT-2 small": gpt2_small(),
    "2,000 of 64": [(64,)] * 2000,
    "A2C MLP": [(64, 17), (64,), (64, 64), (64,)] * 2 + [(6, 64), (6,), (1, 64), (1,)],
}
GPU_WORKLOADS = {"60 of 4096x4096": [(4096, 4096)] * 60}  # a billion numbers


def _torch(foreach: bool, **options):
    return lambda params: torch.optim.RMSprop(params, foreach=foreach, **options).step


def _compiled(**options):
    def make(params):
        # a tensor lr: as a number it would be compiled in
        optimizer = torch.optim.RMSprop(params, lr=torch.tensor(1e-2, device=params[0].device), **options)
        return torch.compile(optimizer.step)

    return make


def _clip_norm(params):
    step = _torch(foreach=True)(params)

    def run():
        torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
        step()

    return run


def _zeros(params) -> list[Tensor]:
    return [torch.zeros_like(param) for param in params]


def _grads(params) -> list[Tensor]:
    return [param.grad for param in params]


def _foreach_centered(lr: float, alpha: float, eps: float, momentum: float, lr_in_momentum: bool):
    """Graves' rule, by as few calls as it takes."""
    inner, outer = (lr, 1.0) if lr_in_momentum else (1.0, lr)

    def make(params):
        square_avgs, grad_avgs, buffers = _zeros(params), _zeros(params), _zeros(params)

        @torch.no_grad()
        def step():
            grads = _grads(params)
            torch._foreach_mul_(square_avgs, alpha)
            torch._foreach_addcmul_(square_avgs, grads, grads, 1 - alpha)
            torch._foreach_lerp_(grad_avgs, grads, 1 - alpha)
            roots = torch._foreach_addcmul(square_avgs, grad_avgs, grad_avgs, -1)
            torch._foreach_add_(roots, eps)
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_addcdiv_(buffers, grads, roots, inner)
            torch._foreach_add_(params, buffers, alpha=-outer)

        return step

    return make


def _foreach_smorms3(lr: float, eps: float):
    """SMORMS3, by as few calls as it takes."""

    def make(params):
        square_avgs, grad_avgs, mems = _zeros(params), _zeros(params), [torch.ones_like(param) for param in params]

        @torch.no_grad()
        def step():
            grads = _grads(params)
            rates = torch._foreach_add(mems, 1)
            torch._foreach_reciprocal_(rates)
            torch._foreach_lerp_(grad_avgs, grads, rates)
            torch._foreach_lerp_(square_avgs, torch._foreach_mul(grads, grads), rates)
            signals = torch._foreach_mul(grad_avgs, grad_avgs)
            torch._foreach_div_(signals, torch._foreach_add(square_avgs, eps))
            torch._foreach_addcmul_(mems, mems, signals, -1)
            torch._foreach_add_(mems, 1)
            torch._foreach_clamp_max_(signals, lr)
            torch._foreach_mul_(signals, grads)
            roots = torch._foreach_sqrt(square_avgs)
            torch._foreach_add_(roots, eps)
            torch._foreach_addcdiv_(params, signals, roots, -1)

        return step

    return make


Steps = dict[str, Callable[[list[torch.nn.Parameter]], Callable[[], object]]]


class Algorithm(NamedTuple):
    """What is timed, by several implementations: name -> (parameters -> step)."""

    n_bytes: int | dict[str, float]  # the fewest that a step can move for a parameter: gradient read, all else read and written
    steps: Steps
    gpu_steps: Steps | None = None


def _lean(**options):
    """With a bfloat16 parameter and gradient in the place of each."""

    def make(params):
        lean = [torch.nn.Parameter(param.detach().bfloat16()) for param in params]
        for param, wide in zip(lean, params, strict=True):
            param.grad = wide.grad.bfloat16()
            wide.grad = None
        return FusedRMSProp(lean, **options).step

    return make


MODES: dict[str, dict[str, Any]] = {
    "bfloat16": {},
    "stochastic": dict(stochastic_rounding=True),
    "master": dict(master_weights="float32"),
    "split": dict(master_weights="split"),
    "bf16 state": dict(state_dtype=torch.bfloat16),
    "8bit state": dict(state_dtype="8bit"),
    "stochastic, 8bit": dict(stochastic_rounding=True, state_dtype="8bit"),
    "split, bf16 state": dict(master_weights="split", state_dtype=torch.bfloat16),
    "split, 8bit": dict(master_weights="split", state_dtype="8bit"),
    "master, 8bit": dict(master_weights="float32", state_dtype="8bit"),
}


def _n_bytes(options: dict[str, Any]) -> float:
    """What a step of bfloat16 parameters moves for each."""
    param = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    param.grad = torch.zeros_like(param)
    optimizer = FusedRMSProp([param], **options)
    (bucket,) = Plan("", optimizer.param_groups, optimizer._recipes(), optimizer.state)._buckets
    return bucket.layout.storage.traffic


def _modes(n_bytes: int, **options) -> Algorithm:
    """Each mode beside what float32 parameters and states take, here and in torch."""
    modes = {name: {**options, **mode} for name, mode in MODES.items()}
    return Algorithm(
        {"float32": n_bytes, "torch foreach": n_bytes, **{name: _n_bytes(mode) for name, mode in modes.items()}},
        {
            "float32": lambda params: FusedRMSProp(params, **options).step,
            **{name: _lean(**mode) for name, mode in modes.items()},
            "torch foreach": _torch(foreach=True, **options),
        },
    )


CENTERED: dict[str, Any] = dict(centered=True, momentum=0.9)
INSIDE: dict[str, Any] = dict(lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.9)
GRAVES: dict[str, Any] = dict(lr=1e-4, alpha=0.95, eps=1e-4, momentum=0.9)
SMORMS3: dict[str, Any] = dict(lr=1e-3, eps=1e-16)

ALGORITHMS = {
    "plain": Algorithm(
        20,
        {
            "fusedrms": lambda params: FusedRMSProp(params).step,
            "torch foreach": _torch(foreach=True),
            "torch single": _torch(foreach=False),
        },
        {"torch compiled": _compiled()},
    ),
    "centered+momentum": Algorithm(
        36,
        {
            "fusedrms": lambda params: FusedRMSProp(params, **CENTERED).step,
            "torch foreach": _torch(foreach=True, **CENTERED),
            "torch single": _torch(foreach=False, **CENTERED),
        },
        {"torch compiled": _compiled(**CENTERED)},
    ),
    "centered+momentum, eps inside": Algorithm(
        36,
        {
            "fusedrms": lambda params: FusedRMSProp(params, **INSIDE, centered=True, eps_placement="inside").step,
            "torch foreach": _foreach_centered(**INSIDE, lr_in_momentum=False),
        },
    ),
    "Graves": Algorithm(
        36,
        {
            "fusedrms": lambda params: FusedRMSPropGraves(params, **GRAVES).step,
            "torch foreach": _foreach_centered(**GRAVES, lr_in_momentum=True),
        },
    ),
    "SMORMS3": Algorithm(
        36,
        {"fusedrms": lambda params: FusedSMORMS3(params, **SMORMS3).step, "torch foreach": _foreach_smorms3(**SMORMS3)},
    ),
    "clip-norm": Algorithm(
        24,
        {"fusedrms": lambda params: FusedRMSProp(params, clip_grad_norm=1.0).step, "torch foreach": _clip_norm},
    ),
    "modes": _modes(20),
    "centered+momentum modes": _modes(36, **CENTERED),
}


def parameters(shapes: list[tuple[int, ...]], device: str) -> list[torch.nn.Parameter]:
    """float32 parameters with gradients."""
    params = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for param in params:
        param.grad = torch.randn_like(param)
    return params
