"""The time that a part of each step takes."""

from __future__ import annotations

import time
from collections import deque

import torch

COMPILING = 5  # first steps whose time is left out, since they may compile
RECENT = 20  # steps


class Stopwatch:
    """Measures what runs within `with`, once a step, the device's work included."""

    def __init__(self, device: torch.device):
        self.device = device
        self.steps = 0
        self.seconds = 0.0  # of the last step
        self.recent: deque[float] = deque(maxlen=RECENT)  # of the last steps that did not compile

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def __enter__(self) -> Stopwatch:
        self.start = self.now()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self.now() - self.start
        self.steps += 1
        if self.steps > COMPILING:
            self.recent.append(self.seconds)

    @property
    def rate(self) -> str:
        """Steps a second; "-" as long as all may have compiled."""
        return f"{len(self.recent) / sum(self.recent):.2f}" if self.recent else "-"
