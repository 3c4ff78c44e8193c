"""The main job's log of statistics: stats.csv, and the heat map that is drawn from it."""

import csv
import json
import math
import os
import pathlib

import pytest
import torch

from tools import on_full_disk
from train_tools import TINY, copy, ended, gpt, metrics, of_earlier_version, prepare, started, step_saved, stopped_run, train, train_gpt
from training import report, stats_csv

NAMES = [name for name, _ in gpt.GPT(1, 16, 16, 2).named_parameters()]
SIX = (*TINY, "--no-compare", "--steps", 6)


def rows(folder: pathlib.Path) -> list[dict]:
    with open(folder / "stats.csv", newline="") as file:
        return list(csv.DictReader(file))


def steps(folder: pathlib.Path) -> list[int]:
    """Those measured; each has a row for each parameter, in the model's order."""
    found = rows(folder)
    measured = [int(row["step"]) for row in found[:: len(NAMES)]]
    assert [(int(row["step"]), row["parameter"]) for row in found] == [(step, name) for step in measured for name in NAMES]
    return measured


@pytest.fixture
def plain(monkeypatch):
    """No plots, which take half of the time of a run as short as these."""
    for name in ("plot", "plot_ratios"):
        monkeypatch.setattr(f"training.run.{name}", lambda *_: None)


def test_contents(tmp_path, capsys):
    """Those of the first step are what torch.optim.RMSprop's comes to."""
    folder = tmp_path / "run"
    assert train([*TINY, "--steps", 6, "--stats", 2, "--output", folder]) == 0
    assert steps(folder) == [1, 3, 5]
    for row in rows(folder):
        values = {key: float(value) for key, value in row.items() if key != "parameter"}
        assert values["update_ratio"] == pytest.approx(values["update_norm"] / values["param_norm"], rel=1e-12)
        assert 0 < values["grad_max"] <= values["grad_norm"]
        assert values["square_avg_norm"] > 0
        assert 0 <= values["grad_zeros"] < 1
        assert values["grad_nonfinite"] == 0
    assert (folder / "update_ratios.png").read_bytes().startswith(b"\x89PNG")
    assert {"stats.csv", "update_ratios.png"} <= {pathlib.Path(line).name for line in capsys.readouterr().out.split()}

    torch.manual_seed(0)
    model = gpt.GPT(1, 16, 16, 2)
    before = [param.detach().clone() for param in model.parameters()]
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3 * train_gpt.rate(0, 6))
    model(*gpt.batch(gpt.corpus()[0], 0, 0, 4, 16)).backward()
    optimizer.step()
    for param, old, row in zip(model.parameters(), before, rows(folder), strict=False):
        assert param.grad is not None
        for key, value in dict(grad_norm=param.grad, update_norm=param - old, param_norm=param).items():
            assert float(row[key]) == pytest.approx(value.norm().item(), rel=1e-3)


@pytest.mark.usefixtures("plain")
def test_training_is_the_same(tmp_path):
    """Bit for bit, with statistics and without, which writes none."""
    for every in (0, 2):
        assert train([*SIX, "--stats", every, "--output", tmp_path / f"{every}"]) == 0
    assert metrics(tmp_path / "0") == metrics(tmp_path / "2")
    tensors = [(tmp_path / every / "checkpoint" / "__0_0.distcp").read_bytes() for every in "02"]
    assert tensors[0] == tensors[1]


def test_off(tmp_path):
    assert train([*SIX, "--stats", 0, "--output", tmp_path / "run"]) == 0
    assert set(os.listdir(tmp_path / "run")) == {"checkpoint", "loss.png", "metrics.csv", "run.lock"}


@pytest.mark.usefixtures("plain")
def test_resume(tmp_path):
    """Wherever a run was stopped, and whatever it has written since its checkpoint, its file is that of one never stopped."""
    once = tmp_path / "once"
    assert train([*SIX, "--stats", 2, "--output", once]) == 0
    content = (once / "stats.csv").read_bytes()
    after = b"".join(line for line in content.splitlines(keepends=True) if line.startswith(b"5,"))
    for stopped in (1, 2, 3, 4):
        folder = tmp_path / f"{stopped}"
        assert train([*SIX, "--stats", 2, "--output", folder, "--stop-at", stopped]) == 0
        with (folder / "stats.csv").open("ab") as file:
            file.write(after[:-20] if stopped % 2 else after)  # killed while it wrote, or later
        assert train(["--resume", folder]) == 0
        assert (folder / "stats.csv").read_bytes() == content


