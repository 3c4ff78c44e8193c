"""Configurations: no bit depends on them, and no file of them, whatever is in it, can do harm."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from torch import distributed

import gpu
from fusedrms import FusedRMSProp, FusedSMORMS3
from fusedrms.engine import configs
from fusedrms.engine.configs import Key, Row
from fusedrms.engine.options import UserError
from fusedrms.kernels import devices, lang, launch
from fusedrms.kernels.cpu import step as cpu
from fusedrms.kernels.launch import CPUConfig, GPUConfig
from fusedrms.kernels.storage import Storage
from fusedrms.tools import files, tune
from fusedrms.tools.variants import MODES, RULES, variant
from tools import copy_grads, full_disk, on_full_disk, parameters, random_grads, twins

CPU = torch.device("cpu")
STORAGE = Storage((("float32",),) * 3)
OTHER = CPUConfig(1 << 12, 1 << 18)
KEY = Key("rmsprop", STORAGE.label, True, "small")


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    """Own files only, read anew."""
    places = [tmp_path / "own", tmp_path / "user"]
    for place in places:
        place.mkdir()
    monkeypatch.setattr(configs, "directories", lambda: places)
    configs.rows_for.cache_clear()
    yield
    configs.rows_for.cache_clear()


def chosen(key=KEY, storage=STORAGE):
    configs.rows_for.cache_clear()
    return configs.choose(key.rule, CPU, storage, key.aligned, np.array([64, 64]))


def content(config=OTHER, **changed) -> dict:
    name = configs.device_name(CPU)
    return {**configs.header(name), "rows": configs.to_json({KEY: Row(config, 2.0, 1.0)}), **changed}


def write(folder: pathlib.Path, text) -> pathlib.Path:
    path = folder / f"{configs.device_name(CPU)}.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


# few and large blocks: the interpreter takes milliseconds for each
GPU_CONFIGS = [GPUConfig(4096, 1024, 1, 0, 0), GPUConfig(8192, 256, 4, 3, 0), GPUConfig(16384, 64, 2, 0, 128)]
CPU_CONFIGS = [CPUConfig(1 << n, work) for n in (6, 11, 14, 20) for work in (1000, 1 << 40)]


@pytest.mark.interpret
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("optimizer", "dtype", "options"),
    [
        (FusedRMSProp, torch.float32, dict(centered=True, momentum=0.9, clip_grad_norm=0.5)),
        (FusedSMORMS3, torch.bfloat16, dict(master_weights="split", state_dtype="8bit", seed=0)),
    ],
    ids=["norm", "8-bit"],
)
def test_no_bit_depends_on_it(device, optimizer, dtype, options):
    start = parameters([(5000,), (77,), (33, 5), (16384 + 3,)], device, dtype)
    results = []
    for config in (None, *(GPU_CONFIGS if devices.uses_triton(device) else CPU_CONFIGS)):
        params = twins(start)
        ours = optimizer(params, **options)
        torch.manual_seed(1)
        with configs.forced(config) if config else contextlib.nullcontext():
            for _ in range(2):
                random_grads(params)
                ours.step()
        assert config is None or launch.is_valid(config, ours._run.plan._buckets[0].layout.storage)
        states = [state[name] for state in ours.state.values() for name in state]
        results.append([tensor.detach().clone() for tensor in (*params, *states)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


class _Recorded:
    """A Triton kernel, and what it becomes, as launch.py sees them."""

    arg_names = ("x_ptr", "n", "y_ptr", "BLOCK", "RULE")

    def __init__(self, calls, compiled=None):
        self.calls, self.compiled = calls, compiled

    def __getitem__(self, grid):
        def run(*args, **constants):
            self.calls.append((grid, args, constants))
            return self.compiled

        return run

    def warmup(self, *args, grid, **constants):
        return self.compiled


def test_second_launch_takes_the_same_arguments():
    """Compiled kernels are called with everything in the order of the arguments: addresses, constants as well, options not."""
    first, later = [], []
    x, ys = torch.zeros(1), torch.zeros(3, 4)
    kernel = launch._Kernel(_Recorded(first, _Recorded(later)), 7, dict(BLOCK=128, num_warps=4, RULE="rule", maxnreg=64), x, 5)
    for y in ys:
        kernel(y)
    ((grid, (a, n, b), constants),) = first
    assert (grid, n, constants) == ((7, 1, 1), 5, dict(BLOCK=128, num_warps=4, RULE="rule", maxnreg=64))
    assert a is x
    assert b.data_ptr() == ys[0].data_ptr()
    assert later == [((7, 1, 1), (x.data_ptr(), 5, y.data_ptr(), 128, "rule"), {}) for y in ys[1:]]


def test_where_files_are_found(tmp_path):
    default = chosen()
    assert default == launch.default_config(CPU, STORAGE)
    write(tmp_path / "user", content())
    assert chosen() == OTHER
    assert chosen(KEY._replace(rule="smorms3")) == default
    assert chosen(storage=Storage((("float64",),) * 3)) == default
    write(tmp_path / "own", content(CPUConfig(1 << 10, 5)))
    assert chosen() == CPUConfig(1 << 10, 5)
    optimizer = FusedRMSProp(parameters([(64,), (64,)]))
    random_grads(optimizer.param_groups[0]["params"])
    optimizer.step()
    (bucket,) = optimizer._run.plan._buckets
    assert bucket.launch._chunk == 1 << 10


def test_stale_file_warns_once(tmp_path):
    write(tmp_path / "own", content(kernels="0" * 16))
    with pytest.warns(UserWarning, match=r"other kernels.*fusedrms tune"):
        assert chosen() == launch.default_config(CPU, STORAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configs.choose(KEY.rule, CPU, STORAGE, True, np.array([64]))


HOSTILE = [None, [], {}, "", "x" * 1000, -1, 0, 3, 2**31, 10**30, 1e308, float("nan"), float("inf"), True, [[]], {"chunk": 1}, "\ud800"]


def damaged(rng: random.Random) -> str | bytes:
    """A file that something has happened to."""
    whole = content(OTHER._replace(chunk=1 << rng.randrange(40)))
    kind = rng.randrange(5)
    if kind == 0:
        text = json.dumps(whole)
        return text[: rng.randrange(len(text))]
    if kind == 1:
        text = bytearray(json.dumps(whole).encode())
        for _ in range(rng.randrange(1, 9)):
            text[rng.randrange(len(text))] = rng.randrange(256)
        return bytes(text)
    if kind == 2:
        whole[rng.choice(list(whole))] = rng.choice(HOSTILE)
    elif kind == 3:
        row = whole["rows"][0]
        row[rng.choice([*row, "more"])] = rng.choice(HOSTILE)
    else:
        config = whole["rows"][0]["config"]
        config[rng.choice([*config, "more"])] = rng.choice(HOSTILE)
    return json.dumps(whole)


@pytest.mark.filterwarnings("ignore:.*does not count:UserWarning")
def test_damaged_files(tmp_path):
    """Whatever a file says, reading it raises nothing, and what is launched is valid and computes the same."""
    rng = random.Random(0)
    start = parameters([(100,), (5000,)])
    random_grads(start)
    expected = twins(start)
    copy_grads(start, expected)
    FusedRMSProp(expected).step()
    fates = set()
    for n in range(200):
        text = damaged(rng)
        write(tmp_path / "own", "").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        config = chosen()
        assert launch.is_valid(config, STORAGE)
        fates.add(config == launch.default_config(CPU, STORAGE))
        if n % 10 == 0:
            params = twins(start)
            copy_grads(start, params)
            FusedRMSProp(params).step()
            assert all(torch.equal(p, q) for p, q in zip(params, expected, strict=True))
    assert fates == {True, False}  # some only lost what does not matter


@pytest.mark.filterwarnings("ignore:.*does not count:UserWarning")
def test_no_file(tmp_path):
    path = tmp_path / "own" / f"{configs.device_name(CPU)}.json"
    default = launch.default_config(CPU, STORAGE)
    path.mkdir()
    assert chosen() == default
    path.rmdir()
    os.mkfifo(path)
    assert chosen() == default
    path.unlink()
    path.symlink_to(path)
    assert chosen() == default
    path.unlink()
    path.write_text("[" * 100_000)
    assert chosen() == default
    path.write_bytes(b" " * (configs.MOST_BYTES + 1))
    assert chosen() == default


@pytest.mark.parametrize(
    "config",
    [
        GPUConfig(1000, 256, 1, 0, 0),
        GPUConfig(1 << 14, 100, 1, 0, 0),
        GPUConfig(512, 256, 1, 0, 0),
        GPUConfig(1 << 14, 256, 3, 0, 0),
        GPUConfig(1 << 14, 256, 1, -1, 0),
        GPUConfig(1 << 14, 1024, 1, 0, 128),
        GPUConfig(1 << 14, 256, 1, 0, 8),
        GPUConfig(1 << 40, 256, 1, 0, 0),
        CPUConfig(0, 1),
        CPUConfig(100, 1),
        CPUConfig(1 << 14, 0),
        CPUConfig(1 << 14, 1.0),  # type: ignore[arg-type]
        CPUConfig(True, 1),
    ],
    ids=str,
)
def test_invalid(config):
    assert not launch.is_valid(config, STORAGE)


@pytest.mark.parametrize("mode", MODES)
def test_a_label_says_the_storage(mode):
    for rule in RULES:
        storage = variant(rule, mode).storage
        assert Storage.of_label(storage.label) == storage


@pytest.mark.parametrize("label", ["", "float32", "float32, float", "float32, stochastic, float32", "5"])
def test_no_label(label):
    with pytest.raises(ValueError, match=f"'{label}' is no label"):
        Storage.of_label(label)


def test_dropped_rows_are_named(tmp_path):
    """What no launch takes, and each value that is out of range."""
    wrong = {
        OTHER._replace(chunk=100): "chunk 100: it takes a power of two from 64 to",
        OTHER._replace(min_work=0): "min_work 0: it takes from 1 to",
        GPUConfig(1 << 14, 256, 1, 0, 0): "chunk, threads, vectors, programs, registers: it takes chunk, min_work there",
    }
    keys = [KEY._replace(size=str(n)) for n in range(len(wrong))]
    odd = KEY._replace(storage="float33")
    rows = {
        KEY: Row(OTHER, 2.0, 1.0),
        odd: Row(OTHER, 2.0, 1.0),
        **{key: Row(config, 2.0, 1.0) for key, config in zip(keys, wrong, strict=True)},
    }
    path = write(tmp_path / "own", content(rows=configs.to_json(rows)))
    found = configs.dropped(configs.read(path, configs.device_name(CPU)), CPU)
    assert list(found) == [odd, *keys]
    for problem, expected in zip(found.values(), ["'float33' is no label", *wrong.values()], strict=True):
        assert expected in problem


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(threads=100), "threads 100: it takes 64, 128, 256, 512 or 1024"),
        (dict(threads=0), "threads 0"),
        (dict(vectors=3), "vectors 3: it takes 1, 2 or 4"),
        (dict(chunk=512), "chunk 512: it takes a power of two from 1024 to"),
        (dict(programs=-1), "programs -1"),
        (dict(registers=8), "registers 8: it takes 0, or from 32 to 256"),
        (dict(registers=32.0), "registers 32.0: it takes a whole number"),
    ],
)
def test_out_of_range(change, said):
    right = GPUConfig(1 << 14, 256, 1, 0, 0)
    assert launch.out_of_range(right, STORAGE) is None
    assert said in launch.out_of_range(right._replace(**change), STORAGE)


def test_every_rank_takes_the_same(tmp_path, monkeypatch):
    """The first process of a job to ask decides, and what it says is checked as a file is."""
    store = distributed.HashStore()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed.distributed_c10d, "_get_default_store", lambda: store)
    write(tmp_path / "own", content())
    assert chosen() == OTHER
    write(tmp_path / "own", content(CPUConfig(1 << 10, 5)))
    assert chosen() == OTHER
    store.set(f"fusedrms/{configs.source_hash()}/{configs.device_name(CPU)}", "nonsense")
    assert chosen() == CPUConfig(1 << 10, 5)


def _save(path, number, n):
    for k in range(n):
        tune.save(path, configs.header(configs.device_name(CPU)), {KEY._replace(rule=f"rule {number} {k}"): Row(OTHER, 1.0, 1.0)})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_many_writers(tmp_path):
    path = tmp_path / "file.json"
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_save, args=(path, number, 5)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    file = configs.read(path, configs.device_name(CPU))
    assert file.problem is None
    assert len(file.rows) == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_writers(tmp_path):
    path, rng, before = tmp_path / "file.json", random.Random(0), 0
    for number in range(50):
        writer = multiprocessing.get_context("fork").Process(target=_save, args=(path, number, 10**6))
        writer.start()
        time.sleep(rng.uniform(0.01, 0.06))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        if path.exists():
            file = configs.read(path, configs.device_name(CPU))
            assert file.problem is None
            assert len(file.rows) >= before
            before = len(file.rows)
            if before > 500:
                path.unlink()
                before = 0
    assert len(list(tmp_path.glob("file*"))) <= 3  # the file, its lock, what a killed one was about to write


def test_stale_rows_go_when_new_ones_are_saved(tmp_path):
    path = write(tmp_path / "own", content(kernels="0" * 16))
    tune.save(path, configs.header(configs.device_name(CPU)), {KEY._replace(size="huge"): Row(OTHER, 1.0, 1.0)})
    assert [key.size for key in configs.read(path, configs.device_name(CPU)).rows] == ["huge"]


@pytest.mark.parametrize("kind", ["nothing", "folder", "file", "pipe", "below a file"])
def test_environment_names_a_folder(tmp_path, monkeypatch, kind):
    """Whatever its name: what is written is what is read, or there is an error."""
    own = tmp_path / "d.json"
    if kind == "folder":
        own.mkdir()
    elif kind == "pipe":
        os.mkfifo(own)
    elif kind != "nothing":
        own.write_text("mine")
    own = own / "x" if kind == "below a file" else own
    monkeypatch.setenv(configs.ENVIRONMENT, str(own))
    if kind in ("nothing", "folder"):
        assert tune.destination(None, "name") == configs.own_directory() / "name.json"
        return
    with pytest.raises(UserError, match=rf"{configs.ENVIRONMENT}={own}, which takes a directory: .*Not a directory.*--output"):
        tune.destination(None, "name")
    assert kind == "pipe" or (tmp_path / "d.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["file.json", "file.json.lock", "folder"])
def test_pipes_are_refused(tmp_path, name):
    """In the place of the file, of its lock, of its folder: opening one would wait for ever."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{tmp_path / name} cannot be written \((it is no regular file|Not a directory)\): .*--output"):
        tune.destination(tmp_path / ("folder/file.json" if name == "folder" else "file.json"), "name")
    assert set(os.listdir(tmp_path)) == {name, "own", "user"}


