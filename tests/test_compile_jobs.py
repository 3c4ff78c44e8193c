"""fusedrms compile --jobs: the same in processes as in one, and none is left behind."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from fusedrms.kernels import lang
from fusedrms.tools.cli import main as command
from process_tools import ROOT, gone, started

pytestmark = [
    pytest.mark.skipif(lang.interpreted(), reason="about commands, which need compiled kernels"),
    pytest.mark.usefixtures("hears_ctrl_c"),
]


@pytest.mark.exhaustive
def test_compile_in_processes(tmp_path):
    """As in one: nothing is compiled again then, and rows stand in the same order."""
    if lang.triton is None:
        pytest.skip("needs Triton")
    arguments = ["-m", "fusedrms", "compile", "--target", "sm_90,cpu", "--rules", "rmsprop,smorms3", "--dtypes", "float32", "--json"]
    found = []
    for jobs in ("2", "1"):
        with started([*arguments, "--jobs", jobs], environment={"TRITON_CACHE_DIR": str(tmp_path)}) as run:
            found.append([(row["target"], row["what"]) for row in json.loads(run.stdout.read())])
        assert run.returncode == 0
        assert len(list(tmp_path.rglob("*.cubin"))) == 10  # steps and squares, aligned or not, for 2 rules; norms, counters
    assert found[0] == found[1]
    assert len(found[0]) == 8


@pytest.mark.exhaustive
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_kernel_that_fails_is_named(tmp_path, jobs):
    """And those after it are compiled."""
    if lang.triton is None:
        pytest.skip("needs Triton")
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "file/none")}
    arguments = ["-m", "fusedrms", "compile", "--target", "sm_90,cpu", "--rules", "rmsprop", "--dtypes", "float32", "--jobs", jobs]
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    for what in ("norms", "rmsprop, float32, aligned", "rmsprop, float32, unaligned"):
        assert f"fusedrms compile: sm_90: {what}: OSError: Triton's cache in {environment['TRITON_CACHE_DIR']} cannot be used" in run.stderr
    assert "1 kernels in" in run.stdout


def test_wrong_number_of_jobs(capsys):
    assert command(["compile", "--jobs", "0"]) == 2
    assert "--jobs 0" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_compile_ends_with_its_processes(tmp_path):
    """Ctrl-C that only the command itself hears."""
    if lang.triton is None or not pathlib.Path("/proc/self/task").exists():
        pytest.skip("needs Triton and Linux")
    arguments = ["-m", "fusedrms", "compile", "--target", "sm_80,sm_90", "--jobs", "2"]
    with started(arguments, environment={"TRITON_CACHE_DIR": str(tmp_path)}) as run:
        while not any(tmp_path.rglob("*.cubin")):
            assert run.poll() is None
            time.sleep(0.1)
        children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        assert len(children) >= 2
        run.send_signal(signal.SIGINT)
        run.stdout.read()
    assert run.returncode == 130
    assert gone(*children)
