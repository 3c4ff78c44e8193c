"""A run: the steps to take, the metrics they give, and the checkpoints they leave, in each of its processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist
from rich.console import Console

from training import checkpoint, stats_csv
from training.checkpoint_files import ABOUT, CURRENT
from training.job import Job
from training.learner import Learner
from training.parallel import all_gather, decided_by_first, local_device
from training.progress import Bars
from training.report import plot, plot_ratios, table, write_csv
from training.settings import is_evaluated, optimizers
from training.signals import deferred_signals
from training.stats_csv import STATS


class Run:
    """What the training loop asks and tells. All processes call its methods together; the first one prints and writes."""

    def __init__(self, job: Job):
        self.job = job
        self.settings = job.settings
        self.parallel = job.parallel
        self.train_text, self.held_out_text = job.train_text, job.held_out_text
        self.device = local_device(job.settings.device)
        self.optimizers = optimizers(job.settings.compare)
        self.step = job.step  # that was taken last, or is being taken
        self.stats = stats_csv.stats_option(self.settings.stats, self.step)  # of the optimizer that measures
        self.rows = job.rows  # the metrics: one row for each step and optimizer
        self.checkpoint: Path | None = job.checkpoint  # loaded or saved last
        self.signals: list[int] = []  # received by this process
        self.stopped_by = 0  # the number of a signal that any process received
        self.console = Console(quiet=dist.get_rank() > 0)

    def say(self, text: object) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, learners: list[Learner]) -> None:
        """Load the checkpoint of a resumed run, and say what is trained, and where."""
        self.learners = learners
        if self.checkpoint:
            for note in self.job.notes:
                self.say(note)
            self.say(f"Resuming {self.job.folder} after step {self.step} of {self.settings.steps}")
            self.load(self.checkpoint)
            with checkpoint.writing(self.job.folder, STATS):
                decided_by_first(lambda: stats_csv.begin(self.job.folder, self.step))
        parameters = sum(parameter.numel() for parameter in learners[0].model.parameters())
        processes = f", {dist.get_world_size()} processes" if self.parallel else ""
        self.say(f"{parameters:,} parameters, {len(self.train_text):,} bytes of text, on {self.settings.device}{processes}")

    def load(self, folder: Path) -> None:
        try:
            checkpoint.load(folder, {learner.name: learner for learner in self.learners})
            if (saved := self.learners[0].schedule.last_epoch) != self.step:
                where = f"--resume: {folder / ABOUT}"
                raise ValueError(f"{where}: step is {self.step}, but the tensors beside it were saved after step {saved}; restore it")
        except ValueError as error:
            raise checkpoint.NotLoaded(str(error)) from None

    @contextmanager
    def steps(self) -> Iterator[Iterator[int]]:
        """The steps to take, numbered from 0; meanwhile there are progress bars, and Ctrl-C and SIGTERM only stop after a step."""
        if self.step == self.settings.steps:  # a finished run that is resumed
            yield iter(())
            return
        self.bars = Bars(self.console, self.optimizers, self.step, self.settings.steps)
        with deferred_signals() as self.signals, self.bars:
            yield self._until_stopped()

    def _until_stopped(self) -> Iterator[int]:
        while self.step < self.job.stop_at and not self.stopped_by:
            self.step += 1
            yield self.step - 1

    def in_turn(self) -> Iterator[Learner]:
        """Each learner for a step, which lasts until the next one is asked for."""
        for learner in self.learners:
            with learner.turn:
                yield learner

    def log(self, metrics: list[dict]) -> None:
        """Add the metrics of each optimizer's step, with the losses averaged over all processes, and learn of signals there.

        Of a step that is measured, write its statistics.
        """
        gathered = all_gather([*(row["train_loss"] for row in metrics), self.signals[0] if self.signals else 0])
        self.stopped_by = int(gathered[:, -1].max())
        for row, loss in zip(metrics, gathered.mean(0).tolist(), strict=False):
            self.rows.append({"step": self.step, **row, "train_loss": loss})
        if stats_csv.is_measured(self.step, self.settings.stats):
            with checkpoint.writing(self.job.folder, STATS):
                stats_csv.measure(self.job.folder, self.step, self.learners)
        for learner in self.learners:
            self.bars.show(learner.name, self.step, self.progress(learner))

    def row(self, learner: Learner) -> dict:
        """The last step's metrics."""
        return self.rows[self.learners.index(learner) - len(self.learners)]

    def progress(self, learner: Learner) -> str:
        return f"loss {self.row(learner)['train_loss']:.3f} {learner.turn.rate:>6} steps/s"

    def evaluation_is_due(self) -> bool:
        return is_evaluated(self.step, self.settings.steps)

    def log_held_out(self, learner: Learner, loss: float) -> None:
        self.row(learner)["held_out_loss"] = loss
        self.console.print(f"{self.step:6} {learner.name:19} {self.progress(learner)}  held-out {loss:.3f}", highlight=False)

    def checkpoint_is_due(self) -> bool:
        return self.step % self.settings.save_every == 0 or self.step == self.job.stop_at or self.stopped_by > 0

    def save(self) -> None:
        """Write the metrics and a checkpoint."""
        folder = self.job.folder
        with checkpoint.writing(folder, "metrics.csv"):
            decided_by_first(lambda: write_csv(self.rows, folder / "metrics.csv"))
        with checkpoint.writing(folder, CURRENT):
            about = {"settings": vars(self.settings), "step": self.step, "rows": self.rows}
            self.checkpoint = checkpoint.save(folder, {learner.name: learner for learner in self.learners}, about, self.checkpoint)

    def finish(self) -> int:
        """Say how the run ended, with results if it is complete; return the exit status."""
        folder, steps = self.job.folder, self.settings.steps
        if self.step < steps:
            self.say(f"Stopped at step {self.step} of {steps}. Continue with --resume {folder}")
            return 128 + self.stopped_by if self.stopped_by else 0
        if dist.get_rank() == 0:
            table(self.rows, self.console)
        with checkpoint.writing(folder, "loss.png"):
            decided_by_first(lambda: plot(self.rows, folder / "loss.png"))
        with checkpoint.writing(folder, "update_ratios.png"):
            decided_by_first(lambda: plot_ratios(stats_csv.ratios(folder), folder / "update_ratios.png"))
        for name in ("metrics.csv", "loss.png", STATS, "update_ratios.png", CURRENT):
            if (folder / name).exists():
                self.say(folder / name)
        return 0
