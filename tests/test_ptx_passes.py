"""What one pass does besides, by the compiled kernels, executed: statistics, and the launch that caution needs first."""

import itertools

import numpy as np
import pytest

from fusedrms.kernels import lang
from fusedrms.kernels.launch import GPUConfig
from fusedrms.kernels.tables import UNIT, UNIT_COUNTS
from ptx import agreement
from ptx.compare import differing
from ptx.launches import Launch
from ptx.stored import joined
from sample import exhaustive

TARGETS = ("interpreter",) if lang.interpreted() else ("sm_80", "sm_90", "sm_100")
MEASURED = [
    ("rmsprop", "float32", TARGETS[0]),
    ("rmsprop_centered", "bfloat16+split24+4bit+ema", TARGETS[len(TARGETS) // 2]),
    ("smorms3", "float64", TARGETS[-1]),
]
OTHERS = zip(
    ("rmsprop_centered", "smorms3") * 4,
    (
        "float32",
        "float32",
        "bfloat16+stochastic+8bit",
        "bfloat16+split+8bit",
        "float16+master",
        "bfloat16",
        "float64",
        "float16+stochastic",
    ),
    itertools.cycle(TARGETS),
    strict=False,
)
CAUTIOUS = [("rmsprop_momentum", "float32"), ("rmsprop_centered_momentum", "bfloat16+split+8bit"), ("rmsprop_momentum", "float64")]
FEW, MANY = (1, 63, 0, 70, 3 * 1024 + 3), (1, 0, UNIT + 1030)  # elements of tensors: in a unit, and in two
# a unit in several chunks or in one, of blocks of several sizes, each with addresses that 16 divides or not
CONFIGS = [
    (GPUConfig(1024, 64, 1, 0, 0), False),
    (GPUConfig(4096, 256, 2, 3, 0), True),
    (GPUConfig(UNIT, 512, 4, 0, 0), False),
]


def counts(made: Launch) -> np.ndarray:
    return made.sums[:, -len(UNIT_COUNTS) :]


@pytest.mark.interpret
@pytest.mark.parametrize(("rule", "mode", "target"), [*MEASURED, *(exhaustive(*case) for case in OTHERS)])
def test_statistics(rule, mode, target):
    """They change no bit of the step, and are the CPU's to rounding; counts and the largest magnitude are the same."""
    for kind in ("exact", "random", "edge"):
        made, plain = (Launch(rule, each, kind, FEW) for each in (f"{mode}+stats", mode))
        assert not differing(made, made.on_cpu(), plain.on_cpu())
        expected, largest = made.sums, counts(made)
        assert not differing(made, made.on_gpu(target=target), plain.on_gpu(target=target))
        assert np.array_equal(counts(made), largest)
        if kind != "edge":  # some changes are of a few units in the last place
            np.testing.assert_allclose(made.sums, expected, rtol=1e-5 if kind == "exact" else 1e-3)


@pytest.mark.interpret
@pytest.mark.parametrize(("rule", "mode", "target"), MEASURED)
def test_statistics_in_all_configurations(rule, mode, target):
    """The same bits."""
    made = Launch(rule, f"{mode}+stats", "random", MANY)
    after = made.on_gpu(target=target)
    sums = made.sums
    assert sums[:, :-2].any(axis=0).all()
    for config, aligned in CONFIGS:
        assert not differing(made, made.on_gpu(config, aligned, target), after)
        assert np.array_equal(made.sums, sums), config


def test_statistics_of_a_step_left_out():
    """Nothing is written."""
    made = Launch("rmsprop", "float32+stats", "random", FEW)
    made.scalars[0] = 1.0
    for run in (made.on_cpu, made.on_gpu):
        run()
        assert not made.sums.any()


@pytest.mark.skipif(lang.interpreted(), reason="about the compiled kernels")
@pytest.mark.parametrize("target", ["sm_90", *(exhaustive(target) for target in ("sm_80", "sm_100"))])
@pytest.mark.parametrize(("rule", "mode"), [*CAUTIOUS, exhaustive("rmsprop_momentum", "bfloat16+split24+4bit")])
def test_counts(rule, mode, target):
    """As many as the CPU counts, however it is cut to pieces."""
    for kind in ("random", "edge"):
        made = Launch(rule, f"{mode}+caution", kind, MANY)
        expected = agreement.on_cpu(made)
        assert 0.3 < sum(expected) / sum(MANY) < 1
        assert agreement.on_cpu(made, 1024) == expected
        for config, aligned in [(None, True), *CONFIGS]:
            assert agreement.on_gpu(made, config, aligned, target) == expected, (kind, config, aligned)


def values(made: Launch, rows: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Of the parameters, in full precision."""
    kept = [row for row, about in zip(rows, made.rows, strict=True) if about.value == 1]
    return [joined(list(both)) for both in zip(*kept, strict=True)] if len(kept) == 2 else kept[0]


@pytest.mark.interpret
@pytest.mark.parametrize(("rule", "mode"), CAUTIOUS)
def test_caution(rule, mode):
    """States are as without; parameters as the CPU has them, to rounding; an update counts as often as its boost says, or not at all."""
    made, plain = (Launch(rule, each, "random", (70, 1000, 3 * 1024 + 3)) for each in (f"{mode}+caution", mode))
    made.boosts[:] = 2.0
    cpu, gpu, without = made.on_cpu(), made.on_gpu(), plain.on_gpu()
    assert not differing(made, gpu, without).keys() - {"param", "param_2"}
    for a, b in zip(values(made, gpu), values(made, cpu), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
    if made.storage.compute == "float64":
        agreed = agreement.on_cpu(made)
        for t in range(2):  # the third has a decay of its own, and limits
            old, new, plainly = (values(made, rows)[t] for rows in (made.memory, gpu, without))
            times = (new - old) / (plainly - old)
            assert (np.isclose(times, 0, atol=1e-9) | np.isclose(times, 2, rtol=1e-9)).all()
            assert np.isclose(times, 2, rtol=1e-9).sum() == agreed[t]
