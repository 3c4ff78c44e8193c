"""Ctrl-C and SIGTERM: the first waits for the end of a step, the second does not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Yield a list that collects Ctrl-C and SIGTERM, so that neither cuts a step in half; a second one stops at once."""
    received: list[int] = []

    def note(number, _frame):
        received.append(number)
        signal.signal(number, signal.default_int_handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
