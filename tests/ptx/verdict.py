"""Whether the rows of a launch are what they may be after a step."""

import numpy as np

from fusedrms.kernels.quant import GROUP
from fusedrms.kernels.tables import UNSCALE

from .expected import step
from .intervals import WIDE, Interval, Unit
from .launches import LEAST, Launch
from .stored import code, decoded, joined, nearest, random_bits, stochastic, to_float32, wide


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
                _read(made, unit, v, [made.memory[first[v] + w][t] for w in range(len(d))]) for v, d in enumerate(made.storage.dtypes)
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
                    stored = [str(x[k if len(x) == n else k // GROUP]) for x in now]
                    raise AssertionError(
                        f"{made.rule} {made.mode} {made.kind}: {name}[{k}] of tensor {t} is stored as {stored}, "
                        f"not in [{interval.low[k]}, {interval.high[k]}]; {len(wrong)} of {n} wrong"
                    )
    assert np.concatenate(sures).mean() >= (0.25 if made.kind == "edge" else 1)


def _read(made: Launch, unit: Unit, value: int, stored: list[np.ndarray]) -> Interval:
    dtypes = made.storage.dtypes[value]
    if value in made.storage.quantized:
        return decoded(unit, stored[0], np.repeat(stored[1], GROUP)[: len(stored[0])])
    shown = wide(stored[0], dtypes[0])
    if len(dtypes) == 1:
        return Interval(unit, shown)
    if dtypes[1] == "int16":
        return Interval(unit, joined(stored))
    return Interval(unit, np.where(nearest(stored[1], dtypes[0], away=True) == shown, stored[1], shown))


def _holds(made: Launch, interval: Interval, value: int, now: list[np.ndarray], t: int):
    """Of each element: whether anything can be said, and whether it holds."""
    dtypes, n = made.storage.dtypes[value], len(now[0])
    sure = np.broadcast_to(interval.sure, n)
    if dtypes == ("float64",):
        return sure, (interval.low <= now[0]) & (now[0] <= interval.high)
    ends = [np.broadcast_to(to_float32(end, up), n) for end, up in ((interval.low, False), (interval.high, True))]
    noise = random_bits(made.random_key[t, :2], int(made.random_key[t, 2]), made.shard_offset[t] + np.arange(n), value - 1)
    if value in made.storage.quantized:
        return _codes_hold(interval, sure, now, noise)
    if len(dtypes) == 2:
        master = joined(now) if dtypes[1] == "int16" else now[1]
        shown = nearest(master, dtypes[0], away=True) == wide(now[0], dtypes[0])
        return sure, shown & (ends[0] <= master) & (master <= ends[1])
    if dtypes[0] == "float32":
        return sure, (ends[0] <= now[0]) & (now[0] <= ends[1])
    rounded = [stochastic(end, noise, dtypes[0]) if value > 1 or made.storage.stochastic else nearest(end, dtypes[0]) for end in ends]
    stored = wide(now[0], dtypes[0])
    return sure, (rounded[0] <= stored) & (stored <= rounded[1])


def _codes_hold(interval: Interval, sure: np.ndarray, now: list[np.ndarray], noise: np.ndarray):
    codes, scale = now
    n, top = len(codes), 255 if codes.dtype == np.uint8 else 127
    size = [
        np.broadcast_to(np.maximum(x, 0), n) for x in (np.maximum(interval.low, -interval.high), np.maximum(interval.high, -interval.low))
    ]
    of = np.arange(n) // GROUP
    sure = np.repeat([sure[k : k + GROUP].all() for k in range(0, n, GROUP)], GROUP)[:n].astype(bool)
    low, high = (np.array([np.maximum(x[k : k + GROUP].max(), LEAST) for k in range(0, n, GROUP)], WIDE) for x in size)
    fine = ((low[of] <= scale[of]) & (scale[of] <= np.float32(1 + 2.0**-23) * high[of])) if n else np.zeros(0, bool)
    error = 16 * interval.unit.u
    levels = [code(x * factor, scale[of], noise, top) for x, factor in zip(size, (1 - error, 1 + error), strict=True)]
    if top == 255:
        levels = [np.maximum(levels[0], interval.low > 0), np.maximum(levels[1], interval.high > 0)]
        return sure, fine & (levels[0] <= codes) & (codes <= levels[1])
    levels = [np.where(interval.low < 0, -levels[1], levels[0]), np.where(interval.high > 0, levels[1], -levels[0])]
    return sure, fine & (levels[0] <= codes) & (codes <= levels[1])
