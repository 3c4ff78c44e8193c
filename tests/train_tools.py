"""What tests of examples/train_gpt.py share: the program in this process or another, runs at a size that takes seconds, and damage."""

import contextlib
import csv
import functools
import io
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import pytest
import torch

from fusedrms import FusedRMSProp
from fusedrms.kernels import lang

if lang.interpreted():
    pytest.skip("about the Numba driver", allow_module_level=True)

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "train_gpt.py"
sys.path.append(str(SCRIPT.parent))
pytest.importorskip("matplotlib")
train_gpt, compare_runs, gpt = (pytest.importorskip(name) for name in ("train_gpt", "compare_runs", "gpt"))

from training import checkpoint, launch, options, resume  # noqa: E402

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TINY = ("--layers", 1, "--width", 16, "--heads", 2, "--context", 16, "--batch", 4, "--device", "cpu", "--stats", 0)
FOUR = (*TINY, "--steps", 4, "--save-every", 2)
RUNS = tempfile.TemporaryDirectory(prefix="fusedrms-runs-")


def started(arguments: Sequence[object], processes: int = 1) -> subprocess.Popen:
    """The script in a process of its own, or in two that torchrun starts."""
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [sys.executable, *(TORCHRUN if processes > 1 else ()), SCRIPT, *map(str, arguments)],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "HOME": str(pathlib.Path.home()), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen, status: int = 0) -> str:
    """What a process has printed, once it ends with this status."""
    out, _ = process.communicate(timeout=300)
    assert process.returncode == status, out
    return out


def until(process: subprocess.Popen, condition) -> None:
    """Wait for what the process is to bring about."""
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextlib.contextmanager
def one_thread():
    """What is computed then has the same bits on any number of cores."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


@one_thread()
def train(arguments: Sequence[object]) -> int:
    """The exit status of the program, in this process."""
    return train_gpt.main([*map(str, arguments)])


def prepare(arguments: Sequence[object]) -> None:
    """Check the options of a run, which does not begin."""
    with contextlib.ExitStack() as locks:
        launch.requested(options.parser(None), [*map(str, arguments)], locks)


@one_thread()
def alone(parts: list[int], steps: int) -> tuple[list[float], float]:
    """The losses of one process, which adds up the gradients of so many parts of each batch, one after the other, and the held-out loss.

    A sum of two has one order: of two parts it is bit for bit what two processes add up.
    """
    text, held_out = gpt.corpus()
    torch.manual_seed(0)
    model = gpt.GPT(1, 16, 16, 2)
    optimizer = FusedRMSProp(model.parameters(), lr=1e-3)
    losses = []
    for step, count in enumerate(parts):
        tokens, targets = gpt.batch(text, 0, step, 4, 16)
        optimizer.param_groups[0]["lr"] = 1e-3 * train_gpt.rate(step, steps)
        optimizer.zero_grad()
        shares = [model(tokens[part::count], targets[part::count]) for part in range(count)]
        for loss in shares:
            (loss / count).backward()
        optimizer.step()
        losses.append(math.fsum(loss.item() for loss in shares) / count)
    with torch.no_grad():
        return losses, model(*gpt.spread(held_out, 256, 16)).item()


def trained(name: str, arguments: Sequence[object]) -> pathlib.Path:
    folder = pathlib.Path(RUNS.name, name)
    with contextlib.redirect_stdout(io.StringIO()):
        assert train([*arguments, "--output", folder]) == 0
    return folder


@functools.cache
def stopped_run() -> pathlib.Path:
    """A run that has stopped after 3 steps of 12; not to be changed, see copy."""
    return trained("stopped", [*TINY, "--steps", 12, "--stop-at", 3])


@functools.cache
def finished_run() -> pathlib.Path:
    """A run of 4 steps, with the checkpoint before; not to be changed, see copy."""
    return trained("finished", FOUR)


def copy(run: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """What a test may change."""
    return shutil.copytree(run, tmp_path / "run")


def metrics(folder: pathlib.Path) -> list[dict]:
    with open(folder / "metrics.csv") as file:
        return [{key: value for key, value in row.items() if key != "optimizer_ms"} for row in csv.DictReader(file)]


def losses(folder: pathlib.Path) -> list[float]:
    return [float(row["train_loss"]) for row in metrics(folder) if row["optimizer"] == "FusedRMSProp"]


def step_saved(folder: pathlib.Path) -> int:
    return resume.find(str(folder)).about["step"]


def refused(folder: pathlib.Path, capsys) -> str:
    """What is said of a run that cannot be resumed."""
    with pytest.raises(SystemExit) as stop:
        prepare(["--resume", folder])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert f"--resume {folder}" in said
    assert said.endswith((" of another run\n", " without --resume\n"))
    return said


def flip(file: pathlib.Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def of_earlier_version(folder: pathlib.Path) -> None:
    """Take from a checkpoint what earlier versions did not save."""
    (folder / "SHA256SUMS").unlink()
    about = json.loads((folder / "run.json").read_text())
    del about["checksums"]
    (folder / "run.json").write_text(json.dumps(about))


class Count:
    """Something to save."""

    def __init__(self, value: int = 0):
        self.value = value

    def state_dict(self) -> dict:
        return {"value": torch.tensor([self.value])}

    def load_state_dict(self, state: dict) -> None:
        self.value = int(state["value"])


def save_count(folder: pathlib.Path, value: int, last: pathlib.Path | None = None) -> None:
    checkpoint.save(folder, {"count": Count(value)}, {"settings": {}, "step": value, "rows": []}, last)


def load_count(folder: pathlib.Path) -> int:
    count = Count()
    checkpoint.load(folder, {"count": count})
    return count.value
