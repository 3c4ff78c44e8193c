"""The study of what each precision mode costs: its runs, how they go on, its table."""

import json
import sys
import time

import pytest
import torch

from fusedrms.kernels import lang
from process_tools import started
from tools import refused

pytest.importorskip("sklearn")
study = pytest.importorskip("bench.studies.precision.__main__")
problems = pytest.importorskip("bench.studies.precision.problems")
results = pytest.importorskip("bench.studies.precision.results")
table = pytest.importorskip("bench.studies.precision.table")
training = pytest.importorskip("bench.studies.precision.training")

exhaustive = pytest.mark.exhaustive
pytestmark = pytest.mark.skipif(lang.interpreted(), reason="they train and compile for minutes there")

TINY = problems.Text(layers=1, width=32, heads=2, size=2, windows=3)
MODES = "float32", "split + 8-bit"
RUNS = [(mode, seed) for mode in MODES for seed in (0, 1)]


@pytest.fixture
def main(monkeypatch, tmp_path):
    """The command with arguments, into a directory of the test."""

    def run(arguments: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", ["precision", *arguments, "--output", str(tmp_path)])
        return study.main()

    return run


def small(key: str, monkeypatch) -> None:
    """A problem that trains at once."""
    problem = problems.PROBLEMS[key]
    task = TINY if isinstance(problem.task, problems.Text) else problem.task._replace(width=4)
    monkeypatch.setitem(problems.PROBLEMS, key, problem._replace(task=task))


def pairs(found: dict) -> list[tuple[str, int]]:
    return [(run["mode"], run["seed"]) for run in found["runs"]]


@exhaustive
@pytest.mark.parametrize("key", problems.PROBLEMS)
def test_study(key, main, monkeypatch, tmp_path, capsys):
    small(key, monkeypatch)
    modes = problems.PROBLEMS[key].modes
    chosen = [mode for mode in modes if mode in ("float32", "float32 + 8-bit", "split + 8-bit", "stochastic + 8-bit", "plain bfloat16")]
    assert not main(["--problem", key, "--modes", *chosen, "--steps", "3", "--seeds", "2"])
    found = json.loads((tmp_path / f"{key}.json").read_text())
    assert found["command"] == f"python -m bench.studies.precision --problem {key} --seeds 2 --steps 3"
    assert (found["threads"], found["evaluated"]) == (1, [1, 2, 3])
    assert pairs(found) == [(mode, seed) for mode in chosen for seed in (0, 1)]
    assert all(2 < loss < 7 for run in found["runs"] for loss in run["losses"])
    assert all(0 < run["seconds"] < 60 and 2 < run["bytes"] < 20 for run in found["runs"])
    assert capsys.readouterr().out.endswith("\n".join([problems.PROBLEMS[key].title, *table.TABLES["precision"](found), ""]))
    assert (tmp_path / "curves.png").exists() == (modes == problems.USUAL)


@exhaustive
def test_goes_on_where_it_was_killed(main, tmp_path):
    """What has ended is kept; modes and seeds may be added; other steps are refused, as they cannot be compared."""
    arguments = ["--problem", "digits", "--modes", "float32", "--seeds", "3", "--steps", "300"]
    path = tmp_path / "digits.json"
    with started(["-m", "bench.studies.precision", *arguments, "--output", str(tmp_path)]) as run:
        until = time.monotonic() + 300
        while not path.exists() and run.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        run.kill()
    kept = json.loads(path.read_text())["runs"]
    assert 0 < len(kept) < 3
    assert not main(arguments)
    found = json.loads(path.read_text())
    assert pairs(found) == [("float32", seed) for seed in range(3)]
    assert found["runs"][: len(kept)] == kept
    assert not main(["--problem", "digits", "--modes", "split", "--seeds", "1", "--steps", "300"])
    assert json.loads(path.read_text())["runs"] == [*found["runs"], *json.loads(path.read_text())["runs"][3:]]
    with pytest.raises(SystemExit, match="2"):
        main(["--problem", "digits", "--steps", "12"])


@pytest.fixture
def trained(monkeypatch):
    """Runs that cost nothing: a list of those that have been asked for."""
    asked: list[tuple[str, int]] = []

    def run(problem, mode, seed, steps):
        asked.append((mode, seed))
        yield steps, dict(mode=mode, seed=seed, bytes=8.0, losses=[2.0 + seed] * len(training.evaluated(steps)))

    monkeypatch.setattr(study, "trained", run)
    monkeypatch.setattr(study, "show", lambda folder: None)
    return asked


def test_only_what_is_missing_is_run(main, trained, tmp_path):
    arguments = ["--problem", "digits", "--modes", *MODES, "--seeds"]
    assert not main([*arguments, "1"])
    assert not main([*arguments, "2"])
    assert trained == [(mode, seed) for seed in (0, 1) for mode in MODES]
    assert pairs(json.loads((tmp_path / "digits.json").read_text())) == RUNS


def test_several_processes_share_the_runs(main, trained, tmp_path):
    """As if another process were at one of them: it is left out."""
    other = results.FileLock(tmp_path / "locks/digits float32 1.lock")
    with other:
        assert not main(["--problem", "digits", "--modes", *MODES, "--seeds", "2"])
        assert sorted(trained) == [pair for pair in RUNS if pair != ("float32", 1)]
    assert not main(["--problem", "digits", "--modes", *MODES, "--seeds", "2"])
    assert sorted(trained) == RUNS


def test_interrupted(main, monkeypatch, trained, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "trained", stopped)
    assert main(["--problem", "digits"]) == 130
    assert "the same command makes the others" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--seeds 0", "--seeds 0: must be at least 1"),
        ("--steps -1", "--steps -1: must be at least 1"),
        ("--steps x", "invalid int"),
        ("--problem gpt2", "--problem gpt2: give at least one of gpt"),
        ("--modes split8", "--modes split8: give at least one of float32"),
        ("--problem gpt-momentum --modes split", "none of them is trained with --problem gpt-momentum"),
        ("--output {file}", "name a directory that can be written"),
    ],
)
def test_wrong_arguments(given, said, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["precision", *given.format(file=tmp_path / "file").split()])
    refused(lambda _: study.main(), "", said, capsys)


