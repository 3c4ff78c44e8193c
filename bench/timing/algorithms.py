"""What is timed: algorithms, each by several implementations that compute the same and what rivals them, and on which workloads."""

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from bench.common.store import BASELINE, BIG, COMPILED, OURS, SMALL
from bench.timing.foreach import Make, clip_norm, rmsprop_inside, smorms3
from bench.timing.workloads import COUNT, LAYERS, MODELS, SCALE, converted
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.kernels import devices
from fusedrms.presets import timm_rmsprop_tf

MOST_COMPILED = 1000  # tensors; with more, torch.compile takes many minutes


class Unavailable(Exception):
    """Why an implementation cannot run here."""


class Implementation(NamedTuple):
    make: Make
    n_held: int  # bytes a parameter at most during a step, gradient and temporaries included; what memory is asked for
    n_bytes: int | None = None  # that a step must move for a parameter: gradient read, all else read and written; None: what it holds says
    agrees: bool = True  # with the others of its algorithm
    guest: bool = False  # may fail on this device, or be missing
    compiled: bool = False  # by torch, which takes long


def _torch(n_held: int, n_bytes: int, foreach: bool, **options: Any) -> Implementation:
    return Implementation(lambda params: torch.optim.RMSprop(params, foreach=foreach, **options).step, n_held, n_bytes)


def _ours(n_held: int, n_bytes: int, make: Any = FusedRMSProp, **options: Any) -> Implementation:
    return Implementation(lambda params: make(params, **options).step, n_held, n_bytes)


def _compiled(n_held: int, n_bytes: int, **options: Any) -> Implementation:
    def make(params):
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if params[0].device.type == "cpu" and not shutil.which(compiler):
            raise Unavailable(f"torch.compile needs a C++ compiler, there is no {compiler}")
        if len(params) > MOST_COMPILED:
            raise Unavailable(f"torch.compile takes minutes for more than {MOST_COMPILED:,} tensors")
        torch.compiler.reset()  # after eight optimizers of one kind it would go on without compiling
        # a tensor lr: as a number it would be compiled in
        optimizer = torch.optim.RMSprop(params, lr=torch.tensor(1e-2, device=params[0].device), **options)
        return torch.compile(optimizer.step)

    return Implementation(make, n_held, n_bytes, guest=True, compiled=True)


def _guest(module: str, name: str, n_held: int, n_bytes: int | None = None, agrees: bool = True, **options: Any) -> Implementation:
    def make(params):
        try:
            imported = importlib.import_module(module)
        except Exception as error:  # some packages raise more than ImportError where they cannot run
            raise Unavailable(f"{module} cannot be imported: {error}") from None
        return getattr(imported, name)(params, **options).step

    return Implementation(make, n_held, n_bytes, agrees, guest=True)


def _lean(**options: Any) -> Implementation:
    """With a bfloat16 parameter and gradient in the place of each."""

    return Implementation(lambda params: FusedRMSProp(converted(params, torch.bfloat16), **options).step, 32, agrees=False)


MODES: dict[str, dict[str, Any]] = {
    "bfloat16": {},
    "stochastic": dict(stochastic_rounding=True),
    "master": dict(master_weights="float32"),
    "split": dict(master_weights="split"),
    "split24": dict(master_weights="split24"),
    "bf16 state": dict(state_dtype=torch.bfloat16),
    "8bit state": dict(state_dtype="8bit"),
    "stochastic, 8bit": dict(stochastic_rounding=True, state_dtype="8bit"),
    "split, bf16 state": dict(master_weights="split", state_dtype=torch.bfloat16),
    "split, 8bit": dict(master_weights="split", state_dtype="8bit"),
    "master, 8bit": dict(master_weights="float32", state_dtype="8bit"),
    "split24, 8bit": dict(master_weights="split24", state_dtype="8bit"),
    "split24, 4bit": dict(master_weights="split24", state_dtype="4bit"),
    "stochastic, 4bit": dict(stochastic_rounding=True, state_dtype="4bit"),
}


def _modes(**options: Any) -> dict[str, Implementation]:
    return {f"{OURS} {name}": _lean(**options, **mode) for name, mode in MODES.items()}


