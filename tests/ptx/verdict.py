"""Whether the rows of a launch are what they may be after a step."""

import numpy as np

from fusedrms.kernels.quant import GROUP
from fusedrms.kernels.tables import UNSCALE

from .expected import step
from .intervals import WIDE, Interval, Unit
from .launches import LEAST, Launch
from .stored import TOP, code, decoded, from_words, joined, master24, nearest, stochastic, to_float32, wide


def check(made: Launch, after: list[list[np.ndarray]], approximate: bool = True) -> None:
    """Hold the rows after a step against expected.py, which must know something of all values but odd ones.

    Raises:
        AssertionError: a value that no order of rounding gives.
    """
    unit, sures = Unit(made.storage.compute, approximate), []
    first = {row.value: r for r, row in reversed(list(enumerate(made.rows)))}
    for t, n in enumerate(made.numels):
        row = made.hyper[made.groups[t]]
        unscale = made.compute.type(made.scalars[UNSCALE])
        norm = float(made.compute.type(made.scalars[made.norm_index[t]]))
        with np.errstate(all="ignore"):
            values = [
                _read(made, unit, v, [made.memory[first[v] + w][t] for w in range(len(d))], t) for v, d in enumerate(made.storage.dtypes)
            ]
            new = step(
                made.rule,
                unit,
                grad=values[0],
                param=values[1],
                state=values[2:],
                norm=norm,
                unscale=unscale,
                row=row.tolist(),
                variance=made.storage.variance,
                average=made.storage.average,
            )
            for v, interval in enumerate(new, start=1):
                now = [after[first[v] + w][t] for w in range(len(made.storage.dtypes[v]))]
                sure, fine = _holds(made, interval, v, now, t)
                sures.append(sure)
                wrong = np.flatnonzero(sure & ~fine)
                if len(wrong):
                    k, name = wrong[0], made.rows[first[v]].name
                    stored = [str(x[k // made.rows[first[v] + w].per]) for w, x in enumerate(now)]
                    raise AssertionError(
                        f"{made.rule} {made.mode} {made.kind}: {name}[{k}] of tensor {t} is stored as {stored}, "
                        f"not in [{interval.low[k]}, {interval.high[k]}]; {len(wrong)} of {n} wrong"
                    )
    assert np.concatenate(sures).mean() >= (0.25 if made.kind == "edge" else 1)


def _codes(stored: np.ndarray, n: int, dtype: str) -> np.ndarray:
    codes = from_words(stored, dtype)
    assert not codes[n:].any(), "beyond the last code of a tensor a word is not 0"
    return codes[:n]


def _read(made: Launch, unit: Unit, value: int, stored: list[np.ndarray], t: int) -> Interval:
    dtypes, n = made.storage.dtypes[value], made.numels[t]
    if value in made.storage.quantized:
        return decoded(unit, _codes(stored[0], n, dtypes[0]), np.repeat(stored[1], GROUP)[:n], TOP[dtypes[0]])
    shown = wide(stored[0], dtypes[0])
    if len(dtypes) == 1:
        return Interval(unit, shown)
    if "int" in dtypes[1]:
        return Interval(unit, joined(stored))
    return Interval(unit, np.where(nearest(stored[1], dtypes[0], away=True) == shown, stored[1], shown))


def _holds(made: Launch, interval: Interval, value: int, now: list[np.ndarray], t: int):
    """Of each element: whether anything can be said, and whether it holds."""
    dtypes, n = made.storage.dtypes[value], made.numels[t]
    sure = np.broadcast_to(interval.sure, n)
    if dtypes == ("float64",):
        return sure, (interval.low <= now[0]) & (now[0] <= interval.high)
    ends = [np.broadcast_to(to_float32(end, up), n) for end, up in ((interval.low, False), (interval.high, True))]
    noise = made.noise(t, value)
    if value in made.storage.quantized:
        return _codes_hold(interval, sure, _codes(now[0], n, dtypes[0]), now[1], noise, dtypes[0])
    if len(dtypes) == 2:
        master = joined(now) if "int" in dtypes[1] else now[1]
        ends = [master24(end, noise) for end in ends] if dtypes[1] == "int8" else ends
        shown = nearest(master, dtypes[0], away=True) == wide(now[0], dtypes[0])
        return sure, shown & (ends[0] <= master) & (master <= ends[1])
    if dtypes[0] == "float32":
        return sure, (ends[0] <= now[0]) & (now[0] <= ends[1])
    rounded = [stochastic(end, noise, dtypes[0]) if value > 1 or made.storage.stochastic else nearest(end, dtypes[0]) for end in ends]
    stored = wide(now[0], dtypes[0])
    return sure, (rounded[0] <= stored) & (stored <= rounded[1])


def _codes_hold(interval: Interval, sure: np.ndarray, codes: np.ndarray, scale: np.ndarray, noise: np.ndarray, dtype: str):
    n, top = len(codes), TOP[dtype]
    size = [
        np.broadcast_to(np.maximum(x, 0), n) for x in (np.maximum(interval.low, -interval.high), np.maximum(interval.high, -interval.low))
    ]
    of = np.arange(n) // GROUP
    sure = np.repeat([sure[k : k + GROUP].all() for k in range(0, n, GROUP)], GROUP)[:n].astype(bool)
    low, high = (np.array([np.maximum(x[k : k + GROUP].max(), LEAST) for k in range(0, n, GROUP)], WIDE) for x in size)
    fine = ((low[of] <= scale[of]) & (scale[of] <= np.float32(1 + 2.0**-23) * high[of])) if n else np.zeros(0, bool)
    error = 16 * interval.unit.u
    levels = [code(x * factor, scale[of], noise, top) for x, factor in zip(size, (1 - error, 1 + error), strict=True)]
    if dtype[0] == "u":
        # what is not 0 is no code of 0, unless float32 has no number for its square's share of the scale
        levels = [np.maximum(levels[0], interval.low > 2.0**-140 * scale[of]), np.maximum(levels[1], interval.high > 0)]
        return sure, fine & (levels[0] <= codes) & (codes <= levels[1])
    levels = [np.where(interval.low < 0, -levels[1], levels[0]), np.where(interval.high > 0, levels[1], -levels[0])]
    return sure, fine & (levels[0] <= codes) & (codes <= levels[1])
