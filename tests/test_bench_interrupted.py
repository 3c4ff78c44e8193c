"""`make bench` that is interrupted writes what it has."""

import json

import pytest

from fusedrms.kernels import lang
from process_tools import started

pytest.importorskip("bench")
pytestmark = [
    pytest.mark.skipif(lang.interpreted(), reason="about commands, which need compiled kernels"),
    pytest.mark.usefixtures("hears_ctrl_c"),
]

INTERRUPTED_BENCH = """
import os, signal, sys
import bench.timing.measure as measure
timed, steps = measure.timed, []
def counted(benchmark, step, device, *beside):
    def run():
        if len(steps) == {n}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                import time; time.sleep(10)
            except KeyboardInterrupt:
                {then}
        return step()
    steps.append(step)
    if len(steps) == {n}:
        benchmark.pedantic(run)
    return timed(benchmark, step, device, *beside)
measure.timed = counted
from bench.__main__ import main
sys.exit(main(["--device", "cpu", "--output", {folder!r}, "-k", "A2C"]))
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("then", ["raise", "raise RuntimeError('made of it')"])
@pytest.mark.parametrize("n", [1, 3])
def test_bench_writes_what_it_has_when_it_is_interrupted(tmp_path, n, then):
    """In the first round of the nth timing, of which a compiler may make another error."""
    with started(["-c", INTERRUPTED_BENCH.format(n=n, then=then, folder=str(tmp_path))]) as run:
        shown = run.stdout.read()
    assert run.returncode == 2, shown
    found = list(tmp_path.rglob("step.json"))
    if n == 1:
        assert "nothing was written" in shown
        assert not found
        return
    results = json.loads(found[0].read_text())
    assert [entry["params"]["implementation"] for entry in results["benchmarks"]] == ["torch foreach", "fusedrms"]
    assert len(results["failed"]) == (then != "raise")
    assert "interrupted: all that was left" in (found[0].parent / "report.md").read_text()
