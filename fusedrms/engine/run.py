"""What the steps of an optimizer leave behind."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

import torch
from torch import Tensor

from . import debug
from .options.skip_above import SkipAbove
from .recipes import Recipes
from .state.ties import Ties
from .tables.spikes import Spikes

if TYPE_CHECKING:
    from .backwards import Backwards
    from .checkpoints.copies import Copies
    from .tables.plan import Plan


def _counted(steps: Tensor | None, another: Tensor) -> Tensor:
    """How many steps there are with this one: in place, where it is."""
    if steps is None:
        steps = torch.zeros((), dtype=torch.int64, device=another.device)
    elif steps.device != another.device:
        steps = steps.to(another.device)
    steps += another
    return steps


class Run:
    """What steps leave behind, in one object, so that whatever shares the optimizer's attributes has it too (Fabric's wrappers, say)."""

    def __init__(self, ties: Ties | None = None) -> None:
        self.tables: list[Plan] = []  # of the last steps, each with gradients of other parameters; that of the last one first
        self.skipped: Tensor | None = None
        self.above: Tensor | None = None  # as many of these were spikes
        self.spikes: Spikes | None = None
        self.captured: list[Plan] = []  # whose tables are read by CUDA graphs
        self.recipes = Recipes()
        self.ties = Ties() if ties is None else ties
        self.facts: debug.Facts | None = None  # of the last step, if it was watched
        self.parts: WeakSet[Run] = WeakSet()  # of the parameters that step by themselves, in a backward
        self.backwards: Backwards | None = None  # in which these do
        self.backward = -1  # of a part: that of its last step
        self.norm: Tensor | None = None  # likewise: of its gradient there
        self.least_norm: Tensor | float | None = None  # to which those norms are raised that limit a parameter by its own
        self.copies: Copies | None = None  # what the last state_dict holds
        self.n_steps = 0
        self.measured: Plan | None = None  # with which the last step was made that took statistics
        self.averaged = False  # the parameters hold their averages

    @property
    def plan(self) -> "Plan | None":
        """What the last step was made with."""
        return self.tables[0] if self.tables else None

    def measured_plans(self) -> "list[Plan]":
        """Those with which steps took statistics, one of each part."""
        return [run.measured for run in (self, *self.parts) if run.measured]

    def table_bytes(self) -> int:
        """Of all tables that are kept."""
        return sum(plan.table_bytes() for run in (self, *self.parts) for plan in run.tables)

    def grad_norm(self) -> Tensor | None:
        """L2 norm of all gradients at the last step, or in the last backward; None if nothing limits it."""
        if self.backwards:
            return self.backwards.norm()
        return self.plan.grad_norm() if self.plan else None

    def skipped_steps(self) -> Tensor:
        """How many steps were left out: a tensor of its own."""
        return torch.zeros((), dtype=torch.int64, device="cpu") if self.skipped is None else self.skipped.clone()

    def skipped_by_reason(self) -> dict[str, Tensor]:
        """The same, apart."""
        total = self.skipped_steps()
        above = torch.zeros_like(total) if self.above is None else self.above.to(total.device, copy=True)
        return {"nonfinite": total - above, "above": above}

    def spikes_for(self, option: SkipAbove | None) -> Spikes | None:
        """With the norms so far if the option is another; begun anew where it was off."""
        if option is None:
            self.spikes = None
        elif self.spikes is None or self.spikes.option != option:
            self.spikes = Spikes(option, self.accepted())
        return self.spikes

    def accepted(self) -> list[float]:
        """The norms of the last steps that skip_above did not leave out, the oldest first; waits for the device."""
        return self.spikes.accepted() if self.spikes else []

    def count(self, skipped: Tensor | None) -> None:
        """A step has been made; skipped: as tables.SKIP, not 0 if it was left out, None if that could not be."""
        made = True
        if skipped is not None:
            made = skipped.device.type != "cpu" or not skipped.item()
            if not (made and skipped.device.type == "cpu"):  # there the host knows that there is nothing to count
                self.skipped = _counted(self.skipped, skipped != 0)
                if self.spikes:
                    self.above = _counted(self.above, skipped < 0)
        if self.ties.settled:
            self.ties.end(made=made)

    def check_copies(self) -> None:
        """RuntimeError if someone has written into the last state_dict, and has not loaded it."""
        if self.copies:
            self.copies.check()
            self.copies = None

    def measures(self, capturing: bool) -> bool:
        """Count a step where any group is measured, and tell whether this one is; capturing: in a graph, at each replay."""
        n, self.n_steps = self.n_steps, self.n_steps + 1
        return capturing or any(n % every == 0 for every in self.recipes.stats)

    def check_not_averaged(self, what: str) -> None:
        """RuntimeError if the parameters hold their averages."""
        if self.averaged:
            raise RuntimeError(f"{what} within averaged(), while the parameters hold their averages: leave the with block first")

    def release(self) -> None:
        """Free all tables."""
        for run in (self, *self.parts):
            run.tables, run.measured = [], None

    def restart(self, option: SkipAbove | None, accepted: Sequence[float]) -> None:
        """Forget what was known of states that others have replaced; accepted: norms of steps that they have made."""
        self.release()
        self.spikes = Spikes(option, accepted) if option else None
        self.copies = None
        self.ties.clear()
        if self.backwards:
            self.backwards.restart()
