"""What the benchmarks count is right, and documents say what they found."""

import argparse
import json
import math
import os
import pathlib

import numpy as np
import pytest
import torch

from fusedrms.tools import files
from tools import on_full_disk, refused

algorithms = pytest.importorskip("bench.timing.algorithms")
arguments = pytest.importorskip("bench.common.arguments")
documents = pytest.importorskip("bench.report.documents")
first = pytest.importorskip("bench.gpu.first")
gpu = pytest.importorskip("bench.gpu.__main__")
report = pytest.importorskip("bench.report.__main__")
store = pytest.importorskip("bench.common.store")
versions = pytest.importorskip("bench.studies.versions")
workloads = pytest.importorskip("bench.timing.workloads")

CPU = torch.device("cpu")
ROOT = pathlib.Path(__file__).parent.parent


def raw(seconds: float, info: dict, **params) -> dict:
    """As pytest-benchmark has it."""
    name = "-".join(str(value) for value in params.values())
    stats = dict.fromkeys(store.STATISTICS, seconds)
    return {"fullname": f"test[{name}]", "params": params, "extra_info": info, "stats": stats, "options": {}}


@pytest.fixture
def results() -> dict:
    """Every step takes a microsecond more than the last."""
    benchmarks = [raw(0.01, {"n_bytes": 10**9}, limit="copy"), raw(0.02, {"n_bytes": 10**9}, limit="stream")]
    for k, (workload, algorithm, implementation) in enumerate(algorithms.cases(CPU, quick=False)):
        family, shapes = workloads.WORKLOADS[workload]
        numel = sum(map(math.prod, shapes))
        info = dict(family=family, n_tensors=len(shapes), numel=numel, n_bytes=20, held=8.0, extra_bytes=1000, others=0.0)
        names = dict(workload=workload, algorithm=algorithm, implementation=implementation)
        benchmarks.append(raw(1e-3 + k * 1e-6, info, **names))
    benchmarks += [raw(n * 1e-6, {}, n_tensors=n, gradients=kind) for n in (100, 10000) for kind in ("unmoved", "moved")]
    machine = dict(
        device="a device", threads=2, torch="2", commit="0123456789abc", date="2026-01-01", command="python -m bench --device=cpu"
    )
    found = dict(machine_info=machine, commit_info=dict(id="0123456789abc", dirty=False, branch="main"), benchmarks=benchmarks)
    store.complete(found)
    return {**found, "skipped": {"test_step[a-b-c]": "no such thing"}, "failed": {}}


def test_derived_figures(results):
    first, second = store.rows(results)[:2]
    assert (first["implementation"], first["ratio"], first["ms"]) == ("torch foreach", 1, 1)
    assert second["ratio"] == pytest.approx(1 / 1.001, rel=1e-4)
    rate = 20 * first["numel"] / 1e-3
    assert first["gb_per_s"] == pytest.approx(rate / 1e9, rel=1e-4)
    assert first["of_copy"] == pytest.approx(rate / 1e11, rel=1e-4)
    assert first["of_stream"] == pytest.approx(rate / 5e10, rel=1e-4)
    assert json.loads(store.dumped(results)) == results


def test_ratios_of_shared_rounds(results):
    """Medians of other rounds do not matter then."""
    found = [
        raw(seconds, {"n_bytes": 20, "numel": 9, "against_ours": speed}, workload="w", algorithm="a", implementation=name)
        for name, seconds, speed in ((store.BASELINE, 0.3, 0.25), (store.OURS, 0.2, 1.0), (store.COMPILED, 0.1, 0.8))
    ]
    results["benchmarks"] = found
    store.complete(results)
    assert [row["ratio"] for row in store.rows(results)] == [1, 4, 3.2]
    _, ours, compiled = store.rows(results)
    assert documents.steps._against(ours, compiled) == "1.2×"


def test_report(results, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "step.json"
    files.write(path, store.dumped(results))
    assert report.main([str(path)]) == 0
    text = (tmp_path / "report.md").read_text()
    for line in ("* skipped: no such thing: a-b-c", "each one more costs 1.000 µs"):
        assert line in text
    plots = {name for name in os.listdir(tmp_path) if name.endswith(".png")}
    assert plots == {"scale.png", "tensors.png", "ratios.png", "beside_torch.png", "modes.png"}
    assert all(f"]({name})" in text for name in plots - {"beside_torch.png"})  # which README shows


def test_tables_are_refilled(results, tmp_path):
    files.write(tmp_path / "results/step.json", store.dumped(results))
    names = list(documents.steps.TABLES)
    empty = "\n".join(["Text", *(f"<!-- from results/step.json: {name} -->\n| old |\n\nmore" for name in names), ""])
    (tmp_path / "README.md").write_text(empty)
    assert documents.refill(tmp_path) == [tmp_path / "README.md"]
    text = (tmp_path / "README.md").read_text()
    assert "| old |" not in text
    assert text.count("\n\nmore") == len(names)
    assert documents.refill(tmp_path) == []
    edited = text.replace("| 1.00 |", "| 0.50 |").replace("1.0×", "2.0×")
    assert edited != text
    assert documents.filled(edited, tmp_path) == text
    with pytest.raises(ValueError, match="there is no table 'nothing'"):
        documents.filled("<!-- from results/step.json: nothing -->", tmp_path)


def test_documents_say_what_was_measured():
    """`python -m bench.report --documents` mends it."""
    found = set()
    for page in ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))):
        text = (ROOT / page).read_text()
        found |= {(page, marker[1]) for line in text.split("\n") if (marker := documents.marked(line))}
        assert documents.filled(text) == text, f"{page} says other figures than its files: python -m bench.report --documents"
    assert {name for _, name in found} == set(documents.TABLES), "a table that no document shows is not needed"


