"""The main job, at a size that takes seconds: it trains, compares, writes its files, and resumes bit for bit."""

import csv
import pathlib
import subprocess
import sys

import pytest
import torch

from fusedrms.kernels import lang

SCRIPT = pathlib.Path(__file__).parent.parent / "examples" / "train_gpt.py"
pytest.importorskip("rich")
pytestmark = pytest.mark.skipif(lang.interpreted(), reason="about the Numba driver")


def train(*options, expect=0) -> str:
    result = subprocess.run(
        [sys.executable, SCRIPT, *map(str, options)],
        env={"PYTHONPATH": str(SCRIPT.parent.parent), "PATH": "/usr/bin:/bin", "HOME": str(pathlib.Path.home())},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == expect, result.stdout + result.stderr
    return result.stdout + result.stderr


def metrics(folder):
    with open(folder / "metrics.csv") as file:
        return [{key: value for key, value in row.items() if key != "optimizer_ms"} for row in csv.DictReader(file)]


def test_resume_is_exact(tmp_path):
    tiny = ("--layers", 1, "--width", 16, "--heads", 2, "--context", 16, "--batch", 2, "--steps", 6, "--device", "cpu")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    out = train(*tiny, "--output", whole)
    assert "FusedRMSProp" in out
    assert "torch.optim.RMSprop" in out
    assert (whole / "loss.png").stat().st_size > 1000
    assert "--resume" in train(*tiny, "--output", halves, "--stop-at", 3)
    train("--resume", halves)
    assert metrics(whole) == metrics(halves)
    assert len(metrics(whole)) == 12
    a, b = (torch.load(folder / "checkpoint.pt", weights_only=True)["trainers"] for folder in (whole, halves))
    for name in a:
        for key, value in a[name]["model"].items():
            assert torch.equal(value, b[name]["model"][key])
    losses = {row["optimizer"]: float(row["train_loss"]) for row in metrics(whole)}  # of the last step
    assert losses["FusedRMSProp"] == pytest.approx(losses["torch.optim.RMSprop"], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"), [(("--width", 10, "--heads", 4), "--width"), (("--steps", -1), "--steps"), (("--resume", "nowhere"), "nowhere")]
)
def test_wrong_options(options, message):
    assert message in train(*options, expect=2)
