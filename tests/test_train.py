"""The main job, at a size that takes seconds: it trains, compares, writes its files, and resumes, in one process or several."""

import csv
import itertools
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
import torch
from filelock import FileLock
from rich.console import Console

from fusedrms import FusedRMSProp
from fusedrms.kernels import lang
from tools import on_full_disk

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "train_gpt.py"
sys.path.append(str(SCRIPT.parent))
pytest.importorskip("matplotlib")
checkpoint, compare_runs, gpt, options, parallel, report, settings, train_gpt = (
    pytest.importorskip(name) for name in ("checkpoint", "compare_runs", "gpt", "options", "parallel", "report", "settings", "train_gpt")
)
pytestmark = pytest.mark.skipif(lang.interpreted(), reason="about the Numba driver")

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TINY = ("--layers", 1, "--width", 16, "--heads", 2, "--context", 16, "--batch", 4, "--device", "cpu")


def started(*options, processes=1) -> subprocess.Popen:
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [sys.executable, *(TORCHRUN if processes > 1 else ()), SCRIPT, *map(str, options)],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "HOME": str(pathlib.Path.home()), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(*options, processes=1, expect=0) -> str:
    process = started(*options, processes=processes)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == expect, out
    return out


def metrics(folder):
    with open(folder / "metrics.csv") as file:
        return [{key: value for key, value in row.items() if key != "optimizer_ms"} for row in csv.DictReader(file)]


def step_saved(folder) -> int:
    return checkpoint.find(str(folder)).about["step"]


def start(*given) -> None:
    """Check the options of a run, which does not begin."""
    with ExitStack() as locks:
        train_gpt.start(options.parser(None), [*map(str, given)], locks)


def test_resume_is_exact(tmp_path):
    tiny = (*TINY, "--steps", 6)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    out = train(*tiny, "--output", whole)
    assert "FusedRMSProp" in out
    assert "torch.optim.RMSprop" in out
    assert (whole / "loss.png").stat().st_size > 1000
    assert "--resume" in train(*tiny, "--output", halves, "--stop-at", 3)
    with FileLock(halves / "run.lock"):
        assert "another run" in train("--resume", halves, expect=2)
    train("--resume", halves)
    assert metrics(whole) == metrics(halves)
    assert len(metrics(whole)) == 12
    assert metrics(whole)[-1]["held_out_loss"]
    losses = {row["optimizer"]: float(row["train_loss"]) for row in metrics(whole)}  # of the last step
    assert losses["FusedRMSProp"] == pytest.approx(losses["torch.optim.RMSprop"], rel=1e-3)


REFUSED = """
import os
from parallel import first_decides, process_group

def refuse():
    raise SystemExit(2)

first, *_ = os.sched_getaffinity(0)
os.sched_setaffinity(0, {first})
with process_group():
    for thread in map(int, os.listdir("/proc/self/task")):
        os.sched_setaffinity(thread, {first})
        if thread != os.getpid():
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    first_decides(refuse)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="holds threads back with Linux's scheduler")
def test_refusal_on_a_busy_machine():
    """The group's threads come last, so what they have not put away when Python ends shows: that aborted two processes of three."""
    command = [sys.executable, "-c", REFUSED]
    for _ in range(4):
        process = subprocess.run(command, cwd=SCRIPT.parent, capture_output=True, text=True, check=False, timeout=100)
        assert process.returncode == 2, process.stderr


def until(process, condition) -> None:
    """Wait for what the process is to bring about."""
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def kill(process) -> None:
    """At once: the ranks too, which torchrun can no longer tell to stop."""
    ranks = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, ranks)):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def alone(parts: list[int], steps: int) -> tuple[list[float], float]:
    """The losses of one process, which adds up the gradients of so many parts of each batch, one after the other, and the held-out loss.

    A sum of two has one order: of two parts it is bit for bit what two processes add up.
    """
    text, held_out = gpt.corpus()
    torch.manual_seed(0)
    model = gpt.GPT(1, 16, 16, 2)
    optimizer = FusedRMSProp(model.parameters(), lr=1e-3)
    losses = []
    for step, count in enumerate(parts):
        tokens, targets = gpt.batch(text, 0, step, 4, 16)
        optimizer.param_groups[0]["lr"] = 1e-3 * train_gpt.rate(step, steps)
        optimizer.zero_grad()
        shares = [model(tokens[part::count], targets[part::count]) for part in range(count)]
        for loss in shares:
            (loss / count).backward()
        optimizer.step()
        losses.append(math.fsum(loss.item() for loss in shares) / count)
    with torch.no_grad():
        return losses, model(*gpt.spread(held_out, 256, 16)).item()


