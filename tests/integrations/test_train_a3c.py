"""The example that learns CartPole by A3C and A2C, at a size that takes seconds, and how its processes end."""

import csv
import json
import operator
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

ROOT = pathlib.Path(__file__).parent.parent.parent
SCRIPT = ROOT / "examples" / "train_a3c.py"
sys.path[1:1] = [str(SCRIPT.parent), str(ROOT / "tests")]

import train_a3c  # noqa: E402
from a3c.by_hand import compare  # noqa: E402
from a3c.cartpole import DISCOUNT, ActorCritic, Players, evaluate, in_numpy, loss  # noqa: E402
from a3c.options import parser  # noqa: E402
from a3c.workers import WorkerDied, workers  # noqa: E402
from process_tools import gone  # noqa: E402

ENDLESS = ("--algorithm", "a3c", "--steps", 2**31 - 1, "--solved", 501)


def started(*arguments: object) -> subprocess.Popen:
    """The script in a process group of its own, as a terminal starts it; its bars are drawn."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FORCE_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(process: subprocess.Popen) -> dict[str, str]:
    """Ids of a process's children, with their command lines."""
    found = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {number: pathlib.Path("/proc", number, "cmdline").read_text() for number in found}


def workers_of(process: subprocess.Popen, count: int = 2) -> list[str]:
    """The ids of its workers, once all have been started."""
    until = time.monotonic() + 100
    while len(found := [number for number, line in children(process).items() if "spawn_main" in line]) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def learning() -> tuple[subprocess.Popen, list[str]]:
    """A run of A3C that never ends, once its bar shows returns, and the ids of its workers."""
    process = started(*ENDLESS)
    found, shown = workers_of(process), ""
    while "mean return" not in shown:
        shown += (more := process.stdout.read(1))
        assert more, process.communicate()
    return process, found