def test_a_pipe_that_comes_later(tmp_path):
    path, head = tmp_path / "file.json", configs.header(configs.device_name(CPU))
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is no regular file"):
        tune.save(path, head, {})
    path.unlink()
    os.mkfifo(tmp_path / ".file.json.x.tmp")
    tune.save(path, head, {KEY: Row(OTHER, 1.0, 1.0)})
    assert sorted(os.listdir(tmp_path)) == ["file.json", "file.json.lock", "own", "user"]


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(tune, "SHAPES", {"cpu": {"small": [(64,)] * 9, "mixed": [(300, 300)]}})
    monkeypatch.setattr(tune, "SCRUB", {"cpu": 100})
    monkeypatch.setattr(tune, "SEARCH_ROUNDS", 3)
    monkeypatch.setattr(tune, "CHECK_ROUNDS", 5)


def tuned(tmp_path, *more) -> tuple[int, pathlib.Path]:
    from fusedrms.tools.cli import main

    few = ["--rules", "rmsprop", "--dtypes", "float32", "--sizes", "small,mixed"]
    code = main(["tune", "--device", "cpu", *few, "--output", str(tmp_path / "own"), *more])
    return code, tmp_path / "own" / f"{configs.device_name(CPU)}.json"


@pytest.mark.skipif(lang.interpreted(), reason="refused there")
@pytest.mark.usefixtures("_small")
class TestTune:
    def test_next_run_finds_it(self, tmp_path, capsys, monkeypatch):
        slow = OTHER._replace(chunk=1 << 11)
        monkeypatch.setattr(tune, "stopwatch", lambda device: lambda run: 1.0 + (run.func._chunk != slow.chunk))
        code, path = tuned(tmp_path, "--json")
        assert code == 0
        said = json.loads(capsys.readouterr().out)
        assert said["path"] == str(path)
        assert {row["size"] for row in said["rows"]} == {"small", "mixed"}
        assert chosen().chunk == slow.chunk

    def test_noise_is_no_gain(self, tmp_path, capsys, monkeypatch):
        rng = random.Random(0)
        monkeypatch.setattr(tune, "stopwatch", lambda device: lambda run: rng.uniform(1, 2))
        code, path = tuned(tmp_path)
        assert code == 0
        rows = configs.read(path, configs.device_name(CPU)).rows.values()
        assert [row.config for row in rows] == [launch.default_config(CPU, STORAGE)] * 2
        assert all(row.default_us == row.best_us for row in rows)

    def test_a_default_that_spills(self, monkeypatch):
        """Others that spill as much are tried beside it, none that spills more."""
        monkeypatch.setattr(tune, "spills", lambda run: 8 + (run.func._chunk > cpu.CHUNK))
        found = tune.search("rmsprop", "float32", "small", CPU, lambda run: float(run.func._chunk), 0.0)
        monkeypatch.setattr(tune, "spills", lambda run: 8)
        assert tune.search("rmsprop", "float32", "small", CPU, lambda run: float(run.func._chunk), 0.0).n_tried > found.n_tried > 1

    def test_other_bits_are_seen(self, monkeypatch):
        scratch = tune.Scratch("rmsprop", "float32", "small", CPU)
        scratch.launch(OTHER)
        scratch._start[0] += 1
        with pytest.raises(RuntimeError, match="other bits"):
            scratch.launch(OTHER._replace(chunk=1 << 10))

    def test_interrupted(self, tmp_path, capsys, monkeypatch):
        search = tune.search

        def stop(rule, mode, size, *args):
            if size == "mixed":
                raise KeyboardInterrupt
            return search(rule, mode, size, *args)

        monkeypatch.setattr(tune, "search", stop)
        code, path = tuned(tmp_path)
        assert code == 130
        assert "interrupted" in capsys.readouterr().out
        assert len(configs.read(path, configs.device_name(CPU)).rows) == 1

    def test_budget(self, tmp_path, capsys):
        assert tuned(tmp_path, "--budget", "1e-9")[0] == 0
        shown = capsys.readouterr().out
        assert "2 of 2 were not searched: the budget is spent" in shown
        assert "written" not in shown

    @pytest.mark.parametrize("more", [[], ["--json"]], ids=["table", "json"])
    def test_full_disk(self, tmp_path, capsys, monkeypatch, more):
        """What was measured is printed, what was there before is whole."""
        before = write(tmp_path / "own", content()).read_bytes()
        monkeypatch.setattr(files, "write", on_full_disk(files.write))
        code, path = tuned(tmp_path, *more)
        shown = capsys.readouterr()
        assert code == 1
        assert f"{path} could not be written (File too large)" in shown.err
        assert "--output" in shown.err
        if more:
            said = json.loads(shown.out)
            assert [row["size"] for row in said["rows"]] == ["small", "mixed"]
            assert said["problem"] in shown.err
        else:
            assert {"small", "mixed"} <= set(shown.out.split())
            assert "written to" not in shown.out
        assert path.read_bytes() == before
        assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.lock"]

    def test_a_disk_with_room_again(self, tmp_path, capsys, monkeypatch):
        """The next save catches up."""
        write_, disks = files.write, [full_disk(), contextlib.nullcontext()]

        def write(*args):
            with disks.pop(0):
                write_(*args)

        monkeypatch.setattr(files, "write", write)
        code, path = tuned(tmp_path)
        assert code == 0
        assert f"written to {path}" in capsys.readouterr().out
        assert {key.size for key in configs.read(path, configs.device_name(CPU)).rows} == {"small", "mixed"}


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs /dev/null")
def test_where_nothing_can_be_written(tmp_path, capsys):
    from fusedrms.tools.cli import main

    assert main(["tune", "--output", "/dev/null/x"]) == 2
    assert "--output" in capsys.readouterr().err
    if os.geteuid():
        tmp_path.chmod(0o555)
        assert main(["tune", "--output", str(tmp_path)]) == 2
        tmp_path.chmod(0o755)


def test_steps_where_no_cache_can_be_read():
    """A home that is none takes nothing from a step."""
    code = (
        "import torch, fusedrms; p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3);"
        " fusedrms.FusedRMSProp([p]).step(); assert p[0] < 1"
    )
    environment = {**os.environ, "HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/x", configs.ENVIRONMENT: "/dev/null/y"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=True)


@pytest.mark.gpu
def test_tune_on_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tune, "SHAPES", {"gpu": {"mixed": [(1000, 1000)] * 2}})
    from fusedrms.tools.cli import main

    arguments = ["--rules", "rmsprop", "--dtypes", "float32", "--sizes", "mixed", "--output", str(tmp_path), "--json"]
    assert main(["tune", "--device", gpu.KIND, *arguments]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert launch.is_valid(GPUConfig(**row["config"]), STORAGE)
    assert row["default_us"] >= row["best_us"] > 0