@pytest.mark.usefixtures("plain")
def test_changed_when_resumed(tmp_path):
    folder = tmp_path / "run"
    assert train([*SIX, "--stats", 2, "--output", folder, "--stop-at", 3]) == 0
    assert train(["--resume", folder, "--stats", 1, "--stop-at", 4]) == 0
    assert train(["--resume", folder, "--stats", 0]) == 0
    assert steps(folder) == [1, 3, 4]
    assert metrics(folder)[-1]["step"] == "6"


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("given", [(), ("--stats", 2)])
def test_a_run_of_an_earlier_version(tmp_path, given):
    """It is resumed without statistics, or with them."""
    copied = copy(stopped_run(), tmp_path)
    of_earlier_version(copied / "checkpoint")
    file = copied / "checkpoint" / "run.json"
    about = json.loads(file.read_text())
    del about["settings"]["stats"]
    file.write_text(json.dumps(about))
    assert train(["--resume", copied, *given, "--stop-at", 6]) == 0
    assert step_saved(copied) == 6
    assert (copied / "stats.csv").exists() == bool(given)
    assert not given or steps(copied) == [5]


def test_checkpoints_have_no_names():
    """Those of earlier versions have none, and torch.distributed.checkpoint misses them."""
    for file in (stopped_run() / "checkpoint").iterdir():
        assert b"param_names" not in file.read_bytes()


@pytest.mark.parametrize("value", ["-1", "2.5", "often", "True", ""])
def test_wrong_values(capsys, value):
    with pytest.raises(SystemExit) as stop:
        prepare(["--stats", value])
    assert stop.value.code == 2
    assert f"argument --stats: {value!r} is not a whole number from 0 to" in capsys.readouterr().err


@pytest.mark.usefixtures("plain")
def test_full_disk(tmp_path, monkeypatch, capsys):
    folder, append = tmp_path / "run", stats_csv.measure
    with monkeypatch.context() as patch:
        patch.setattr(stats_csv, "measure", lambda at, step, learners: (on_full_disk(append) if step > 3 else append)(at, step, learners))
        with pytest.raises(SystemExit) as stop:
            train([*SIX, "--stats", 2, "--save-every", 2, "--output", folder])
    assert stop.value.code == 1
    assert f"error: {folder / 'stats.csv'} cannot be written (" in capsys.readouterr().err
    assert train(["--resume", folder]) == 0
    assert steps(folder) == [1, 3, 5]


@pytest.mark.parametrize("count", [1, 2, 1300])
def test_any_ratios(tmp_path, count):
    """None, 0 and infinity too, of one step or several, and of so many parameters that not each has its label."""
    values = [0.1, 0.0, math.inf, math.nan]
    for found in ({}, {1: {f"{k}": values[k % 4] for k in range(count)}}, {1: {"0": 0.0}, 3: {"0": 0.1, "1": 1.0}, 4: {}}):
        path = tmp_path / f"{len(found)}.png"
        report.plot_ratios(found, path)
        assert path.exists() == bool(found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_several_processes(tmp_path, parallel):
    """The first writes what all have measured together, by the names that one process has, which goes on."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert train([*SIX, "--lr", 1e-5, "--stats", 3, "--output", one]) == 0
    ended(started([*SIX, "--lr", 1e-5, "--stats", 3, "--output", two, "--parallel", parallel, "--stop-at", 5], processes=2))
    assert train(["--resume", two]) == 0
    assert steps(one) == steps(two) == [1, 4]
    for a, b in zip(rows(one), rows(two), strict=True):
        assert float(a["param_norm"]) == pytest.approx(float(b["param_norm"]), rel=1e-3)
        assert float(a["update_ratio"]) == pytest.approx(float(b["update_ratio"]), rel=1e-2)
