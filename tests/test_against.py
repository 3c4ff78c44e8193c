"""The study against another commit: both are timed, and nothing is left behind, whatever ends it."""

import json
import pathlib
import signal
import tempfile
import time

import pytest

from fusedrms.kernels import lang
from process_tools import ROOT, gone, started
from sample import exhaustive
from tools import refused

study = pytest.importorskip("bench.studies.against.__main__")
processes = pytest.importorskip("bench.studies.against.processes")
rows = pytest.importorskip("bench.studies.against.rows")
table = pytest.importorskip("bench.studies.against.table")

pytestmark = pytest.mark.skipif(lang.interpreted(), reason="times compiled kernels")
needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")


def children(number: int) -> list[str]:
    """Ids of a process's children."""
    return pathlib.Path(f"/proc/{number}/task/{number}/children").read_text().split()


@pytest.mark.exhaustive
@needs_git
def test_against(tmp_path, capsys):
    assert not study.main(["HEAD", "--quick", "--only", "A2C", "host", "busy", "--output", str(tmp_path)])
    results = json.loads((tmp_path / "against.json").read_text())
    assert not results["skipped"]
    assert {row["row"] for row in results["rows"]} == {"A2C", "host", "busy"}
    for row in results["rows"]:
        assert 0 < row["old_us"] < 1e5
        assert 0.02 < row["old_us"] / row["new_us"] < 50
        assert (row["new_ratio"] is None) == (row["row"] == "host")
    assert results["against"] == processes.find_commit("HEAD")
    assert results["command"] == "python -m bench.studies.against HEAD --quick --only A2C host busy"
    shown = capsys.readouterr().out
    for made in table.TABLES["against"](results):
        assert made in shown


def test_rows():
    """A key names one case; the short run has of each row one at least."""
    few, all_ = rows.cases(quick=True), rows.cases(quick=False)
    assert {case.row for case in few.values()} == {case.row for case in all_.values()}
    assert len(all_) > len(few)
    assert all(case.key == key for key, case in all_.items())
    assert all(case.baseline or case.at_least is None for case in all_.values())


@needs_git
@pytest.mark.parametrize("name", ["no-such-commit", "HEAD:README.md", "--all"])
def test_unknown_commit(capsys, tmp_path, name):
    refused(study.main, f"--output {tmp_path} -- {name}", f"there is no commit {name!r}", capsys)


def test_no_checkout(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    refused(study.main, f"HEAD --output {tmp_path}", "is no checkout", capsys)


@needs_git
def test_commit_that_does_not_import(capsys, tmp_path, monkeypatch):
    def extract(commit, folder):
        (folder / "fusedrms").mkdir(parents=True)
        (folder / "fusedrms/__init__.py").write_text("import missing_then")

    monkeypatch.setattr(processes, "extract", extract)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    refused(study.main, f"HEAD --quick --output {tmp_path / 'out'}", "its worker has ended: ModuleNotFoundError", capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@needs_git
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, exhaustive(signal.SIGTERM)])
@pytest.mark.parametrize("when", ["starting", exhaustive("timing")])
def test_nothing_is_left_behind(tmp_path, number, when):
    arguments = ["-m", "bench.studies.against", "HEAD", "--only", "busy", "--output", str(tmp_path / "out")]
    with started(arguments, environment={"TMPDIR": str(tmp_path)}) as run:
        until = time.monotonic() + 300
        while len(children(run.pid)) < (2 if when == "starting" else 3) and time.monotonic() < until:  # the third keeps a core busy
            time.sleep(0.02)
        left = children(run.pid)
        assert len(left) >= 2
        run.send_signal(number)
        shown = run.communicate(timeout=20)[0]
    assert run.returncode == (-number if number == signal.SIGKILL else 130), shown
    until = time.monotonic() + 20
    while not gone(*left) and time.monotonic() < until:
        pass
    assert gone(*left)
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}
    assert not list(tmp_path.rglob("against.json"))
