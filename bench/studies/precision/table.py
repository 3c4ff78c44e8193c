"""The table of a problem's results."""

from collections.abc import Callable

import numpy as np

from bench.common.text import table
from bench.studies.precision.modes import BASELINE, MODES

HEADER = "mode", "bytes a parameter", "held-out loss", "against float32", "least to most", "seeds", "beyond chance"


def modes_of(results: dict) -> list[str]:
    found = {run["mode"] for run in results["runs"]}
    return [mode for mode in MODES if mode in found]


def losses(results: dict, mode: str) -> dict[int, np.ndarray]:
    """By seed, at each evaluation; NaN where it was not finite."""
    return {run["seed"]: np.array(run["losses"], dtype=float) for run in results["runs"] if run["mode"] == mode}


def against(results: dict, mode: str) -> np.ndarray:
    """How many percent the loss is above float32's with the same seed: seeds by evaluations."""
    base, own = losses(results, BASELINE), losses(results, mode)
    pairs = [(own[seed] / base[seed] - 1) * 100 for seed in own if seed in base]
    return np.array(pairs).reshape(len(pairs), len(results["evaluated"]))


FEWEST = 3  # seeds whose spread says anything
CONFIDENCE = 0.95


def chance(shares: np.ndarray) -> np.ndarray | None:
    """How far from 0 the mean of so many seeds' differences may be by chance alone, at each evaluation; None of fewer than FEWEST.

    Half of the interval that Student's t gives with CONFIDENCE.
    """
    from scipy.stats import t  # of the extra `study`; documents' other tables need none

    n = len(shares)
    return t.ppf((1 + CONFIDENCE) / 2, n - 1) * shares.std(0, ddof=1) / n**0.5 if n >= FEWEST else None


def verdict(percent: float, band: float) -> str:
    """Whether the mean of a mode's differences from float32, seed by seed, is more than chance."""
    return "no" if abs(percent) <= band else "worse" if percent > 0 else "better"


def _line(results: dict, mode: str) -> list[str]:
    last = np.array([each[-1] for each in losses(results, mode).values()])
    bytes_ = next(run["bytes"] for run in results["runs"] if run["mode"] == mode)
    loss = "diverged" if np.isnan(last).any() else f"{last.mean():.4f}" + (f" ± {last.std(ddof=1):.4f}" if len(last) > 1 else "")
    line = [mode, f"{bytes_:.2f}", loss]
    shares = against(results, mode)[:, -1]
    if mode == BASELINE:
        return [*line, "", "", str(len(last)), ""]
    if not len(shares) or np.isnan(shares).any():
        return [*line, "", "", str(len(last)), ""]
    bounds = f"{shares.min():+.2f}% to {shares.max():+.2f}%" if len(shares) > 1 else ""
    percent, band = float(shares.mean()), chance(shares)
    if band is None:
        return [*line, f"{percent:+.2f}%", bounds, str(len(last)), ""]
    return [*line, f"{percent:+.2f}% ± {band:.2f}%", bounds, str(len(last)), verdict(percent, float(band))]


def _precision(results: dict) -> list[str]:
    return table(HEADER, [_line(results, mode) for mode in modes_of(results)])


TABLES: dict[str, Callable[[dict], list[str]]] = {"precision": _precision}
