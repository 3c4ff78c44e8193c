"""The parts of `make gpu`: each runs whatever happens to the others, ends in its time, and what it has found is written down."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from fusedrms import FusedRMSProp
from fusedrms.kernels import lang
from fusedrms.tools.cli import main as command
from tools import refused

first = pytest.importorskip("bench.first")
gpu = pytest.importorskip("bench.gpu")
headline = pytest.importorskip("bench.headline")

pytestmark = pytest.mark.skipif(lang.interpreted(), reason="about commands, which need compiled kernels")
CPU = torch.device("cpu")
ROOT = pathlib.Path(__file__).parent.parent
DEAF = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf'); time.sleep(60)"
FILES = ("step.json", "report.md", "scale.png", "tensors.png", "ratios.png", "modes.png")


def part(name: str, code: str, limit: float = 60.0) -> gpu.Part:
    return gpu.Part(name, limit, ["-c", code], "telling")


def child(code: str, file: pathlib.Path) -> str:
    """Code that starts another process, which leaves its id in a file."""
    started = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {DEAF!r}])"
    return f"{started}; open({str(file)!r}, 'w').write(str(child.pid)); {code}"


def running(number: str) -> bool:
    """Whether a process runs; one that has ended may wait for its parent to ask."""
    try:
        return pathlib.Path("/proc", number, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(*numbers: str) -> bool:
    """Whether processes end that have been told to."""
    until = time.monotonic() + 5
    while any(map(running, numbers)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(running, numbers))


class Runner:
    """Runs parts, and keeps what gpu.json said while they ran."""

    def __init__(self, folder: pathlib.Path):
        self.output, self.scratch = folder / "output", folder / "scratch"
        self.scratch.mkdir()
        self.path = self.output / "device/gpu.json"
        self.results = gpu.Results({"device": "a device"}, self.path, self.scratch)

    def __call__(self, *parts: gpu.Part, patience: float = 1.0, interpreter: str = sys.executable) -> int:
        return gpu.run_all(list(parts), [interpreter], patience, self.results, self.output, "device")

    def outcomes(self) -> dict[str, str]:
        return {entry["name"]: entry["outcome"] for entry in json.loads(self.path.read_text())["parts"]}

    def entry(self, name: str) -> dict:
        return next(entry for entry in json.loads(self.path.read_text())["parts"] if entry["name"] == name)

    def adding(self, name: str, *rows: str) -> str:
        """Code that leaves rows as a part does."""
        return f"open({str(self.scratch / name)!r}, 'a').write({''.join(rows)!r})"


@pytest.fixture(autouse=True)
def _hears_ctrl_c():
    """Also where the shell has SIGINT ignored in its background, which children inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def runner(tmp_path, monkeypatch) -> Runner:
    monkeypatch.setattr(gpu, "GRACE", 0.5)
    monkeypatch.setattr(gpu, "POLL", 0.05)
    return Runner(tmp_path)


