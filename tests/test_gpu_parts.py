"""The parts of `make gpu`: each runs whatever happens to the others, ends in its time, and what it has found is written down."""

import json
import os
import pathlib
import signal
import sys
import threading
import time

import pytest
import torch

from fusedrms.kernels import lang
from process_tools import DEAF, child, gone, started
from tools import refused

gpu = pytest.importorskip("bench.gpu.__main__")
process = pytest.importorskip("bench.gpu.process")

pytestmark = [
    pytest.mark.skipif(lang.interpreted(), reason="about commands, which need compiled kernels"),
    pytest.mark.usefixtures("hears_ctrl_c"),
]

FILES = ("step.json", "report.md", "scale.png", "tensors.png", "ratios.png", "modes.png")


def part(name: str, code: str, limit: float = 60.0) -> process.Part:
    return process.Part(name, limit, ["-c", code], "telling")


class Runner:
    """Runs parts, and keeps what gpu.json said while they ran."""

    def __init__(self, folder: pathlib.Path):
        self.output, self.scratch = folder / "output", folder / "scratch"
        self.scratch.mkdir()
        self.path = self.output / "device/gpu.json"
        self.results = gpu.Results({"device": "a device"}, self.path, self.scratch)

    def __call__(self, *parts: process.Part, patience: float = 1.0, interpreter: str = sys.executable) -> int:
        return gpu.run_all(list(parts), [interpreter], patience, self.results, self.output, "device")

    def outcomes(self) -> dict[str, str]:
        return {entry["name"]: entry["outcome"] for entry in json.loads(self.path.read_text())["parts"]}

    def entry(self, name: str) -> dict:
        return next(entry for entry in json.loads(self.path.read_text())["parts"] if entry["name"] == name)

    def adding(self, name: str, *rows: str) -> str:
        """Code that leaves rows as a part does."""
        return f"open({str(self.scratch / name)!r}, 'a').write({''.join(rows)!r})"


@pytest.fixture
def runner(tmp_path, monkeypatch) -> Runner:
    monkeypatch.setattr(process, "GRACE", 0.5)
    monkeypatch.setattr(process, "POLL", 0.05)
    return Runner(tmp_path)


def interrupt_when(condition, n: int = 1) -> threading.Thread:
    """Ctrl-C once a condition holds, and again n - 1 times."""

    def wait():
        while not condition():
            time.sleep(0.02)
        for _ in range(n):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_all_run_whatever_fails(runner, tmp_path, capfd):
    """In their order; a command that cannot start is a part that failed."""
    noted = tmp_path / "order"
    note = f"open({str(noted)!r}, 'a').write('{{}} ')"
    bad = [part("raises", note.format("raises") + "; raise ValueError('so it is')"), part("exits", note.format("exits") + "; exit(3)")]
    module = process.Part("missing", 60, ["-m", "no_such_module"], "")
    assert runner(part("fine", note.format("fine")), *bad, module, part("last", note.format("last") + "; print('done')")) == 1
    assert noted.read_text().split() == ["fine", "raises", "exits", "last"]
    assert runner.outcomes() == dict(fine="passed", raises="failed", exits="failed", missing="failed", last="passed")
    assert runner.entry("exits")["code"] == 3
    assert "ValueError: so it is" in runner.entry("raises")["tail"]
    assert "No module named no_such_module" in runner.entry("missing")["tail"]
    assert "done" in capfd.readouterr().out


def test_no_interpreter(runner):
    assert runner(part("one", ""), part("two", ""), interpreter="/no/such/python") == 1
    assert runner.outcomes() == dict(one="failed", two="failed")
    assert runner.entry("one")["tail"] == "/no/such/python: No such file or directory"


def test_exit_status(runner):
    assert runner(part("one", ""), part("two", "")) == 0


def test_one_that_hangs_is_killed(runner, tmp_path):
    """With its children, at its limit; what it has found and printed is kept, and the next one runs."""
    file, rows = tmp_path / "pid", runner.adding("headline", '{"what": "a"}\n', '{"wh')
    assert runner(part("hangs", child(f"{rows}; {DEAF}", file), limit=4.0), part("next", "")) == 1
    assert runner.outcomes() == dict(hangs="timed out", next="passed")
    assert gone(file.read_text())
    entry = runner.entry("hangs")
    assert entry["code"] == -signal.SIGKILL
    assert 4.5 <= entry["seconds"] < 30
    assert "deaf" in entry["tail"]
    assert json.loads(runner.path.read_text())["headline"] == [{"what": "a"}]


def test_one_that_is_late_is_interrupted_first(runner):
    process.GRACE = 30.0
    code = "import time\ntry:\n time.sleep(60)\nexcept KeyboardInterrupt:\n print('telling: saved'); exit(0)"
    assert runner(part("late", code, limit=2.0), patience=2.0) == 1
    entry = runner.entry("late")
    assert (entry["outcome"], entry["code"], entry["limit"]) == ("timed out", 0, 4.0)
    assert gpu.important(entry, "telling") == "telling: saved"


def test_children_that_are_left_behind_end(runner, tmp_path):
    assert runner(part("leaves", child("", tmp_path / "pid"))) == 0
    assert gone((tmp_path / "pid").read_text())