def test_other_settings_are_refused(main, trained, monkeypatch, capsys):
    assert not main(["--problem", "digits", "--seeds", "1"])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--steps", "12"])
    refused(lambda _: study.main(), "", "digits.json holds runs with steps 2000, and 12 is asked for: remove it", capsys)


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["precision"])
    monkeypatch.setitem(sys.modules, "sklearn", None)
    refused(lambda _: study.main(), "", "scikit-learn: not installed; pip install -c constraints.txt", capsys)


def made(**losses: list[float | None]) -> dict:
    """Results of modes with the last loss of each seed."""
    runs = [dict(mode=name, seed=n, bytes=8.0, losses=[3.0, loss]) for name, of in losses.items() for n, loss in enumerate(of)]
    return dict(evaluated=[1, 2], runs=runs)


def test_table():
    """Differences are taken seed by seed; their mean counts where it is beyond Student's t of their spread."""
    base = [2.0, 2.02, 2.04]
    found = made(
        float32=base,
        split=[loss * more for loss, more in zip(base, (1.0, 1.01, 1.02), strict=True)],
        split24=[loss * less for loss, less in zip(base, (0.975, 0.98, 0.985), strict=True)],
        **{"plain bfloat16": [2, None, 2]},
    )
    float32, split, split24, plain = (line.strip("| ").split(" | ") for line in table.TABLES["precision"](found)[2:])
    assert float32 == ["float32", "8.00", "2.0200 ± 0.0200", "", "", "3"]
    assert split[3:] == ["+1.00% ± 2.48%", "+0.00% to +2.00%", "3", "no"]  # t is 4.303 with 95% and 2 degrees of freedom
    assert split24[3:] == ["-2.00% ± 1.24%", "-2.50% to -1.50%", "3", "better"]
    assert plain[2] == "diverged"
    assert table.verdict(1.0, 0.99) == "worse"
    one = table.TABLES["precision"](made(float32=[2.0], split=[2.2]))
    assert one[2:] == ["| float32 | 8.00 | 2.0000 |  |  | 1 |  |", "| split | 8.00 | 2.2000 | +10.00% |  | 1 |  |"]
    assert table.TABLES["precision"](made(split=[2.2]))[2:] == ["| split | 8.00 | 2.2000 |  |  | 1 |  |"]


@exhaustive
def test_all_modes_begin_alike():
    """Without a learning rate the losses stay the same."""
    problem = problems.PROBLEMS["digits"]._replace(lr=0.0)
    *_, (_, run) = training.trained(problem, "float32", 1, 2)
    assert len(run["losses"]) == 2
    for mode in ("split + 8-bit", "plain bfloat16"):
        *_, (_, other) = training.trained(problem, mode, 1, 2)
        assert other["losses"] == run["losses"]
    *_, (_, other) = training.trained(problem, "float32", 2, 2)
    assert other["losses"] != run["losses"]


def test_batches_and_sizes():
    task = problems.PROBLEMS["digits"].task
    assert all(map(torch.equal, task.batch(1, 2), task.batch(1, 2)))
    assert not torch.equal(task.batch(1, 2)[1], task.batch(1, 3)[1])
    assert training.evaluated(2000)[::11] == [167, 2000]
    assert training.evaluated(3) == [1, 2, 3]
    sizes = {key: sum(param.numel() for param in problem.task.model().parameters()) for key, problem in problems.PROBLEMS.items()}
    assert sizes["gpt"] == 951552
    assert 10e6 < sizes["gpt-large"] < 11e6