@pytest.fixture(scope="module")
def one_thread():
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def test_several_processes(tmp_path, one_thread):
    """Begun by fsdp, stopped by SIGTERM, resumed by ddp, killed while it saves, resumed by fsdp, and alone: every loss is that of
    one process which adds up the same parts and is never stopped, bit for bit."""
    folder, copy, steps, between = tmp_path / "run", tmp_path / "copy", 400, 40  # steps from one held-out loss to the next
    process = started(*TINY, "--steps", steps, "--no-compare", "--save-every", 2, "--output", folder, "--parallel", "fsdp", processes=2)
    until(process, (folder / "checkpoint").exists)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=100)
    stopped = step_saved(folder)
    assert out.count(f"Stopped at step {stopped} of {steps}") == 1, out

    process = started("--resume", folder, "--save-every", 1, "--parallel", "ddp", processes=2)
    until(process, lambda: len(metrics(folder)) > stopped + 1)  # written before each save, so the one before is complete
    until(process, (folder / "checkpoint.new").exists)
    kill(process)
    killed = step_saved(folder)
    shutil.copytree(folder, copy)
    last = between * math.ceil((killed + 1) / between)
    assert 0 < stopped < killed < last < steps

    train("--resume", folder, "--stop-at", last, "--parallel", "fsdp", processes=2)
    losses, held_out = alone([2] * last, steps)
    rows = metrics(folder)
    assert [float(row["train_loss"]) for row in rows] == losses
    assert float(rows[-1]["held_out_loss"]) == pytest.approx(held_out, rel=compare_runs.BOUND)

    train("--resume", copy, "--stop-at", killed + 3)
    losses, _ = alone([2] * killed + [1] * 3, steps)
    assert [float(row["train_loss"]) for row in metrics(copy)] == losses


class Count:
    """Something to save."""

    def __init__(self, value: int = 0):
        self.value = value

    def state_dict(self) -> dict:
        return {"value": torch.tensor([self.value])}

    def load_state_dict(self, state: dict) -> None:
        self.value = int(state["value"])


class Killed(Exception):
    pass


