"""The course of an algorithm: its episodes and evaluations, its time, and whether it is done."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from statistics import fmean

from a3c.cartpole import ActorCritic, evaluate
from training.progress import Bars

EVALUATIONS = 20  # of a run that nothing ends before
EPISODES, FINAL_EPISODES = 20, 100
SEED, FINAL_SEED = 10**6, 2 * 10**6  # of their episodes: the same ones at every evaluation, and others at the last
RUNNING = 50  # episodes in the running mean of returns


@dataclass
class Spent:
    """Seconds of the processes that learn, added up; the first update of each, which compiles or loads the kernel, is left out."""

    updates: int = 0
    total: float = 0.0
    optimizer: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.updates + other.updates, self.total + other.total, self.optimizer + other.optimizer)


@dataclass
class Course:
    """The course of an algorithm: what the main process hears, shows and decides."""

    name: str
    args: argparse.Namespace
    bars: Bars
    began: float = field(default_factory=time.perf_counter)
    steps: int = 0  # of environments
    episodes: list[tuple[int, float, float]] = field(default_factory=list)  # steps of all when it ended, seconds, return
    evaluations: list[tuple[int, float]] = field(default_factory=list)  # steps, mean return
    spent: Spent = field(default_factory=Spent)
    seconds: float = 0.0
    final: float | None = None  # mean return of the last evaluation

    def note(self, steps: int, returns: list[float]) -> None:
        """So many steps have been made, and episodes have ended with these returns. What workers say may come in another order."""
        self.steps, seconds = max(self.steps, steps), time.perf_counter() - self.began
        self.episodes += [(self.steps, seconds, each) for each in returns]
        if returns:
            running = fmean(each for _, _, each in self.episodes[-RUNNING:])
            self.bars.show(self.name, min(self.steps, self.args.steps), f"mean return {running:5.1f}")

    def is_solved(self, model: ActorCritic, steps: int) -> bool:
        """Evaluate the policy after so many steps, if that is due; whether it is good enough to stop.

        The best of many evaluations is better than its policy: what decides is a second one of the same weights, on other episodes.
        """
        before = self.evaluations[-1][0] if self.evaluations else 0
        if steps - before < self.args.steps / EVALUATIONS:
            return False
        frozen = ActorCritic()  # workers go on changing the model
        frozen.load_state_dict(model.state_dict())
        self.evaluations.append((steps, evaluate(frozen, EPISODES, SEED)))
        if self.evaluations[-1][1] < self.args.solved:
            return False
        final = evaluate(frozen, FINAL_EPISODES, FINAL_SEED)
        if final >= self.args.solved:
            self.end(final)
        return self.final is not None

    def end(self, final: float) -> None:
        self.final, self.seconds = final, time.perf_counter() - self.began