CENTERED: dict[str, Any] = dict(centered=True, momentum=0.9)
INSIDE: dict[str, Any] = dict(lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.9)
GRAVES: dict[str, Any] = dict(lr=1e-4, alpha=0.95, eps=1e-4, momentum=0.9)
TF: dict[str, Any] = dict(lr=1e-2, alpha=0.9, eps=1e-3, momentum=0.9)
SMORMS3: dict[str, Any] = dict(lr=1e-3, eps=1e-16)

ALGORITHMS: dict[str, dict[str, Implementation]] = {  # the baseline first: ratios are to it
    "plain": {
        BASELINE: _torch(16, 20, foreach=True),
        OURS: _ours(12, 20),
        "torch single": _torch(16, 20, foreach=False),
        COMPILED: _compiled(16, 20),
        "torch AdamW fused": Implementation(lambda params: torch.optim.AdamW(params, fused=True).step, 16, 28, agrees=False, guest=True),
        "bitsandbytes": _guest("bitsandbytes.optim", "RMSprop", 12, 20),
        "bitsandbytes 8bit": _guest("bitsandbytes.optim", "RMSprop8bit", 12, agrees=False),
        "HeavyBall": _guest("heavyball", "RMSprop", 24, 20, agrees=False, consume_grad=False)._replace(compiled=True),
        "DeepSpeed CPUAdam": _guest("deepspeed.ops.adam", "DeepSpeedCPUAdam", 16, 28, agrees=False),
        **_modes(),
    },
    "centered+momentum": {
        BASELINE: _torch(28, 36, foreach=True, **CENTERED),
        OURS: _ours(20, 36, **CENTERED),
        "torch single": _torch(28, 36, foreach=False, **CENTERED),
        COMPILED: _compiled(28, 36, **CENTERED),
        **_modes(**CENTERED),
    },
    "centered+momentum, eps inside": {
        BASELINE: Implementation(rmsprop_inside(**INSIDE, lr_in_momentum=False), 28, 36),
        OURS: _ours(20, 36, **INSIDE, centered=True, eps_placement="inside"),
    },
    "Graves": {
        BASELINE: Implementation(rmsprop_inside(**GRAVES, lr_in_momentum=True), 28, 36),
        OURS: _ours(20, 36, FusedRMSPropGraves, **GRAVES),
    },
    "RMSpropTF": {
        BASELINE: Implementation(rmsprop_inside(**TF, lr_in_momentum=True, centered=False, initial_square_avg=1.0), 24, 28),
        OURS: _ours(16, 28, timm_rmsprop_tf, **TF),
        "timm": _guest("timm.optim.rmsprop_tf", "RMSpropTF", 28, 28, **TF),
    },
    "SMORMS3": {
        BASELINE: Implementation(smorms3(**SMORMS3), 40, 36),
        OURS: _ours(20, 36, FusedSMORMS3, **SMORMS3),
    },
    "clip-norm": {
        BASELINE: Implementation(clip_norm, 16, 24),
        OURS: _ours(12, 24, clip_grad_norm=1.0),
    },
}

IN_FAMILIES = {"cpu": (BASELINE, OURS, "torch AdamW fused"), "gpu": (BASELINE, OURS, COMPILED, "torch AdamW fused")}
QUICK = ("A2C MLP", "EfficientNet-B0", *list(SCALE)[:7], *list(COUNT)[:3])


def _timed(workload: str, algorithm: str, implementation: str, device: torch.device) -> bool:
    if workload in SCALE or workload in COUNT:
        return algorithm == "plain" and implementation in devices.on(device, IN_FAMILIES)
    if workload in (BIG, SMALL):
        return True
    if algorithm == "RMSpropTF":  # what that network is trained with
        return workload == "EfficientNet-B0"
    return algorithm in ("plain", "centered+momentum") and implementation.removeprefix(f"{OURS} ") not in MODES


def cases(device: torch.device, quick: bool) -> Iterator[tuple[str, str, str]]:
    """Workload, algorithm and implementation, in the order in which they are timed: the baseline first."""
    for workload in [*MODELS, *devices.on(device, LAYERS), *SCALE, *COUNT]:
        for algorithm, implementations in ALGORITHMS.items():
            for implementation in implementations:
                slow = workload not in QUICK or implementation == COMPILED
                if _timed(workload, algorithm, implementation, device) and not (quick and slow):
                    yield workload, algorithm, implementation
