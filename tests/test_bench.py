"""What the benchmarks compare computes the same thing, what they count is right, and documents say what they found."""

import argparse
import json
import math
import os
import pathlib

import numpy as np
import pytest
import torch

from fusedrms.tools import files
from tools import assert_close, on_full_disk, refused, twins

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
SHAPES = [(3, 5), (1030,), (7,)]
STEPS = [(algorithm, name) for algorithm, implementations in algorithms.ALGORITHMS.items() for name in implementations]


def made(algorithm: str, name: str, params: list[torch.nn.Parameter]):
    """A step; None where the implementation cannot be had."""
    try:
        return algorithms.ALGORITHMS[algorithm][name].make(params)
    except algorithms.Unavailable:
        return None


@pytest.mark.parametrize("algorithm", algorithms.ALGORITHMS)
def test_implementations_agree(algorithm):
    first = workloads.parameters(SHAPES, CPU)
    results = []
    for name, implementation in algorithms.ALGORITHMS[algorithm].items():
        params = twins(first)
        step = made(algorithm, name, params) if implementation.agrees and not implementation.compiled else None
        if step is None:
            continue
        torch.manual_seed(1)
        for _ in range(4):
            for param in params:
                param.grad = torch.randn_like(param)
            step()
        results.append(params)
    assert len(results) > 1
    assert not any(torch.equal(p, q) for p, q in zip(first, results[0], strict=True))
    for other in results[1:]:
        assert_close(results[0], other, steps=20)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("algorithm", "name"), STEPS)
def test_bytes(algorithm, name):
    """What is declared for a step is what its parameters, states and gradients come to."""
    measure = pytest.importorskip("bench.timing.measure")
    implementation = algorithms.ALGORITHMS[algorithm][name]
    step = None if implementation.compiled else made(algorithm, name, workloads.parameters([(64, 64)], CPU))
    if step is None:
        return
    step()
    counted = measure.held_and_moved(step)
    if counted is None:
        assert implementation.n_bytes
        return
    held, moved = counted
    again = 4 if algorithm == "clip-norm" else 0  # gradients are read once more, for their norm
    assert moved + again == pytest.approx(implementation.n_bytes or moved)
    assert held < implementation.n_held


@pytest.mark.parametrize(
    ("name", "n_tensors", "numel"),
    [
        ("ResNet-50", 161, 25_557_032),
        ("EfficientNet-B0", 213, 5_288_548),
        ("GPT-2 small", 148, 124_439_808),
        ("Llama-3-8B, 1 layer", 9, 218_112_000),
        ("A2C MLP", 12, 11_079),
        ("1,000,000,000 parameters", 1, 10**9),
        ("10,000 of 64", 10_000, 640_000),
    ],
)
def test_shapes(name, n_tensors, numel):
    _, shapes = workloads.WORKLOADS[name]
    assert (len(shapes), sum(map(math.prod, shapes))) == (n_tensors, numel)


def test_parameters():
    (param,) = workloads.parameters([(3, 2**19 + 1)], CPU)
    assert param.shape == param.grad.shape == (3, 2**19 + 1)
    assert param.is_contiguous()
    assert not torch.equal(param, param.grad)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_selection(device):
    cases = list(algorithms.cases(torch.device(device), quick=False))
    assert len(set(cases)) == len(cases)
    assert {(algorithm, name) for _, algorithm, name in cases} == set(STEPS)
    for workload, algorithm, _ in cases:  # ratios can be had, while it runs
        assert next(case for case in cases if case[:2] == (workload, algorithm))[2] == store.BASELINE
    assert set(algorithms.cases(torch.device(device), quick=True)) < set(cases)


def test_extra_bytes():
    measure = pytest.importorskip("bench.timing.measure")

    def step():
        first = torch.ones(1000)
        del first
        return torch.ones(250) + torch.ones(250)

    assert measure.extra_bytes(step, CPU) == 4000
    assert measure.extra_bytes(lambda: None, CPU) == 0


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


def test_report(results, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "step.json"
    files.write(path, store.dumped(results))
    assert report.main([str(path)]) == 0
    text = (tmp_path / "report.md").read_text()
    for line in ("* skipped: no such thing: a-b-c", "each one more costs 1.000 µs"):
        assert line in text
    plots = {name for name in os.listdir(tmp_path) if name.endswith(".png")}
    assert plots == {"scale.png", "tensors.png", "ratios.png", "modes.png"}
    assert all(f"]({name})" in text for name in plots)


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
    refused(lambda given: first.main(["--device", "cpu", *given]), f"--rows {tmp_path}/rows", "it is no regular file", capsys)
    with pytest.raises(OSError, match="it is no regular file"):
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
