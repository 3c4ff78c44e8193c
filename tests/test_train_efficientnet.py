"""The example that trains a small EfficientNet, at a size that takes seconds."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
import torch

from fusedrms.kernels import lang

if lang.interpreted():
    pytest.skip("about the Numba driver", allow_module_level=True)

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "train_efficientnet.py"
sys.path.append(str(SCRIPT.parent))
shapes, train_efficientnet = (pytest.importorskip(name) for name in ("shapes", "train_efficientnet"))

TINY = ("--batch", "8", "--images", "32", "--device", "cpu")


def started(*arguments: str) -> subprocess.Popen:
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [sys.executable, SCRIPT, *TINY, *arguments],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "HOME": str(pathlib.Path.home()), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run():
    process = started("--epochs", "2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert len(lines) == 4
    assert "32 images and 8 held out" in lines[0]
    found = [re.fullmatch(r"epoch +(\d)  parameters +([\d.]+)%  averages +([\d.]+)% +[\d.]+ s", line) for line in lines[1:3]]
    assert [match and match[1] for match in found] == ["1", "2"]
    of_parameters, of_averages = found[-1].groups()[1:]
    ahead = sum(float(match[3]) >= float(match[2]) for match in found)
    said = f"parameters {of_parameters}%, averages {of_averages}%; averages at least as good in {ahead} of 2 epochs"
    assert lines[3] == f"At the end: {said}."


@pytest.mark.usefixtures("hears_ctrl_c")
def test_interrupted():
    """Ctrl-C ends it without a traceback."""
    process = started("--epochs", "1000000")
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--epochs", "0"), "--epochs: '0' is not a whole number from 1"),
        (("--lr", "nan"), "'nan' is not a finite number above 0"),
        (("--ema-decay", "1.5"), "--ema-decay: '1.5' is not a number from 0 to 1"),
        (("--batch", "64", "--images", "32"), "--batch 64: must be at most --images 32"),
        (("--device", "tpu"), "'tpu' is not available here"),
        (("--ema", "0.9"), "unrecognized arguments"),
    ],
)
def test_wrong_options(capsys, given, message):
    with pytest.raises(SystemExit, match="2"):
        train_efficientnet.main([*given])
    assert message in capsys.readouterr().err


def test_shapes():
    """The same seed draws the same pictures, and every class is among them."""
    images, labels = shapes.draw(200, 3)
    again, _ = shapes.draw(200, 3)
    other, _ = shapes.draw(200, 4)
    assert images.shape == (200, 3, 32, 32)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert set(labels.tolist()) == set(range(shapes.CLASSES))