class Cut:
    """Saves to a folder, each of which may be cut off before or halfway through one of its renames, writes and removals."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.left = folder, math.inf
        for owner, name, halfway in (
            (pathlib.Path, "rename", lambda *_: None),
            (pathlib.Path, "write_text", lambda path, text: path.write_bytes(text.encode()[: len(text) // 2])),
            (checkpoint.shutil, "rmtree", self.remove_some),
        ):
            monkeypatch.setattr(owner, name, self.cutting(getattr(owner, name), halfway))
        self.first = True

    def remove_some(self, path) -> None:
        self.first = not self.first  # whichever a file system lists first
        files = sorted(pathlib.Path(path).glob("*"))
        for file in files[:1] if self.first else files[1:]:
            os.remove(file)

    def cutting(self, function, halfway):
        def called(*args, **kwargs):
            self.left -= 1
            if self.left < 0:
                halfway(*args)
                raise Killed
            return function(*args, **kwargs)

        return called

    def save(self, step: int, calls: float = math.inf, last=None) -> bool:
        """Whether a save was complete before so many calls."""
        self.left = calls
        try:
            checkpoint.save(self.folder, {"count": Count(step)}, {"settings": {}, "step": step, "rows": []}, last)
        except (Killed, checkpoint.CheckpointException):
            return False
        finally:
            self.left = math.inf
        return True

    def load(self) -> tuple[pathlib.Path, int]:
        """The checkpoint that a resumed run loads, and its step."""
        found = checkpoint.find(str(self.folder))
        count = Count()
        checkpoint.load(found.folder, {"count": count})
        assert count.value == found.about["step"]
        return found.folder, count.value


def test_killed_at_any_time(tmp_path, monkeypatch):
    """A save that is cut off, after another that was, leaves what was saved last, or what it was to save, whole."""
    run = Cut(tmp_path, monkeypatch)
    with parallel.process_group():
        assert run.save(1)
        step = newest = 1
        undone = 0
        for calls in itertools.chain(*itertools.product(range(9), repeat=2)):
            step += 1
            last, _ = run.load()
            done = run.save(step, calls, last)
            undone += not done
            _, found = run.load()
            assert newest <= found <= step
            assert not done or found == step
            newest = found
    assert 81 < undone < 162  # some were not: a save has fewer parts


def flip(file: pathlib.Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["__0_0.distcp", "run.json", "SHA256SUMS"])
def test_killed_after_damage(tmp_path, monkeypatch, name):
    """Until the run that goes on from the one before has saved, that one stays, and the damaged one is never taken for it."""
    run = Cut(tmp_path, monkeypatch)
    with parallel.process_group():
        assert run.save(1)
        assert run.save(2)
        for calls in range(9):
            flip(tmp_path / "checkpoint" / name)
            last, before = run.load()
            assert last == tmp_path / "checkpoint.old"
            done = run.save(10 + calls, calls, last)
            found = run.load()
            assert found in ((last, before), (tmp_path / "checkpoint", 10 + calls))
            assert not done or found != (last, before)
            assert run.save(20 + calls, last=found[0])
            assert checkpoint.find(str(tmp_path / "checkpoint.old")).about["step"] == found[1]
    assert done


def test_foreign_checkpoints(tmp_path):
    with parallel.process_group():
        checkpoint.save(tmp_path, {"count": Count(5)}, {"settings": {}, "step": 5, "rows": []})
        of_earlier_version(tmp_path / "checkpoint")
        (data,) = (tmp_path / "checkpoint").glob("*.distcp")
        data.write_bytes(data.read_bytes()[:-100])
        with pytest.raises(ValueError, match=f"{tmp_path}.*damaged"):
            checkpoint.load(tmp_path / "checkpoint", {"count": Count()})
    for name in (".metadata", "run.json"):
        whole = (tmp_path / "checkpoint" / name).read_bytes()
        for content in (b"", whole[:-5], b"[]"):
            (tmp_path / "checkpoint" / name).write_bytes(content)
            with pytest.raises(ValueError, match=f"{tmp_path}.*not a checkpoint"):
                checkpoint.find(str(tmp_path))
        (tmp_path / "checkpoint" / name).write_bytes(whole)
    assert checkpoint.find(str(tmp_path / "checkpoint")).about["step"] == 5
    with pytest.raises(ValueError, match=f"{tmp_path.parent}.*no checkpoint"):
        checkpoint.find(str(tmp_path.parent))


def of_earlier_version(folder: pathlib.Path) -> None:
    """Take from a checkpoint what earlier versions did not save."""
    (folder / "SHA256SUMS").unlink()
    about = json.loads((folder / "run.json").read_text())
    del about["checksums"]
    (folder / "run.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def begun(tmp_path_factory, one_thread):
    """A run that has stopped after 3 steps of 12."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    assert train_gpt.main([*map(str, TINY), "--steps", "12", "--stop-at", "3", "--output", str(folder)]) == 0
    return folder


