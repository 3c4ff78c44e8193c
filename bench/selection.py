"""Which implementations of which algorithms are timed on which workloads."""

from collections.abc import Iterator

from bench.algorithms import ALGORITHMS, MODES
from bench.store import BASELINE, BIG, COMPILED, OURS, SMALL
from bench.workloads import COUNT, LAYERS, MODELS, SCALE

IN_FAMILIES = {"cpu": (BASELINE, OURS, "torch AdamW fused"), "cuda": (BASELINE, OURS, COMPILED, "torch AdamW fused")}
QUICK = ("A2C MLP", "EfficientNet-B0", *list(SCALE)[:7], *list(COUNT)[:3])


def _timed(workload: str, algorithm: str, implementation: str, device: str) -> bool:
    if workload in SCALE or workload in COUNT:
        return algorithm == "plain" and implementation in IN_FAMILIES[device]
    if workload in (BIG, SMALL):
        return True
    if algorithm == "RMSpropTF":  # what that network is trained with
        return workload == "EfficientNet-B0"
    return algorithm in ("plain", "centered+momentum") and implementation.removeprefix(f"{OURS} ") not in MODES


def cases(device: str, quick: bool) -> Iterator[tuple[str, str, str]]:
    """Workload, algorithm and implementation, in the order in which they are timed: the baseline first."""
    for workload in [*MODELS, *LAYERS[device], *SCALE, *COUNT]:
        for algorithm, implementations in ALGORITHMS.items():
            for implementation in implementations:
                slow = workload not in QUICK or implementation == COMPILED
                if _timed(workload, algorithm, implementation, device) and not (quick and slow):
                    yield workload, algorithm, implementation
