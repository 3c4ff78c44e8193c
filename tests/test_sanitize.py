"""`make sanitize`: each tool runs, whatever the other finds."""

import shutil
import subprocess
import sys

import pytest

from fusedrms.kernels import lang
from process_tools import ROOT

pytestmark = pytest.mark.skipif(lang.interpreted(), reason="about commands, which need compiled kernels")


@pytest.mark.exhaustive
@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(("fails", "passed"), [("memcheck", "racecheck"), ("racecheck", "memcheck"), ("none", "both")])
def test_sanitize(tmp_path, fails, passed):
    """Both tools run, whatever the other finds."""
    sanitizer = tmp_path / "sanitizer"
    sanitizer.write_text(f'#!/bin/sh\necho "ran $2 on" "$@"\ntest "$2" != {fails}\n')
    sanitizer.chmod(0o755)
    arguments = [f"PYTHON={sys.executable}", f"SANITIZER={sanitizer}", "DEVICE=cpu"]
    run = subprocess.run(["make", "sanitize", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert bool(run.returncode) == (fails != "none")
    lines = [line for line in run.stdout.splitlines() if line.startswith("ran")]
    assert [line.split()[1] for line in lines] == ["memcheck", "racecheck"]
    assert all("--target cpu" in line and "bfloat16+split+8bit" in line for line in lines)
    said = {"memcheck", "racecheck"} if passed == "both" else {passed}
    assert all(f"== {tool} passed ==" in run.stdout for tool in said)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_no_sanitizer():
    run = subprocess.run(["make", "sanitize", "SANITIZER=/no/sanitizer"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode
    assert "there is no /no/sanitizer: it comes with the CUDA toolkit" in run.stderr