FOUR = [*map(str, TINY), "--steps", "4", "--save-every", "2", "--output"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_thread):
    """A run of 4 steps, with the checkpoint before."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train_gpt.main([*FOUR, str(folder)]) == 0
    return folder


@pytest.fixture
def copied(begun, tmp_path):
    """What a test may change."""
    return shutil.copytree(begun, tmp_path / "run")


def resumed(folder, capsys) -> str:
    """What is said of a run that cannot be resumed."""
    with pytest.raises(SystemExit) as stop:
        start("--resume", folder)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert f"--resume {folder}" in said
    assert said.endswith((" of another run\n", " without --resume\n"))
    return said


MISSING = object()
CHANGES = [  # where, what, what is said of it
    ("settings", None, "settings is None, not an object with layers, heads"),
    ("settings", [], "settings is [], not an object"),
    ("settings", "x", "settings is 'x', not an object"),
    ("settings", 3, "settings is 3, not an object"),
    ("settings", MISSING, "run.json has no settings"),
    ("settings more", 1, "settings has 'more', which this version does not know"),
    *((f"settings {name}", MISSING, f"settings has no {name}") for name in settings.SAVED),
    *((f"settings {name}", None, f"settings.{name} is None, not ") for name in settings.SAVED),
    *(
        (f"settings {name}", value, f"settings.{name} is {shown}")
        for name, rule in settings.SAVED.items()
        if rule.metavar == "N"
        for value, shown in (("1", "'1'"), (True, "True"), (1.0, "1.0"), (math.nan, "nan"), (-1, "-1"), (10**30, "10000"), ([1], "[1]"))
    ),
    *(
        ("settings lr", value, f"settings.lr is {shown}")
        for value, shown in (
            ("0.001", "'0.001'"),
            (True, "True"),
            (0, "0"),
            (-1.0, "-1.0"),
            (math.nan, "nan"),
            (math.inf, "inf"),
            (10**400, "1000"),
        )
    ),
    ("settings dtype", "float8", "settings.dtype is 'float8', not one of float32, bfloat16, float16"),
    ("settings dtype", 16, "settings.dtype is 16"),
    ("settings device", "tpu", "settings.device is 'tpu', not cpu, cuda or cuda:N"),
    ("settings device", 0, "settings.device is 0"),
    ("settings compare", 1, "settings.compare is 1, not true or false"),
    ("settings compare", "true", "settings.compare is 'true'"),
    ("settings heads", 3, "--width 16: must be a multiple of --heads 3"),
    ("settings layers", 2**31 - 1, "settings.layers is 2147483647, but the model beside it has 1"),
    ("settings width", 32, "settings.width is 32, but the model beside it has 16"),
    ("settings context", 10**9, "settings.context is 1000000000, but the model beside it has 16"),
    ("settings dtype", "float16", "settings.dtype is 'float16', but the model beside it has 'float32'"),
    ("settings compare", False, "settings.compare is False, but the model beside it has True"),
    ("settings steps", 2, "step is 3, not a whole number from 1 to 2"),
    *(("step", value, f"step is {value!r}, not a whole number from 1 to 12") for value in (999, 13, 0, -1, 3.0, True, "3", None, [3])),
    ("step", 2, "rows has 6 entries, not 4, which is 2 for each of 2 steps"),
    ("step", 4, "rows has 6 entries, not 8"),
    ("step", MISSING, "run.json has no step"),
    ("rows", MISSING, "run.json has no rows"),
    ("rows", None, "rows is None, not a list"),
    ("rows", {}, "rows is {}, not a list"),
    ("rows", [], "rows has 0 entries, not 6"),
    ("rows", [{}] * 7, "rows has 7 entries, not 6"),
    ("rows", [1] * 6, "rows[0] is 1, not an object with step, optimizer, train_loss"),
    ("rows 5", None, "rows[5] is None"),
    ("rows 2 lr", MISSING, "rows[2] has no lr"),
    ("rows 2 held_out_loss", MISSING, "rows[2] has no held_out_loss"),
    ("rows 2 more", 1, "rows[2] has 'more'"),
    ("rows 2 lr", "x", "rows[2].lr is 'x', not a number"),
    ("rows 2 train_loss", 10**400, "rows[2].train_loss is 10000"),
    ("rows 2 train_loss", True, "rows[2].train_loss is True, not a number"),
    ("rows 2 step", 1, "rows[2].step is 1, not 2"),
    ("rows 2 step", 2.0, "rows[2].step is 2.0, not 2"),
    ("rows 2 optimizer", "Adam", "rows[2].optimizer is 'Adam', not 'FusedRMSProp'"),
    ("format", 2, "run.json has 'format', which this version does not know"),
]


def changed(content: dict, where: str, what: object) -> dict:
    content = json.loads(json.dumps(content))
    *path, last = (int(part) if part.isdigit() else part for part in where.split())
    inner = content
    for part in path:
        inner = inner[part]
    if what is MISSING:
        del inner[last]
    else:
        inner[last] = what
    return content


def test_a_checkpoint_that_says_nonsense(copied, capsys):
    """Valid JSON of wrong content: a sentence names the file, what is wrong in it, its value, and what to do."""
    file = copied / "checkpoint" / "run.json"
    of_earlier_version(file.parent)
    whole = json.loads(file.read_text())
    for where, what, expected in CHANGES:
        file.write_text(json.dumps(changed(whole, where, what)))
        said = resumed(copied, capsys)
        assert expected in said, said
        assert str(file.parent) in said
    for content in ("null", "[]", '"text"', "7", "NaN", "{}", "", "{", "[" * 100_000, "9" * 5000):
        file.write_text(content)
        assert "run.json" in resumed(copied, capsys)
    file.write_bytes(b'"\xff"')
    assert "run.json" in resumed(copied, capsys)


@pytest.mark.parametrize("name", ["run.json", ".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_checkpoint_of_other_things_than_files(copied, capsys, name, make, earlier):
    if earlier:
        of_earlier_version(copied / "checkpoint")
    file = copied / "checkpoint" / name
    file.unlink()
    make(file)
    assert f"{name}: it is no regular file" in resumed(copied, capsys)


def test_a_checkpoint_of_another_step(copied):
    file = copied / "checkpoint" / "run.json"
    of_earlier_version(file.parent)
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "step": 2, "rows": about["rows"][:4]}))
    assert f"{file}: step is 2, but the tensors beside it were saved after step 3" in train("--resume", copied, expect=2)
    file.write_text(json.dumps({**about, "step": "3"}))
    out = train("--resume", copied, "--parallel", "ddp", processes=2, expect=1)
    assert out.count("error: ") == 1
    assert "step is '3', not a whole number" in out


def truncate(file: pathlib.Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def edit(file: pathlib.Path) -> None:
    """To the run.json of another run."""
    about = json.loads(file.read_text())
    about["settings"].update(lr=2e-3, seed=1)
    file.write_text(json.dumps(about))


FILES = ("__0_0.distcp", ".metadata", "run.json", "SHA256SUMS")
DAMAGES = [*itertools.product((flip, truncate, os.remove), FILES), (edit, "run.json")]


@pytest.fixture
def copied_whole(finished, tmp_path):
    """What a test may change of a run with two checkpoints."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize(("damage", "name"), DAMAGES)