def test_provenance(results):
    """Of a file of pytest-benchmark's, and of a study's."""
    (_, _, nested), (_, _, flat) = map(
        documents.TABLES["provenance"], (results, {**results["machine_info"], "threads": 1, "changed": True})
    )
    assert nested == "| a device, 2 threads | torch 2 | 0123456789, 2026-01-01 | `python -m bench --device=cpu` |"
    assert flat == "| a device, 1 thread | torch 2 | 0123456789 with changes, 2026-01-01 | `python -m bench --device=cpu` |"


def test_what_missed_its_aim():
    rows = [dict(what=what, value=0.5, unit="of copy", aim="≥ 0.9", met=met) for what, met in (("a", True), ("b", False), ("c", None))]
    assert documents.TABLES["missed"]({"headline": rows})[2:] == ["| b | 0.5 of copy | ≥ 0.9 |"]


def test_versions_are_recorded(tmp_path):
    """What a row is run with replaces what it had; rows stand by version, in whatever order they were run."""
    outcomes, results = [tmp_path / name for name in ("native", "interpreted")], tmp_path / "versions.json"
    cases = ['<testcase classname="a" name="b"/>', '<testcase classname="a" name="c"><skipped/></testcase>']
    wrong = ['<testcase classname="a" name="d"><failure/></testcase>', '<testcase name="e"><error/></testcase>']
    for path, found in zip(outcomes, (cases, cases + wrong), strict=True):
        path.write_text(f"<testsuites><testsuite>{''.join(found)}</testsuite></testsuites>")
    entry = versions.entry("row", [str(path) for path in outcomes])
    assert {key: entry[key] for key in ("passed", "failed", "skipped")} == dict(passed=2, failed=2, skipped=2)
    assert "a::d" in entry["failures"]
    assert entry["numpy"] == np.__version__
    for name, passed in (("2.10.0", 2), ("2.9.1+cpu", 2), ("2.10.0", 5)):
        versions.record({**entry, "row": name, "torch": name, "passed": passed}, results)
    _, _, *lines = versions.TABLES["versions"](store.load(results))
    assert [(line.split(" | ")[1], line.split(" | ")[5]) for line in lines] == [("2.9.1", "2"), ("2.10.0", "5")]


def test_files_are_written_whole(tmp_path):
    path = tmp_path / "file"
    files.write(path, "old")
    with pytest.raises(TypeError):
        files.write(path, 1)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_results_on_a_full_disk(tmp_path, capsys, monkeypatch):
    """An error that names the file, and exit status 1; what runs goes on."""
    parser = argparse.ArgumentParser("bench")
    with pytest.raises(SystemExit) as stop, arguments.writing(parser):
        on_full_disk(files.write)(tmp_path / "step.json", "x" * 1000)
    assert stop.value.code == 1
    assert f"bench: error: {tmp_path}/step.json cannot be written (File too large): free space" in capsys.readouterr().err
    results = gpu.Results({}, tmp_path / "gpu.json", tmp_path)
    monkeypatch.setattr(gpu, "write", on_full_disk(files.write))
    results.keep("a part")
    assert "gpu.json lacks results" in results.problem
    assert not os.listdir(tmp_path)
    monkeypatch.undo()
    results.keep()
    assert results.problem is None
    assert os.listdir(tmp_path) == ["gpu.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_are_no_results(tmp_path, capsys):
    for name in ("rows", "folder"):
        os.mkfifo(tmp_path / name)
    refused(lambda given: first.main(["--device", "cpu", *given]), f"--rows {tmp_path}/rows", "it is not a regular file", capsys)
    with pytest.raises(OSError, match="it is not a regular file"):
        files.write(tmp_path / "rows", "x")
    with pytest.raises(SystemExit, match="2"):
        arguments.check_output(argparse.ArgumentParser("bench"), tmp_path / "folder")


def test_command_line(tmp_path, capsys):
    bench = pytest.importorskip("bench.__main__")
    (tmp_path / "file").write_text("")
    wrong = [(["--output", str(tmp_path / "file")], "Not a directory; name a directory"), (["--device", "tpu"], "invalid choice")]
    wrong.append((["--output", ""], "'' names no place"))
    if not torch.cuda.is_available():
        wrong.append((["--device", "cuda"], "torch finds no CUDA or ROCm device; use --device cpu"))
    for given, message in wrong:
        with pytest.raises(SystemExit) as stop:
            bench.main(given)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
