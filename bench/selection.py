"""Which implementations of which algorithms are timed on which workloads."""

import math
from collections.abc import Iterator

import torch

from bench.algorithms import ALGORITHMS, MODES
from bench.store import BASELINE, BIG, COMPILED, OURS, SMALL
from bench.workloads import COUNT, LAYERS, MODELS, SCALE
from fusedrms.engine import configs
from fusedrms.kernels import devices
from fusedrms.kernels.launch import Config, default_config
from fusedrms.tools import tune, variants

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


def configurations(rule: str, mode: str, size: str, device: torch.device) -> tuple[Config, Config]:
    """That which a step of a size of tune.SHAPES takes by default, and the tuned one."""
    storage = variants.variant(rule, mode).storage
    default = default_config(device, storage, sum(map(math.prod, devices.on(device, tune.SHAPES)[size])))
    row = configs.rows_for(configs.device_name(device)).get(configs.Key(rule, storage.label, True, size))
    return default, row.config if row else default


def changed(device: torch.device) -> list[tuple[str, str, str]]:
    """Rule, mode and size of the tuned configurations that are not the default."""
    wanted = [(rule, mode, size) for rule in variants.RULES for mode in variants.MODES for size in devices.on(device, tune.SHAPES)]
    pairs = {one: configurations(*one, device) for one in wanted}
    return [one for one, (default, tuned) in pairs.items() if tuned != default]