def test_a_damaged_checkpoint(copied_whole, finished, capsys, damage, name):
    """The run goes on from the one before, says why, and ends as one without damage; the one before stays until there are two again."""
    new, old = (copied_whole / name for name in ("checkpoint", "checkpoint.old"))
    damage(new / name)
    assert train_gpt.main(["--resume", str(copied_whole)]) == 0
    said = capsys.readouterr().out
    assert f"{new} is damaged, or not a checkpoint of this program (" in said
    assert f"{name}: it is missing" in said if damage is os.remove else name in said
    assert f"Going on from the checkpoint before it, {old}, saved after step 2\n" in said
    assert f"Resuming {copied_whole} after step 2 of 4\n" in said
    assert metrics(copied_whole) == metrics(finished)
    for folder, step in ((new, 4), (old, 2)):
        found = checkpoint.find(str(folder))
        assert (found.about["step"], found.notes) == (step, [])


def test_two_damaged_checkpoints(copied_whole, capsys):
    flip(copied_whole / "checkpoint" / "__0_0.distcp")
    edit(copied_whole / "checkpoint.old" / "run.json")
    before = {file: file.is_file() and file.read_bytes() for file in copied_whole.rglob("*")}
    said = resumed(copied_whole, capsys)
    assert f"{copied_whole}/checkpoint is damaged, or not a checkpoint of this program (__0_0.distcp: its " in said
    assert f"; {copied_whole}/checkpoint.old is damaged, or not a checkpoint of this program (run.json: its " in said
    assert {file: file.is_file() and file.read_bytes() for file in copied_whole.rglob("*")} == before


def test_a_damaged_checkpoint_by_its_own_name(copied_whole, finished, monkeypatch, capsys):
    """Only that one is taken; the run's folder is the one around it, also where that is not in the name."""
    new, old = copied_whole / "checkpoint", copied_whole / "checkpoint.old"
    flip(new / ".metadata")
    assert f"name {copied_whole} to go on from the checkpoint before it" in resumed(new, capsys)
    monkeypatch.chdir(old)
    assert train_gpt.main(["--resume", "."]) == 0
    assert metrics(copied_whole) == metrics(finished)
    assert (step_saved(new), step_saved(old)) == (4, 2)


