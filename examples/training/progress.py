"""A progress bar for each optimizer, at the bottom of the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bars(Progress):
    """One bar for each name, with a text of its own."""

    def __init__(self, console: Console, names: list[str], step: int, steps: int):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        super().__init__(*columns, console=console, expand=True)
        self.bars = {name: self.add_task(name, completed=step, total=steps, text="") for name in names}

    def show(self, name: str, step: int, text: str) -> None:
        self.update(self.bars[name], completed=step, text=text)