def test_rows_are_there_while_it_runs(runner, tmp_path):
    """The part waits until the file says what it has found."""
    code = f"""
import json, pathlib, time
{runner.adding("first", '{"rule": "rmsprop"}' + chr(10))}
path = pathlib.Path({str(runner.path)!r})
until = time.monotonic() + 20
while json.loads(path.read_text())["first"] != [{{"rule": "rmsprop"}}]:
    assert time.monotonic() < until
    time.sleep(0.02)
said = json.loads(path.read_text())
assert said["running"] == "second" and [entry["name"] for entry in said["parts"]] == ["one"], said
"""
    assert runner(part("one", ""), part("second", code)) == 0
    assert json.loads(runner.path.read_text())["running"] is None


@pytest.mark.parametrize("number", [1, 2])
def test_interrupted(runner, tmp_path, number):
    """The second Ctrl-C does not wait for a part that is deaf to the first."""
    process.GRACE = 0.5 if number == 1 else 30.0
    file = tmp_path / "pid"
    thread = interrupt_when(lambda: file.exists() and file.read_text(), number)
    begin = time.monotonic()
    assert runner(part("one", ""), part("under way", child(DEAF, file)), part("never", "")) == 130
    assert time.monotonic() - begin < 15
    thread.join()
    assert runner.outcomes() == {"one": "passed", "under way": "interrupted"}
    assert gone(file.read_text())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.exhaustive
def test_interrupted_from_outside(tmp_path):
    """The command itself, in the background of a shell that has SIGINT ignored."""
    arguments = ["-m", "bench.gpu", "--device", "cpu", "--only", "first,headline", "--output", str(tmp_path)]
    ignored = dict(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    with started(arguments, **ignored) as run:
        next(line for line in run.stdout if "beside the CPU" in line)
        run.send_signal(signal.SIGTERM)
        shown = run.stdout.read()
    assert run.returncode == 130
    assert "interrupted" in shown
    (path,) = tmp_path.rglob("gpu.json")
    results = json.loads(path.read_text())
    assert [(entry["name"], entry["outcome"]) for entry in results["parts"]] == [("first", "interrupted")]
    assert "KeyboardInterrupt" in results["parts"][0]["tail"]
    assert results["first"]
    assert results["headline"] == []


def test_files(runner, tmp_path):
    """At most eight, two folders deep: what is left of locks and of files that were half written goes."""
    device = runner.output / "device"
    made = [runner.output / "device.json", *(device / name for name in FILES)]
    junk = [runner.output / "device.json.lock", runner.output / ".device.json.x.tmp", device / ".step.json.x"]
    code = f"import pathlib; [pathlib.Path(name).write_text('') for name in {[str(path) for path in made + junk]}]"
    runner(part("one", code))
    assert {path for path in runner.output.rglob("*") if path.is_file()} == {runner.path, *made}
    assert len(made) + 1 == 8


def test_parts(tmp_path):
    """In the order of what matters, within the time of one command."""
    device = torch.device("cpu")
    every = gpu.parts(device, tmp_path, tmp_path, quick=False)
    assert [one.name for one in every] == ["compile", "first", "headline", "tests", "tune", "bench"]
    assert sum(one.limit for one in every) < 540
    assert all(
        ("--quick" in one.arguments) == (one.name in ("first", "headline", "bench")) for one in gpu.parts(device, tmp_path, tmp_path, True)
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--device cpu --only first,secnd", "--only secnd: give at least one of compile, first, headline, tests, tune, bench"),
        ("--device cpu --only ,", "--only : give at least one of compile"),
        ("--device cpu --patience 0", "--patience 0: it takes a number above 0"),
        ("--device cpu --python '", "--python ': No closing quotation"),
        ("--device tpu", "invalid choice"),
        ("--device cpu --output /dev/null", "Not a directory; name a directory"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    refused(gpu.main, arguments, said, capsys)


@pytest.mark.exhaustive
def test_only(tmp_path, capsys):
    """The real parts on this CPU; what cannot be had without a GPU says so."""
    code = gpu.main(["--device", "cpu", "--quick", "--only", "headline,first", "--output", str(tmp_path), "--patience", "4"])
    (path,) = tmp_path.rglob("*.json")
    results = json.loads(path.read_text())
    assert code == 0, results["parts"]
    assert [entry["name"] for entry in results["parts"]] == ["first", "headline"]
    assert "4 rules and dtypes, 0 failed; at most 0 ulp" in capsys.readouterr().out
    assert all(found["differ"] == 0 < found["of"] for row in results["first"] for found in row["values"].values())
    notes = {row["what"]: row.get("note") for row in results["headline"]}
    assert (notes["few"], notes["many"], notes["graph"]) == ("no GPU",) * 3
    units = {row["unit"] for row in results["headline"] if row["value"] is not None}
    assert units >= {"of copy", "× torch foreach", "reads of the gradients", "µs a step", "of a step is the optimizer's"}
    measured = [row for row in results["headline"] if row["value"] is not None]
    assert all(row["what"].endswith(", in small") and row["met"] is None for row in measured)
