"""Two machines: what their ranks compute is what one process computes, and one that dies takes nothing with it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch

from fusedrms.kernels import lang

if lang.interpreted() or not torch.distributed.is_available():
    pytest.skip("about processes, which the interpreter only slows down", allow_module_level=True)

import train_tools
import workers
from machines import ADDRESSES, PROGRAMS, Machine, Unavailable, two_machines
from ranks import checkpoints, shards
from train_tools import ROOT, TINY, alone, losses, metrics, step_saved, until

STEPS = 400  # that the schedule spans; no run here comes so far
TIMEOUT = 5
BOUND = 100  # seconds in which all ends, on a busy machine too; 5 to 8 were measured after a death


@pytest.fixture
def machines(tmp_path):
    try:
        with two_machines(tmp_path) as made:
            yield made
    except Unavailable as reason:
        pytest.skip(f"no two machines: {reason}")


@pytest.mark.exhaustive
def test_ranks(machines, tmp_path):
    """What test_distributed.py checks of FSDP2 and checkpoints on one machine."""
    names = [check.__name__ for module in (shards, checkpoints) for check in module.CHECKS]
    commands = [machine.command() for machine in machines]
    found = workers.run(2, str(tmp_path), names, store=f"tcp://{ADDRESSES['one']}:29500", machines=commands)
    assert not any(found.values()), "\n".join(f"{name}: {reason}" for name, reason in found.items() if reason)
    assert min(machine.received() for machine in machines) > 100_000  # half a megabyte was measured


def train(machines: tuple[Machine, Machine], options: Sequence[object]) -> list[subprocess.Popen]:
    """The page's command, the same on both, but for sizes."""
    (line,) = re.findall(r"^torchrun (--nnodes 2 .*)", (ROOT / "docs/several_gpus.md").read_text(), re.M)
    words = shlex.split(line.replace("--nproc-per-node 8", "--nproc-per-node 1").replace("HOST", machines[0].name))
    command = ["env", f"PYTHONPATH={ROOT}", "OMP_NUM_THREADS=1", sys.executable, "-m", "torch.distributed.run", *words]
    return [
        subprocess.Popen(
            machine.command(*command, *map(str, (*TINY, *options)), folder=str(ROOT)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for machine in machines
    ]


def ended(process: subprocess.Popen) -> str:
    return process.communicate(timeout=BOUND)[0]


@pytest.mark.exhaustive
def test_one_dies(machines, tmp_path):
    """First the second, then the one where they meet, so that nobody is told: the other ends, and all resume from what both had saved.

    Every loss is that of one process which adds up the same parts and is never stopped, bit for bit.
    """
    alone([2], STEPS)  # compiles the kernels, before anybody waits for it
    one, two = machines
    folder, copy = tmp_path / "run", tmp_path / "copy"

    ours, theirs = train(machines, ["--steps", STEPS, "--no-compare", "--save-every", 2, "--timeout", TIMEOUT, "--output", folder])
    until(ours, (folder / "checkpoint").exists)
    two.plug("down")
    two.kill()
    said = ended(ours)
    assert ours.returncode == 1, said
    assert f"Timed out waiting {TIMEOUT}000ms" in said
    ended(theirs)
    first = step_saved(folder)
    shutil.copytree(folder, copy)

    two.plug("up")
    two.give_up_early()
    ours, theirs = train(machines, ["--resume", folder, "--timeout", TIMEOUT])
    until(theirs, lambda: len(metrics(folder)) >= first + 4)  # written before each save, so the one before is complete
    one.plug("down")
    one.kill()
    said = ended(theirs)
    assert theirs.returncode == 1, said
    ended(ours)
    second = step_saved(folder)
    assert first < second < STEPS - 4

    one.plug("up")
    for process in train(machines, ["--resume", folder, "--stop-at", second + 4]):
        said = ended(process)
        assert process.returncode == 0, said
    assert losses(folder) == alone([2] * (second + 4), STEPS)[0]

    assert train_tools.train(["--resume", copy, "--stop-at", first + 3]) == 0
    assert losses(copy) == alone([2] * first + [1] * 3, STEPS)[0]


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_a_program(tmp_path, monkeypatch, program):
    """The reason of a test that is skipped."""
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else name)
    with pytest.raises(Unavailable, match=f"the program {program} is missing"), two_machines(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can give up a right, by setpriv")
@pytest.mark.parametrize("right", ["sys_admin", "net_admin"])
def test_without_a_right(tmp_path, right):
    code = "import pathlib, sys; from machines import two_machines; two_machines(pathlib.Path(sys.argv[1])).__enter__()"
    command = ["setpriv", "--bounding-set", f"-{right}", sys.executable, "-c", code, tmp_path]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, timeout=60, check=False)
    assert f"CAP_{right.upper()}" in done.stderr
    assert "ermitted" in done.stderr