def test_checksums(tmp_path):
    """Whatever bit of them is another, they are refused; so is a file that they do not list, or that only they know."""
    folder = tmp_path / "checkpoint"
    with parallel.process_group():
        checkpoint.save(tmp_path, {"count": Count(5)}, {"settings": {}, "step": 5, "rows": []})
    sums = folder / "SHA256SUMS"
    whole = sums.read_bytes()

    def refused(content: bytes, match: str = "SHA256SUMS") -> None:
        sums.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            checkpoint.verify(folder)

    for index, bit in itertools.product(range(len(whole)), range(8)):
        refused(whole[:index] + bytes([whole[index] ^ 1 << bit]) + whole[index + 1 :])
    for size in range(len(whole)):
        refused(whole[:size])
    refused(whole + b"0" * 64 + b"  __1_0.distcp\n", r"__1_0\.distcp: it is missing")
    sums.write_bytes(whole)
    checkpoint.verify(folder)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    (folder / "__1_0.distcp").touch()
    refused(whole, r"__1_0\.distcp: SHA256SUMS does not list it")


def test_a_checkpoint_of_an_earlier_version(copied, capsys):
    of_earlier_version(copied / "checkpoint")
    note = f"{copied}/checkpoint has no SHA256SUMS, since an earlier version saved it: its files cannot be verified"
    assert train_gpt.main(["--resume", str(copied), "--stop-at", "4"]) == 0
    assert capsys.readouterr().out.count(note) == 1
    assert train_gpt.main(["--resume", str(copied), "--stop-at", "5"]) == 0
    assert "SHA256SUMS" not in capsys.readouterr().out


def test_a_damaged_checkpoint_in_several_processes(copied_whole):
    """One verifies, and says so once; all go on from the same."""
    flip(copied_whole / "checkpoint" / "__0_0.distcp")
    out = train("--resume", copied_whole, "--parallel", "fsdp", processes=2)
    assert out.count("is damaged") == out.count("Going on from the checkpoint before it") == 1
    losses, _ = alone([1, 1, 2, 2], 4)
    assert [float(row["train_loss"]) for row in metrics(copied_whole) if row["optimizer"] == "FusedRMSProp"] == losses
    assert len(list((copied_whole / "checkpoint").glob("*.distcp"))) == 2
    found = checkpoint.find(str(copied_whole))
    assert (found.about["step"], found.notes) == (4, [])


def test_a_run_that_saves_is_not_read(copied, capsys):
    """Its checkpoint may be half replaced, which is no damage."""
    flip(copied / "checkpoint" / "run.json")
    with FileLock(copied / "run.lock"), pytest.raises(SystemExit, match="2"):
        start("--resume", copied)
    assert f"{copied}: another run is writing to it" in capsys.readouterr().err


def test_a_run_that_was_killed_at_once(tmp_path):
    """What it leaves is as good as an empty folder."""
    (tmp_path / "run.lock").touch()
    assert options.new_folder(tmp_path) == tmp_path
    (tmp_path / "metrics.csv").touch()
    with pytest.raises(ValueError, match="already exists"):
        options.new_folder(tmp_path)