@pytest.mark.parametrize("optimizer", ["fusedrms", "by-hand"])
def test_a_run(tmp_path, optimizer):
    process = started("--steps", 600, "--output", tmp_path / "run", "--optimizer", optimizer)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert not err
    assert f"Curves and figures are in {tmp_path}/run" in out
    assert (tmp_path / "run" / "returns.png").read_bytes().startswith(b"\x89PNG")

    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["settings"]["optimizer"] == optimizer
    assert list(results["algorithms"]) == ["A3C", "A2C"]
    with (tmp_path / "run" / "episodes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, batch, at_once in ("A3C", 50, 2 * 50), ("A2C", 400, 400):
        figures = results["algorithms"][name]
        assert 600 <= figures["steps"] < 600 + at_once
        assert figures["steps"] % batch == 0
        assert 8 <= figures["final_return"] <= 500
        assert 0 < figures["optimizer_seconds"] < figures["learning_seconds"]
        own = [row for row in rows if row["algorithm"] == name]
        assert own
        steps = [int(row["steps"]) for row in own]
        assert steps == sorted(steps)
        assert sum(float(row["return"]) for row in own) <= figures["steps"]
    assert set(results["update_seconds"]) == {"fusedrms", "by-hand", "the rest"}
    assert all(0 < seconds < 1 for seconds in results["update_seconds"].values())


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("when", ["starting", "learning"])
def test_ctrl_c(when):
    """A terminal sends it to all processes: they end without a traceback."""
    if when == "learning":
        process, found = learning()
    else:
        process = started(*ENDLESS)
        found = workers_of(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert not err
    assert gone(*found)


def test_a_worker_dies():
    process, found = learning()
    os.kill(int(found[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert err == f"train_a3c.py: error: worker 1 (process {found[1]}) was ended by SIGKILL; the others were stopped\n"
    assert gone(*found)


def test_the_main_process_dies():
    """Its workers see it when they have something to tell."""
    process, found = learning()
    process.kill()
    process.communicate(timeout=10)
    assert gone(*found)


def test_a_worker_fails(capfd):
    """Its own traceback says why."""
    with workers() as started:
        started.start(2, operator.is_)  # its number and its pipe
        assert not list(started.messages())
    with workers() as started:
        started.start(1, operator.add)
        with pytest.raises(WorkerDied, match=r"^worker 0 \(process \d+\) failed \(1\); the others were stopped$"):
            list(started.messages())
    assert "unsupported operand" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--workers", "0"), "--workers: '0' is not a whole number from 1 to 1024"),
        (("--workers", "two"), "--workers: 'two' is not a whole number"),
        (("--environments", "-1"), "--environments: '-1' is not a whole number from 1"),
        (("--rollout", "0"), "--rollout: '0' is not a whole number from 1"),
        (("--steps", "1e5"), "--steps: '1e5' is not a whole number from 1"),
        (("--lr", "nan"), "--lr: 'nan' is not a finite number above 0"),
        (("--eps", "0"), "--eps: '0' is not a finite number above 0"),
        (("--clip", "inf"), "--clip: 'inf' is not a finite number above 0"),
        (("--entropy", "-0.1"), "--entropy: '-0.1' is not a finite number of at least 0"),
        (("--solved", "all"), "--solved: 'all' is not a finite number of at least 0"),
        (("--seed", "-1"), "--seed: '-1' is not a whole number from 0"),
        (("--algorithm", "ppo"), "invalid choice: 'ppo'"),
        (("--optimizer", "adam"), "invalid choice: 'adam'"),
        (("--output", ""), "names no place"),
        (("--output", "."), "already exists; name a new or empty folder\n"),
        (("--worker", "2"), "unrecognized arguments"),
        (("--lock", "--optimizer", "by-hand"), "--lock: RMSProp by hand has none"),
    ],
)
def test_wrong_options(capsys, given, message):
    pathlib.Path("file").touch()
    with pytest.raises(SystemExit, match="2"):
        train_a3c.main([*given])
    assert message in capsys.readouterr().err


class Scripted:
    """Episodes that end when they are told to; an observation is how often the environment was stepped."""

    def __init__(self, falls: set[int], times_out: set[int]):
        self.falls, self.times_out, self.steps = falls, times_out, 0

    def reset(self):
        return np.full(4, 0.1 * self.steps, np.float32), {}

    def step(self, action: int):
        assert action in (0, 1)
        self.steps += 1
        return self.reset()[0], 1.0, self.steps in self.falls, self.steps in self.times_out, {}


def test_returns():
    """Discounted up to the end of each episode; a value stands for what would follow the last step and a time limit."""
    model, players = ActorCritic(), Players(2, [0])
    players.environments = [Scripted({3}, {7}), Scripted({2, 6}, {6})]  # one falls at its time limit
    returns = players.play(model, 8).returns.unflatten(0, (8, 2)).T.tolist()
    assert players.finished == [2, 3, 4, 4]
    assert players.so_far == [1, 2]

    values = [model(torch.full((1, 4), 0.1 * step))[1].item() for step in range(9)]
    for found, ends in zip(returns, ({3: 0, 7: values[7]}, {2: 0, 6: 0}), strict=True):
        following = values[8]
        for step in range(8, 0, -1):
            following = 1 - DISCOUNT + DISCOUNT * ends.get(step, following)
            assert found[step - 1] == pytest.approx(following, abs=1e-6)


def test_loss():
    """Its gradient is that of the paper's equations; NumPy's forward is torch's."""
    model = ActorCritic()
    batch = Players(2, [1]).play(model, 5)
    logits, values = model(batch.observations)
    for ours, theirs in zip(in_numpy(model)(batch.observations.numpy()), (logits, values), strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs.detach())
    policy = torch.distributions.Categorical(logits=logits)
    advantages = (batch.returns - values).detach()
    expected = -(policy.log_prob(batch.actions) * advantages).sum() + 0.5 * (batch.returns - values).square().sum()
    torch.testing.assert_close(loss(model, batch, 0.3), expected - 0.3 * policy.entropy().sum())


def test_optimizers_agree():
    """By hand and fused: the same rule, rate and limit of the norm."""
    args = parser(None).parse_args(["--clip", "0.5"])
    models = {}
    for name in ("fusedrms", "by-hand"):
        torch.manual_seed(0)
        model = models[name] = ActorCritic()
        optimizer = train_a3c.rmsprop(name, model.parameters(), args)
        for step in range(5):
            torch.manual_seed(step)
            for param in model.parameters():
                param.grad = torch.randn_like(param)
            optimizer.step()
    for ours, theirs in zip(*(model.parameters() for model in models.values()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # torch's limit of the norm has 1e-6 in its denominator


def test_compare():
    """Gradients are the same for both, which hand-written clipping changes."""
    args = parser(None).parse_args(["--clip", "0.1"])
    made, model = {}, ActorCritic()
    gradients = [torch.ones_like(param) for param in model.parameters()]

    def make(name: str, params: list):
        made[name] = params
        return train_a3c.rmsprop(name, params, args)

    assert list(compare(make, model, lambda: gradients, 3)) == ["the rest", "fusedrms", "by-hand"]
    assert all((gradient == 1).all() for gradient in gradients)
    for ours, theirs in zip(*made.values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_evaluate():
    """The same episodes each time; a policy that always pushes to one side falls in about ten steps."""
    model = ActorCritic()
    assert evaluate(model, 5, 7) == evaluate(model, 5, 7)
    with torch.no_grad():
        model.last.weight.zero_()
        model.last.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    assert 8 <= evaluate(model, 20, 0) <= 11


def test_learns(tmp_path):
    """A2C, whose run with a seed is the same each time."""
    train_a3c.main(["--algorithm", "a2c", "--steps", "20000", "--output", str(tmp_path / "run")])
    figures = json.loads((tmp_path / "run" / "results.json").read_text())["algorithms"]["A2C"]
    assert figures["final_return"] > 150
