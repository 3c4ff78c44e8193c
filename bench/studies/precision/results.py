"""A file for each problem, to which several processes add the runs that have ended."""

import contextlib
import pathlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from bench.common.store import dumped, load
from bench.studies.precision.modes import MODES
from bench.studies.precision.training import Run
from fusedrms.tools.errors import UserError
from fusedrms.tools.files import write

SAME = "device", "threads", "python", "torch", "numba", "lr", "steps"  # or runs cannot be compared; Python brings the text


class Results:
    """about: what the file says beside its runs."""

    def __init__(self, path: pathlib.Path, about: dict):
        self.path, self.about = path, about
        old = load(path) if path.exists() else about
        for key in SAME:
            if old.get(key) != about[key]:
                both = f"{key} {old.get(key)!r}, and {about[key]!r} is asked for"
                raise UserError(f"{path} holds runs with {both}: remove it, or name another directory with --output")

    def runs(self) -> list[Run]:
        return load(self.path)["runs"] if self.path.exists() else []

    def has(self, mode: str, seed: int) -> bool:
        return any((run["mode"], run["seed"]) == (mode, seed) for run in self.runs())

    @contextlib.contextmanager
    def claimed(self, mode: str, seed: int) -> Iterator[bool]:
        """Whether the run is this process's to make: it is missing, and nobody else is at it."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._lock(f"{mode} {seed}").acquire(timeout=0))
                ours = not self.has(mode, seed)
            except Timeout:
                ours = False
            yield ours

    def add(self, run: Run) -> None:
        with self._lock("runs"):
            places = {name: place for place, name in enumerate(MODES)}
            runs = sorted([*self.runs(), run], key=lambda run: (places[run["mode"]], run["seed"]))
            write(self.path, dumped({**self.about, "runs": runs}, "runs"))

    def _lock(self, name: str) -> FileLock:
        """Ends with its process, however that ends."""
        folder = self.path.parent / "locks"
        folder.mkdir(exist_ok=True)
        return FileLock(folder / f"{self.path.stem} {name}.lock")
