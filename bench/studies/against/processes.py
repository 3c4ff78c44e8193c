"""The other commit's package in a folder, and workers above a package each."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from typing import Any

from bench.common.arguments import ROOT

PACKAGE = ("fusedrms", "kernels")


class Unusable(Exception):
    """Why a commit cannot be timed."""


class Failed(Exception):
    """Why a case cannot be timed of one."""


def _git(*args: str) -> bytes:
    try:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, check=True).stdout
    except OSError as error:
        raise Unusable(f"git cannot be run ({error.strerror}); install it") from None
    except subprocess.CalledProcessError as error:
        raise Unusable(error.stderr.decode(errors="replace").strip().partition("\n")[0]) from None


def find_commit(name: str) -> str:
    """Its hash."""
    if not (ROOT / ".git").exists():
        raise Unusable(f"{ROOT} is no checkout, so that no other commit is there; clone the repository")
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    except Unusable as error:
        raise Unusable(str(error) or f"there is no commit {name!r} here; see git log, or fetch it") from None


def changed() -> bool:
    """Whether the package differs from its last commit."""
    return bool(_git("status", "--porcelain", "--", *PACKAGE))


def extract(commit: str, folder: pathlib.Path) -> None:
    """The package alone: all else is this commit's."""
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, *PACKAGE))) as tar:
        tar.extractall(folder, filter="data")


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
    """A folder that is removed, also where Ctrl-C or SIGTERM ends this; if nothing can be done any more, by the workers."""

    def stop(number: int, frame: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # a second one would come while things are put away
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fusedrms-against-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


class Worker:
    """A process that times steps of the package in a folder.

    Args:
        name: of the commit, for errors.
        package: folder that holds the package.
        folder: what it removes when who has started it is no more.
        quick: as for cases().
    """

    def __init__(self, name: str, package: pathlib.Path, folder: pathlib.Path, quick: bool):
        self._name, self._package, self._log = name, package, folder / f"{name}.log"
        path = os.pathsep.join(dict.fromkeys(map(str, (package, ROOT))))
        environment = {**os.environ, "PYTHONPATH": path, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        environment["NUMBA_CACHE_DIR"] = str(folder / f"{name}.numba")  # the user's would keep what another commit compiles
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.studies.against.worker", str(int(quick)), str(folder)],
                cwd=package,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for who started it
            )

    def check(self) -> None:
        """Wait until it is ready, with the right package."""
        found = self._answer()
        if self._package.resolve() not in pathlib.Path(found).parents:
            raise Unusable(f"{self._name}: {found} was imported, which is not in {self._package}")

    def ask(self, *question: Any) -> Any:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # there is no answer then
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").strip().rpartition("\n")[2]
            raise Unusable(f"{self._name} cannot be timed, its worker has ended: {said or self._process.wait()}")
        found = json.loads(line)
        if "error" in found:
            raise Failed(f"{self._name}: {found['error']}")
        return found["answer"]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def workers(commit: str, rows: list[str], quick: bool) -> Iterator[tuple[Worker, Worker]]:
    """Of that commit and of this checkout."""
    with scratch() as folder, contextlib.ExitStack() as stack:
        extract(commit, folder / "package")
        for compiling in (True, False):
            both = Worker(commit, folder / "package", folder, quick), Worker("this checkout", ROOT, folder, quick)
            for worker in both:
                stack.callback(worker.stop)
            for worker in both:
                worker.check()
            if compiling:  # what compilers leave on the heap sets tensors apart, and small steps take a fifth longer: others time
                for worker in both:
                    worker.ask("compile", rows)
                    worker.stop()
        yield both
