"""Runs whose files are damaged or cannot be written: they go on from the checkpoint before, and end as one without damage."""

import itertools
import json
import os
import pathlib

import pytest

from tools import on_full_disk
from train_tools import (
    FOUR,
    TINY,
    checkpoint,
    copy,
    finished_run,
    flip,
    metrics,
    of_earlier_version,
    refused,
    step_saved,
    stopped_run,
    train,
)
from training import resume, run


def truncate(file: pathlib.Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def edit(file: pathlib.Path) -> None:
    """To the run.json of another run."""
    about = json.loads(file.read_text())
    about["settings"].update(lr=2e-3, seed=1)
    file.write_text(json.dumps(about))


@pytest.fixture
def plain(monkeypatch):
    """No plot, which takes half of the time of a run as short as these."""
    monkeypatch.setattr(run, "plot", lambda _, path: path.touch())


FILES = ("__0_0.distcp", ".metadata", "run.json", "SHA256SUMS")
DAMAGES = [*itertools.product((flip, truncate, os.remove), FILES), (edit, "run.json")]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(("damage", "name"), DAMAGES)
def test_a_damaged_checkpoint(tmp_path, capsys, damage, name):
    """The run goes on from the one before, says why, and ends as one without damage; the one before stays until there are two again."""
    copied = copy(finished_run(), tmp_path)
    new, old = (copied / name for name in ("checkpoint", "checkpoint.old"))
    damage(new / name)
    assert train(["--resume", copied]) == 0
    said = capsys.readouterr().out
    assert f"{new} is damaged, or not a checkpoint of this program (" in said
    assert f"{name}: it is missing" in said if damage is os.remove else name in said
    assert f"Going on from the checkpoint before it, {old}, saved after step 2\n" in said
    assert f"Resuming {copied} after step 2 of 4\n" in said
    assert metrics(copied) == metrics(finished_run())
    for folder, step in ((new, 4), (old, 2)):
        found = resume.find(str(folder))
        assert (found.about["step"], found.notes) == (step, [])


def test_two_damaged_checkpoints(tmp_path, capsys):
    copied = copy(finished_run(), tmp_path)
    flip(copied / "checkpoint" / "__0_0.distcp")
    edit(copied / "checkpoint.old" / "run.json")
    before = {file: file.is_file() and file.read_bytes() for file in copied.rglob("*")}
    said = refused(copied, capsys)
    assert f"{copied}/checkpoint is damaged, or not a checkpoint of this program (__0_0.distcp: its " in said
    assert f"; {copied}/checkpoint.old is damaged, or not a checkpoint of this program (run.json: its " in said
    assert {file: file.is_file() and file.read_bytes() for file in copied.rglob("*")} == before


@pytest.mark.usefixtures("plain")
def test_a_damaged_checkpoint_by_its_own_name(tmp_path, monkeypatch, capsys):
    """Only that one is taken; the run's folder is the one around it, also where that is not in the name."""
    copied = copy(finished_run(), tmp_path)
    new, old = copied / "checkpoint", copied / "checkpoint.old"
    flip(new / ".metadata")
    assert f"name {copied} to go on from the checkpoint before it" in refused(new, capsys)
    monkeypatch.chdir(old)
    assert train(["--resume", "."]) == 0
    assert metrics(copied) == metrics(finished_run())
    assert (step_saved(new), step_saved(old)) == (4, 2)


def test_a_checkpoint_of_an_earlier_version(tmp_path, capsys):
    copied = copy(stopped_run(), tmp_path)
    of_earlier_version(copied / "checkpoint")
    note = f"{copied}/checkpoint has no SHA256SUMS, since an earlier version saved it: its files cannot be verified"
    assert train(["--resume", copied, "--stop-at", 4]) == 0
    assert capsys.readouterr().out.count(note) == 1
    assert train(["--resume", copied, "--stop-at", 5]) == 0
    assert "SHA256SUMS" not in capsys.readouterr().out


@pytest.mark.parametrize("what", ["tensors", "run.json", "SHA256SUMS", "metrics.csv", "loss.png"])
def test_full_disk(tmp_path, monkeypatch, capsys, what):
    """The checkpoint before is whole; when there is room again, the run goes on as if nothing had been."""
    folder = tmp_path / "run"
    owner, name = {
        "tensors": (checkpoint.dcp, "save"),
        "run.json": (pathlib.Path, "write_text"),
        "SHA256SUMS": (pathlib.Path, "write_text"),
        "metrics.csv": (run, "write_csv"),
        "loss.png": (run, "plot"),
    }[what]
    function, calls = getattr(owner, name), itertools.count(1)
    whole = {"loss.png": 0, "run.json": 2, "SHA256SUMS": 3}.get(what, 1)  # calls until the second checkpoint

    def full(*args, **kwargs):
        return (function if next(calls) <= whole else on_full_disk(function))(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(SystemExit) as stop:
            train([*FOUR, "--output", folder])
    assert stop.value.code == 1
    shown = capsys.readouterr()
    place = folder / (what if "." in what and what != "run.json" else "checkpoint")
    assert f"error: {place} cannot be written (" in shown.err
    assert "File too large" in shown.err
    assert f"Make room, then continue with --resume {folder}: the checkpoint before is whole" in shown.err
    assert step_saved(folder) == (4 if what == "loss.png" else 2)
    assert what != "loss.png" or "Losses in nats" in shown.out
    kept = {"checkpoint", "metrics.csv", "run.lock"}
    before = {"checkpoint.old"}
    assert set(os.listdir(folder)) == (kept | before if what == "loss.png" else kept)
    assert len(metrics(folder)) == (4 if what == "metrics.csv" else 8)
    assert train(["--resume", folder]) == 0
    assert metrics(folder) == metrics(finished_run())
    assert set(os.listdir(folder)) == kept | before | {"loss.png"}


def test_full_disk_at_the_first_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint.dcp, "save", on_full_disk(checkpoint.dcp.save))
    with pytest.raises(SystemExit) as stop:
        train([*TINY, "--steps", 1, "--output", tmp_path / "run"])
    assert stop.value.code == 1
    assert "start anew with another --output: there is no checkpoint yet" in capsys.readouterr().err
