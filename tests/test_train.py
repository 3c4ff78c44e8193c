"""The main job, at a size that takes seconds: it trains, compares, writes its files, and resumes."""

import math
import re

import pytest
import torch
from filelock import FileLock
from rich.console import Console

from train_tools import TINY, compare_runs, copy, ended, flip, metrics, prepare, started, stopped_run, train
from training import folder, stopwatch


def test_resume_is_exact(tmp_path, capsys):
    """A run by the script, and one in halves."""
    tiny = (*TINY, "--steps", 6)
    once, halves = tmp_path / "once", tmp_path / "halves"
    out = ended(started([*tiny, "--output", once]))
    assert "FusedRMSProp" in out
    assert "torch.optim.RMSprop" in out
    assert len(re.findall(r"loss [\d.]+ +- steps/s  held-out", out)) == 10  # the first 5 steps may compile
    assert len(re.findall(r"loss [\d.]+ +[\d.]+ steps/s  held-out", out)) == 2
    assert (once / "loss.png").stat().st_size > 1000
    assert train([*tiny, "--output", halves, "--stop-at", 3]) == 0
    assert f"--resume {halves}" in "".join(capsys.readouterr().out.split("\n"))
    assert train(["--resume", halves]) == 0
    assert metrics(once) == metrics(halves)
    assert len(metrics(once)) == 12
    assert metrics(once)[-1]["held_out_loss"]
    losses = {row["optimizer"]: float(row["train_loss"]) for row in metrics(once)}  # of the last step
    assert losses["FusedRMSProp"] == pytest.approx(losses["torch.optim.RMSprop"], rel=1e-3)


def test_rate_without_compilation(monkeypatch):
    """The first steps, which may compile, count neither among the steps nor in their time."""
    now, rates = 0.0, []
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now)
    watch = stopwatch.Stopwatch(torch.device("cpu"))
    for seconds in (60.0, *[10.0] * 4, 0.5, 0.5, 0.25):
        with watch:
            now += seconds
        assert watch.seconds == seconds
        rates.append(watch.rate)
    assert rates == [*["-"] * 5, "2.00", "2.00", "2.40"]


def test_a_run_that_saves_is_not_read(tmp_path, capsys):
    """Its checkpoint may be half replaced, which is no damage."""
    copied = copy(stopped_run(), tmp_path)
    flip(copied / "checkpoint" / "run.json")
    with FileLock(copied / "run.lock"), pytest.raises(SystemExit, match="2"):
        prepare(["--resume", copied])
    assert f"{copied}: another run is writing to it" in capsys.readouterr().err


def test_a_run_that_was_killed_at_once(tmp_path):
    """What it leaves is as good as an empty folder."""
    (tmp_path / "run.lock").touch()
    assert folder.new_folder(tmp_path) == tmp_path
    (tmp_path / "metrics.csv").touch()
    with pytest.raises(ValueError, match="already exists"):
        folder.new_folder(tmp_path)


def test_no_lock(tmp_path, capsys):
    copied = copy(stopped_run(), tmp_path)
    (copied / "run.lock").unlink()
    (copied / "run.lock").mkdir()
    with pytest.raises(SystemExit) as stop:
        train(["--resume", copied])
    assert stop.value.code == 2
    assert f"{copied}/run.lock: cannot be written (Is a directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("processes", "given", "message"),
    [
        (None, ("--width", "10", "--heads", "4"), "--width 10"),
        (None, ("--steps", "-1"), "'-1' is not a whole number"),
        (None, ("--resume", "nowhere"), "nowhere"),
        (None, ("--output", ""), "'' names no place"),
        (None, ("--lr", "nan"), "'nan' is not a finite number above 0"),
        (None, ("--dtype", "float8"), "'float8' is not one of float32"),
        (None, ("--parallel", "ddp"), "torchrun --standalone --nproc-per-node 2"),
        (2, ("--device", "cpu"), "--parallel"),
        (5, ("--parallel", "fsdp", "--batch", "12", "--device", "cpu"), "--batch 12: must be a multiple of the number of processes, 5"),
    ],
)
def test_wrong_options(monkeypatch, capsys, tmp_path, processes, given, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: processes or 1)
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: processes is not None)
    with pytest.raises(SystemExit, match="2"):
        prepare(given)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_more_processes_than_gpus(monkeypatch, capsys):
    for owner, name, value in (
        (torch.cuda, "is_available", True),
        (torch.cuda, "device_count", 1),
        (torch.distributed, "get_world_size", 2),
        (torch.distributed, "is_torchelastic_launched", True),
    ):
        monkeypatch.setattr(owner, name, lambda value=value: value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2"):
        prepare(["--parallel", "ddp", "--device", "cuda"])
    assert "1 GPUs" in capsys.readouterr().err


def test_compare(tmp_path):
    def written(name: str, *losses: float) -> str:
        (tmp_path / name).mkdir()
        rows = [f"{step},FusedRMSProp,{loss},{loss}" for step, loss in enumerate(losses, 1)]
        (tmp_path / name / "metrics.csv").write_text("\n".join(("step,optimizer,train_loss,held_out_loss", *rows)))
        return str(tmp_path / name)

    one, console = written("one", 5.0, 4.0), Console(quiet=True)
    assert compare_runs.compare(one, written("near", 5.0 + 1e-6, 4.0), console)
    assert not compare_runs.compare(one, written("far", 5.0, 4.0 + 1e-5), console)
    assert not compare_runs.compare(one, written("nan", 5.0, math.nan), console)
    with pytest.raises(ValueError, match="same losses"):
        compare_runs.compare(one, written("short", 5.0), console)
