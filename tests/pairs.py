"""Rows of options such that every value of each meets every value of each other, as far as that is allowed."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def pairwise(name: str, table: Mapping[str, Sequence[Any]], allowed: Callable[[dict[str, Any]], bool], tries: int = 3000) -> list[dict]:
    """Few of them, the same at every run.

    Args:
        name: what random candidates depend on.
        table: values of each option.
        allowed: whether a row may be.
        tries: candidates; those that are allowed are chosen from.
    """
    choose = random.Random(name)
    # values by their numbers: some cannot be hashed
    numbers = {option: range(len(values)) for option, values in table.items()}
    candidates = [{option: choose.choice(values) for option, values in numbers.items()} for _ in range(tries)]
    rows = [row for row in candidates if allowed({option: table[option][n] for option, n in row.items()})]
    pairs = {frozenset(pair): row for row in rows for pair in itertools.combinations(row.items(), 2)}
    found: list[dict] = []
    while pairs:
        best = max(pairs.values(), key=lambda row: sum(frozenset(pair) in pairs for pair in itertools.combinations(row.items(), 2)))
        found.append({option: table[option][n] for option, n in best.items()})
        pairs = {pair: row for pair, row in pairs.items() if not pair <= best.items()}
    return found or [{}]