@pytest.mark.parametrize("what", ["tensors", "run.json", "SHA256SUMS", "metrics.csv", "loss.png"])
def test_full_disk(tmp_path, finished, monkeypatch, capsys, what):
    """The checkpoint before is whole; when there is room again, the run goes on as if nothing had been."""
    folder = tmp_path / "run"
    owner, name = {
        "tensors": (checkpoint.dcp, "save"),
        "run.json": (pathlib.Path, "write_text"),
        "SHA256SUMS": (pathlib.Path, "write_text"),
        "metrics.csv": (train_gpt, "write_csv"),
        "loss.png": (train_gpt, "plot"),
    }[what]
    function, calls = getattr(owner, name), itertools.count(1)
    whole = {"loss.png": 0, "run.json": 2, "SHA256SUMS": 3}.get(what, 1)  # calls until the second checkpoint

    def full(*args, **kwargs):
        return (function if next(calls) <= whole else on_full_disk(function))(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(SystemExit) as stop:
            train_gpt.main([*FOUR, str(folder)])
    assert stop.value.code == 1
    shown = capsys.readouterr()
    place = folder / (what if "." in what and what != "run.json" else "checkpoint")
    assert f"error: {place} cannot be written (" in shown.err
    assert "File too large" in shown.err
    assert f"Make room, then continue with --resume {folder}: the checkpoint before is whole" in shown.err
    assert step_saved(folder) == (4 if what == "loss.png" else 2)
    assert what != "loss.png" or "Losses in nats" in shown.out
    kept = {"checkpoint", "metrics.csv", "run.lock"}
    before = {"checkpoint.old"}
    assert set(os.listdir(folder)) == (kept | before if what == "loss.png" else kept)
    assert len(metrics(folder)) == (4 if what == "metrics.csv" else 8)
    assert train_gpt.main(["--resume", str(folder)]) == 0
    assert metrics(folder) == metrics(finished)
    assert set(os.listdir(folder)) == kept | before | {"loss.png"}


def test_full_disk_at_the_first_checkpoint(tmp_path, one_thread, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint.dcp, "save", on_full_disk(checkpoint.dcp.save))
    with pytest.raises(SystemExit) as stop:
        train_gpt.main([*map(str, TINY), "--steps", "1", "--output", str(tmp_path / "run")])
    assert stop.value.code == 1
    assert "start anew with another --output: there is no checkpoint yet" in capsys.readouterr().err


def test_no_lock(copied, capsys):
    (copied / "run.lock").unlink()
    (copied / "run.lock").mkdir()
    with pytest.raises(SystemExit) as stop:
        train_gpt.main(["--resume", str(copied)])
    assert stop.value.code == 2
    assert f"{copied}/run.lock: cannot be written (Is a directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("processes", "given", "message"),
    [
        (None, ("--width", "10", "--heads", "4"), "--width 10"),
        (None, ("--steps", "-1"), "'-1' is not a whole number"),
        (None, ("--resume", "nowhere"), "nowhere"),
        (None, ("--output", ""), "'' names no place"),
        (None, ("--lr", "nan"), "'nan' is not a finite number above 0"),
        (None, ("--dtype", "float8"), "'float8' is not one of float32"),
        (None, ("--parallel", "ddp"), "torchrun --standalone --nproc-per-node 2"),
        (2, ("--device", "cpu"), "--parallel"),
        (5, ("--parallel", "fsdp", "--batch", "12", "--device", "cpu"), "--batch 12: must be a multiple of the number of processes, 5"),
    ],
)
def test_wrong_options(monkeypatch, capsys, tmp_path, processes, given, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: processes or 1)
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: processes is not None)
    with pytest.raises(SystemExit, match="2"):
        start(*given)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_more_processes_than_gpus(monkeypatch, capsys):
    for owner, name, value in (
        (torch.cuda, "is_available", True),
        (torch.cuda, "device_count", 1),
        (torch.distributed, "get_world_size", 2),
        (torch.distributed, "is_torchelastic_launched", True),
    ):
        monkeypatch.setattr(owner, name, lambda value=value: value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2"):
        start("--parallel", "ddp", "--device", "cuda")
    assert "1 GPUs" in capsys.readouterr().err


def test_one_process_speaks(tmp_path):
    out = train(*TINY, "--output", tmp_path / "run", processes=2, expect=1)
    assert out.count("error: --parallel") == 1


def test_compare(tmp_path):
    def written(name: str, *losses: float) -> str:
        (tmp_path / name).mkdir()
        rows = [f"{step},FusedRMSProp,{loss},{loss}" for step, loss in enumerate(losses, 1)]
        (tmp_path / name / "metrics.csv").write_text("\n".join(("step,optimizer,train_loss,held_out_loss", *rows)))
        return str(tmp_path / name)

    one, console = written("one", 5.0, 4.0), Console(quiet=True)
    assert compare_runs.compare(one, written("near", 5.0 + 1e-6, 4.0), console)
    assert not compare_runs.compare(one, written("far", 5.0, 4.0 + 1e-5), console)
    assert not compare_runs.compare(one, written("nan", 5.0, math.nan), console)
    with pytest.raises(ValueError, match="same losses"):
        compare_runs.compare(one, written("short", 5.0), console)
