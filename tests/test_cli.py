"""The command fusedrms: what it prints for people and machines, and what it says of wrong arguments."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

import gpu
from fusedrms import autotune, doctor
from fusedrms.cli import COMMANDS, main
from fusedrms.kernels import lang

pytestmark = pytest.mark.skipif(lang.interpreted(), reason="the commands are about compiled kernels")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"example: {COMMANDS[command].example}" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("tune --rules rmsprob", "'rmsprob' is none of rmsprop"),
        ("tune --dtypes float8", "'float8' is none of"),
        ("tune --dtypes bfloat16+4bit", "'bfloat16+4bit'"),
        ("tune --dtypes bfloat16+split+master", "twice"),
        ("tune --dtypes float16+split", "float16"),
        ("tune --rules rmsprop --dtypes float32", "--output"),
        ("tune --dtypes float64+8bit", "float64"),
        ("tune --rules ,", "at least one"),
        ("tune --sizes ,", "at least one"),
        ("tune --sizes tiny,huge", "--sizes tiny: it takes at least one of small, mixed, huge"),
        ("tune --budget 0", "--budget 0"),
        ("tune --budget nan", "--budget nan"),
        ("tune --output /dev/null/x", "--output"),
        ("compile --target sm_9x", "sm_9x"),
        ("compile --rules adam", "'adam'"),
        ("inspect --target sm_9x", "sm_9x"),
        ("inspect --rule adam", "adam"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    assert main(arguments.split()) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("arguments", ["tune --device cuda", "compile --target cuda"])
def test_no_gpu(arguments, capsys):
    assert main(arguments.split()) == 2
    assert "no CUDA" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["tone"], ["doctor", "--fast"]])
def test_argparse_errors(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_doctor(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(autotune, "directories", lambda: [tmp_path])
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    cpu = report["devices"][0]
    assert cpu["driver"] == "Numba"
    assert cpu["self_test"]["ok"]
    assert any("fusedrms tune --device cpu" in sentence for sentence in report["advice"])
    (tmp_path / cpu["looked_for"]).write_text("{")
    assert main(["doctor"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "self-test" in shown
    assert "does not count" in shown


def test_doctor_fails_where_a_device_computes_nonsense(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "TOLERANCE", -1.0)
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["devices"][0]["self_test"]["ok"]
    assert any("self-test failed" in sentence for sentence in report["advice"])


def test_compile_here(capsys):
    assert main(["compile", "--target", "cpu", "--rules", "rmsprop,smorms3", "--dtypes", "float32", "--json"]) == 0
    assert [row["what"] for row in json.loads(capsys.readouterr().out)] == ["rmsprop, float32", "smorms3, float32"]


@pytest.mark.gpu
def test_compile_on_a_gpu(capsys):
    """By steps of its own, at addresses that are aligned and not."""
    assert main(["compile", "--target", gpu.KIND, "--rules", "rmsprop", "--dtypes", "float32,bfloat16+8bit", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["what"].rpartition(", ")[2] for row in found] == ["aligned", "unaligned"] * 2 * gpu.module.device_count()


@pytest.mark.skipif(lang.triton is None, reason="needs Triton")
def test_compile_for_a_gpu_that_is_not_here(capsys, tmp_path, monkeypatch):
    """A second process finds everything in the cache; no driver is left behind."""
    from triton.runtime import driver

    from fusedrms.kernels import norm, step

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    counts = []
    for _ in range(2):
        for kernel in (step.step_kernel, norm.squares_kernel, norm.norms_kernel):
            kernel.device_caches.clear()
        assert main(["compile", "--target", "sm_90", "--rules", "rmsprop", "--dtypes", "bfloat16+split+8bit"]) == 0
        counts.append(len(list(tmp_path.rglob("*.cubin"))))
    assert counts == [5, 5]  # aligned and unaligned, of steps and of squares; norms
    assert "3 kernels" in capsys.readouterr().out
    assert driver._active is None


def test_console_script_and_module_are_the_same():
    script = pathlib.Path(sys.executable).parent / "fusedrms"
    commands = [[sys.executable, "-m", "fusedrms"], *([[str(script)]] if script.exists() else [])]
    for command in commands:
        run = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, env=os.environ)
        assert run.stdout.startswith("fusedrms ")
