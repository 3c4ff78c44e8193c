"""fusedrms tune: what it measures is what the next run finds, whenever it ends."""

import contextlib
import json
import os
import pathlib
import random

import pytest

import gpu
from config_tools import CPU, OTHER, STORAGE, chosen, content, write
from fusedrms.engine.tables import configs
from fusedrms.kernels import lang, launch
from fusedrms.kernels.cpu import step as cpu
from fusedrms.kernels.launch import GPUConfig
from fusedrms.tools import files, noise, search
from tools import full_disk, on_full_disk

pytestmark = pytest.mark.usefixtures("config_folders")


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(search, "SHAPES", {"cpu": {"small": [(64,)] * 9, "mixed": [(300, 300)]}})
    monkeypatch.setattr(search, "SCRUB", {"cpu": 100})
    monkeypatch.setattr(search, "SEARCH_ROUNDS", 3)
    monkeypatch.setattr(search, "CHECK_ROUNDS", 5)


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
        monkeypatch.setattr(search, "stopwatch", lambda device: lambda run: 1.0 + (run.func._chunk != slow.chunk))
        code, path = tuned(tmp_path, "--json")
        assert code == 0
        said = json.loads(capsys.readouterr().out)
        assert said["path"] == str(path)
        assert {row["size"] for row in said["rows"]} == {"small", "mixed"}
        assert chosen().chunk == slow.chunk

    def test_noise_is_no_gain(self, tmp_path, capsys, monkeypatch):
        rng = random.Random(0)
        monkeypatch.setattr(search, "stopwatch", lambda device: lambda run: rng.uniform(1, 2))
        code, path = tuned(tmp_path)
        assert code == 0
        rows = configs.read(path, configs.device_name(CPU)).rows.values()
        assert [row.config for row in rows] == [launch.default_config(CPU, STORAGE)] * 2
        assert all(row.default_us == row.best_us for row in rows)

    @pytest.mark.parametrize(
        ("default_seconds", "is_confirmed"),
        [([2, 2, 2], True), ([2, 1, 2], False), ([1, 2, 2], False), ([2, 2, 1], True), ([2, 2, 0.5], False)],
        ids=["always", "once", "the second time", "as slow beside others", "much slower beside others"],
    )
    def test_what_is_stored(self, default_seconds, is_confirmed, monkeypatch):
        """The best takes a second in each look, of which the last has busy processes beside it."""
        seconds, looks, beside = iter(default_seconds), [], []

        @contextlib.contextmanager
        def busy():
            beside.append(len(looks))
            yield

        def rounds(runs, *args):
            looks.append([[1.0] * 5, [float(next(seconds))] * 5])
            return looks[-1]

        monkeypatch.setattr(search, "busy", busy)
        monkeypatch.setattr(search, "rounds", rounds)
        *_, confirmed = search.last_looks(print, print, print, 0.0, beside_others=True)
        assert confirmed == is_confirmed
        assert beside == ([2] if default_seconds[:2] == [2, 2] else [])

    def test_busy_processes_end(self):
        with noise.busy() as processes:
            assert [process.poll() for process in processes] == [None] * (os.cpu_count() or 1)
        assert None not in [process.poll() for process in processes]

    def test_a_noisy_machine(self, tmp_path, capsys, monkeypatch):
        taken = iter([0.0, 1e6])
        monkeypatch.setattr(noise, "taken_by_others", lambda: next(taken))
        assert tuned(tmp_path, "--budget", "1e-9")[0] == 0
        assert "of the cores meanwhile: run this again on a quiet machine" in capsys.readouterr().err

    def test_a_default_that_spills(self, monkeypatch):
        """Others that spill as much are tried beside it, none that spills more."""
        monkeypatch.setattr(search, "spills", lambda run: 8 + (run.func._chunk > cpu.CHUNK))
        found = search.search_one("rmsprop", "float32", "small", CPU, lambda run: float(run.func._chunk), 0.0)
        monkeypatch.setattr(search, "spills", lambda run: 8)
        assert search.search_one("rmsprop", "float32", "small", CPU, lambda run: float(run.func._chunk), 0.0).n_tried > found.n_tried > 1

    def test_other_bits_are_seen(self, monkeypatch):
        scratch = search.Scratch("rmsprop", "float32", "small", CPU)
        scratch.launch(OTHER)
        scratch._start[0] += 1
        with pytest.raises(RuntimeError, match="other results than the default configuration"):
            scratch.launch(OTHER._replace(chunk=1 << 10))

    def test_interrupted(self, tmp_path, capsys, monkeypatch):
        search_one = search.search_one

        def stop(rule, mode, size, *args):
            if size == "mixed":
                raise KeyboardInterrupt
            return search_one(rule, mode, size, *args)

        monkeypatch.setattr(search, "search_one", stop)
        code, path = tuned(tmp_path)
        assert code == 130
        assert "interrupted" in capsys.readouterr().out
        assert len(configs.read(path, configs.device_name(CPU)).rows) == 1

    def test_budget(self, tmp_path, capsys):
        assert tuned(tmp_path, "--budget", "1e-9")[0] == 0
        shown = capsys.readouterr().out
        assert "2 of 2 were not searched: the time is up" in shown
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


@pytest.mark.gpu
def test_tune_on_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search, "SHAPES", {"gpu": {"mixed": [(1000, 1000)] * 2}})
    from fusedrms.tools.cli import main

    arguments = ["--rules", "rmsprop", "--dtypes", "float32", "--sizes", "mixed", "--output", str(tmp_path), "--json"]
    assert main(["tune", "--device", gpu.KIND, *arguments]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert launch.is_valid(GPUConfig(**row["config"]), STORAGE)
    assert row["default_us"] >= row["best_us"] > 0