def started(arguments: list[str], *, environment: dict[str, str] | None = None, **options) -> subprocess.Popen:
    """A command under way, which need not know that a test has started it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**kept, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


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
    module = gpu.Part("missing", 60, ["-m", "no_such_module"], "")
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
    gpu.GRACE = 30.0
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
    gpu.GRACE = 0.5 if number == 1 else 30.0
    file = tmp_path / "pid"
    thread = interrupt_when(lambda: file.exists() and file.read_text(), number)
    begin = time.monotonic()
    assert runner(part("one", ""), part("under way", child(DEAF, file)), part("never", "")) == 130
    assert time.monotonic() - begin < 15
    thread.join()
    assert runner.outcomes() == {"one": "passed", "under way": "interrupted"}
    assert gone(file.read_text())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
        ("--device cpu --only first,secnd", "--only secnd: it takes at least one of compile, first, headline, tests, tune, bench"),
        ("--device cpu --only ,", "--only : it takes at least one of compile"),
        ("--device cpu --patience 0", "--patience 0: it takes a number above 0"),
        ("--device cpu --python '", "--python ': No closing quotation"),
        ("--device tpu", "invalid choice"),
        ("--device cpu --output /dev/null", "Not a directory; name a directory"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    refused(gpu.main, arguments, said, capsys)


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


def test_headline_goes_on(monkeypatch, tmp_path, capsys):
    """After a measurement that fails; and what a guest cannot do is no failure."""

    def raises(*args, **kwargs):
        raise RuntimeError("so it is\nand more")

    monkeypatch.setitem(headline.MEASUREMENTS, "host", raises)
    guest = headline.ALGORITHMS["plain"][headline.ADAMW]._replace(make=raises)
    monkeypatch.setitem(headline.ALGORITHMS["plain"], headline.ADAMW, guest)
    arguments = ["--device", "cpu", "--quick", "--rows", str(tmp_path / "rows")]
    assert headline.main([*arguments, "--only", "plain"]) == 0
    assert headline.main([*arguments, "--only", "host,clip"]) == 1
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    *plain, failed, clip = rows
    assert {row["unit"]: row.get("note") for row in plain}[f"× {headline.ADAMW}"] == "RuntimeError: so it is"
    assert failed["failed"] == "RuntimeError: so it is"
    assert clip["what"] == "clip_grad_norm, extra time, in small"
    assert "2 figures, 1 failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        headline.main(["--device", "cpu", "--only", "clips"])
    assert "--only clips: it takes at least one of plain, launches" in capsys.readouterr().err


def test_headline_pairs_what_memory_cannot_hold_together(monkeypatch):
    scene = headline.Scene(CPU, quick=True)
    numel = headline.numel(scene.smaller(headline.LLAMA))
    for free, rounds in ((1e12, 1), (40 * numel, 2)):
        seen = []
        monkeypatch.setattr(headline, "free_bytes", lambda device, free=free: free)
        monkeypatch.setattr(headline, "in_rounds", lambda scene, others, seen=seen: (seen.append(others) or {"copy": 1.0}, {}))
        headline.beside(scene, [headline.BASELINE, headline.ADAMW])
        assert len(seen) == rounds
    monkeypatch.setattr(headline, "free_bytes", lambda device: 1000)
    (row,) = headline.measured(scene, "smorms3")
    assert row["note"].startswith("needs 0.0 GB of memory")
    assert row["value"] is None


def test_sizes():
    assert (headline.numel(headline.LLAMA), len(headline.LLAMA)) == (1_003_782_144, 37)
    assert (headline.numel(headline.FEW), len(headline.FEW)) == (757_604, 86)
    with torch.device("meta"):
        model = headline.GPT(**headline.SIZES[False].gpt)
    assert 340e6 < sum(param.numel() for param in model.parameters()) < 360e6


def test_first_goes_on(monkeypatch, tmp_path, capsys):
    """After a rule that is wrong."""
    step = FusedRMSProp.step

    def wrong(self, closure=None):
        step(self, closure)
        with torch.no_grad():
            self.param_groups[0]["params"][0].mul_(1.01)

    monkeypatch.setattr(FusedRMSProp, "step", wrong)
    assert first.main(["--device", "cpu", "--quick", "--rows", str(tmp_path / "rows")]) == 1
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [bool(row["failed"]) for row in rows] == [True, False, True, False]
    assert rows[0]["failed"].startswith("AssertionError: param of torch.float32")
    assert "4 rules and dtypes, 2 failed" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_units_of_the_last_place(dtype):
    """Of the largest of a value, its rival, and what it was before."""
    unit = torch.finfo(dtype).eps
    nan, inf, worst = float("nan"), float("inf"), sys.float_info.max
    one = torch.tensor([1.0, 1.0, 1.0, -1.0, 0.0, 0.0, nan, nan, inf, inf], dtype=dtype)
    other = torch.tensor([1.0, 1 + unit, 1 + unit, -1 - unit, -0.0, unit * 0.25, nan, 1.0, inf, 1.0], dtype=dtype)
    before = torch.tensor([1.0, nan, 8.0, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0, inf], dtype=dtype)
    assert first.apart(one, other, before).tolist() == [0.0, 1.0, 0.125, 0.5, 0.0, 0.25, 0.0, worst, 0.0, worst]


def test_distances_of_codes():
    one, other = torch.tensor([5, 3], dtype=torch.uint8), torch.tensor([5, 250], dtype=torch.uint8)
    assert first.apart(one, other, one).tolist() == [0, 247]


def test_distances():
    """Of all elements of all parameters, by name."""
    optimizers = []
    for _ in range(2):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(100)) for _ in range(2)]
        for param in params:
            param.grad = torch.randn(100)
        optimizers.append(FusedRMSProp(params))
        optimizers[-1].step()
    one, other = optimizers
    with torch.no_grad():
        for param, n in zip(other.param_groups[0]["params"], (1, 3), strict=True):
            param[:n] = torch.nextafter(torch.nextafter(param[:n], torch.tensor(9.0)), torch.tensor(9.0))
    found = first.distances(one, other, [value for _, value in first.values(one)])
    assert found == dict(param=dict(most_ulp=2, differ=4, of=200), square_avg=dict(most_ulp=0, differ=0, of=200))


def test_tally():
    """Events as the profiler of an NVIDIA GPU names them; it waits by itself after the step."""

    def event(kind, name, start=0):
        return SimpleNamespace(name=name, device_type=SimpleNamespace(name=kind), time_range=SimpleNamespace(start=start, end=start + 10))

    events = [
        event("CPU", first.SPAN, 100),
        event("CUDA", first.SPAN, 104),
        event("CPU", "Optimizer.step#FusedRMSProp.step", 101),
        event("CUDA", "Optimizer.step#FusedRMSProp.step", 104),
        event("CPU", "cuLaunchKernelEx", 101),
        event("CUDA", "step_kernel", 200),
        event("CUDA", "void at::native::vectorized_elementwise_kernel<...>", 210),
        event("CUDA", "Memset (Device)", 215),
        event("CUDA", "Memcpy HtoD (Pinned -> Device)", 220),
        event("CUDA", "Memcpy DtoD (Device -> Device)", 230),
        event("CPU", "cudaStreamSynchronize", 105),
        event("CPU", "cudaDeviceSynchronize", 300),
    ]
    assert first.tally(events) == dict(launches=2, copies=1, waits=1)
    assert first.tally([]) == dict(launches=0, copies=0, waits=0)


def test_a_profile_has_what_is_counted():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler, torch.profiler.record_function(first.SPAN):
        torch.ones(3).add_(1)
    assert first.tally(profiler.events()) == dict(launches=0, copies=0, waits=0)
    assert any(event.name == first.SPAN for event in profiler.events())


INTERRUPTED_BENCH = """
import os, signal, sys
import bench.measure
timed, steps = bench.measure.timed, []
def counted(benchmark, step, device):
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
    return timed(benchmark, step, device)
bench.measure.timed = counted
from bench.__main__ import main
sys.exit(main(["--device", "cpu", "--output", {folder!r}, "-k", "A2C"]))
"""


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


# fusedrms compile --jobs


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


# make sanitize


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
