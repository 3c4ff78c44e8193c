"""The main job in several processes: they compute what one computes, begin, stop and die together, and one speaks for all."""

import math
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from train_tools import (
    SCRIPT,
    TINY,
    TORCHRUN,
    alone,
    compare_runs,
    copy,
    ended,
    flip,
    losses,
    metrics,
    started,
    step_saved,
    stopped_run,
    train,
    until,
)
from training import resume

LAST = """
import os
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from training.parallel import decided_by_first, end_process, process_group

def refuse():
    raise SystemExit(int(os.environ["STATUS"]))

def main():
    cores = sorted(os.sched_getaffinity(0))
    core = {cores[int(os.environ.get("LOCAL_RANK", 0)) % len(cores)]}
    os.sched_setaffinity(0, core)
    with process_group():
        model = torch.nn.Linear(2, 2)
        ddp = os.environ["PARALLEL"] == "ddp"
        if ddp:
            model = DistributedDataParallel(model)
        else:
            fully_shard(model, mesh=init_device_mesh("cpu", (torch.distributed.get_world_size(),)))
        decided_by_first(lambda: "all threads run")
        for thread in map(int, os.listdir("/proc/self/task")):
            os.sched_setaffinity(thread, core)
            if thread != os.getpid():
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
        decided_by_first(int if ddp else refuse)
    return int(os.environ["STATUS"])  # which lets go of the model; SystemExit keeps it

end_process(main)
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="holds threads back with Linux's scheduler")
@pytest.mark.parametrize(
    ("processes", "parallel", "status"),
    [(1, "fsdp", 2), (2, "fsdp", 0), (2, "ddp", 0)],  # ddp is refused for one; torchrun's own status is 1 whatever its processes' is
)
def test_end_on_a_busy_machine(processes, parallel, status, tmp_path):
    """The group's threads come last: what they have not put away when Python ends aborted processes, two of three, or blocked them."""
    (tmp_path / "last.py").write_text(LAST)
    command = [sys.executable, *(TORCHRUN if processes > 1 else ()), tmp_path / "last.py"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent), "OMP_NUM_THREADS": "1", "PARALLEL": parallel, "STATUS": str(status)}
    for _ in range(4):
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
        assert process.returncode == status, process.stderr


ENDS = """
import os, sys
from training.parallel import end_process

def exits(code): raise SystemExit(code)

def fails(): raise RuntimeError("what failed")

def interrupted(): raise KeyboardInterrupt

def prints():
    print("still in a buffer", end="")
    return 3

for main in (lambda: 0, prints, lambda: exits(None), lambda: exits(2), lambda: exits("a reason"), fails, interrupted):
    if not (child := os.fork()):
        end_process(main)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_statuses():
    """As Python's own end has them; what is in buffers is written, and an error has its traceback."""
    process = subprocess.run([sys.executable, "-c", ENDS], cwd=SCRIPT.parent, capture_output=True, text=True, check=False, timeout=100)
    lines = process.stderr.splitlines()
    assert [int(line) for line in lines if line.isdecimal()] == [0, 3, 0, 2, 1, 1, 130]
    assert "a reason" in lines
    assert "RuntimeError: what failed" in lines
    assert process.stdout == "still in a buffer"


@pytest.mark.exhaustive
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_output(closed):
    for option, status in (("--help", 0), ("--unknown", 2)):
        command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, SCRIPT, option]
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
        assert subprocess.run(command, env=environment, capture_output=True, check=False, timeout=100).returncode == status


@pytest.mark.exhaustive
def test_one_process_speaks(tmp_path):
    folder = copy(stopped_run(), tmp_path)
    out = ended(started(["--resume", folder], processes=2), status=1)
    assert out.count("error: --parallel") == 1


def kill(process: subprocess.Popen) -> str:
    """At once: the ranks too, which torchrun can no longer tell to stop."""
    ranks = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, ranks)):
        os.kill(pid, signal.SIGKILL)
    return process.communicate()[0]


def begin_and_stop(folder: pathlib.Path, steps: int) -> int:
    """Begin a run by fsdp and stop it by SIGTERM, after the step that is returned."""
    options = [*TINY, "--steps", steps, "--no-compare", "--save-every", 2, "--output", folder, "--parallel", "fsdp"]
    process = started(options, processes=2)
    until(process, (folder / "checkpoint").exists)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=100)
    stopped = step_saved(folder)
    assert out.count(f"Stopped at step {stopped} of {steps}") == 1, out
    return stopped


def damage_and_kill(folder: pathlib.Path, before: int) -> int:
    """Damage the last checkpoint, go on by ddp from the one before, and kill the run while it saves; return the last step saved.

    One process verifies, and says so once; all go on from the same.
    """
    flip(folder / "checkpoint" / "__0_0.distcp")
    process = started(["--resume", folder, "--save-every", 1, "--parallel", "ddp"], processes=2)
    until(process, lambda: len(metrics(folder)) > before + 2)  # written before each save, so the one before is complete
    until(process, (folder / "checkpoint.new").exists)
    out = kill(process)
    assert out.count("is damaged") == out.count("Going on from the checkpoint before it") == 1
    assert f"Resuming {folder} after step {before} of" in out
    return step_saved(folder)


@pytest.mark.exhaustive
def test_several_processes(tmp_path):
    """Whatever number of processes takes a step, and however the run was stopped before, every loss is that of one process which adds
    up the same parts and is never stopped, bit for bit."""
    folder, steps, between = tmp_path / "run", 400, 40  # steps from one held-out loss to the next
    stopped = begin_and_stop(folder, steps)
    assert train(["--resume", folder, "--save-every", 1, "--stop-at", stopped + 2]) == 0
    killed = damage_and_kill(folder, before=stopped + 1)
    copied = copy(folder, tmp_path / "copy")
    last = between * math.ceil((killed + 1) / between)
    assert 0 < stopped < killed - 1 < last < steps
    parts = [2] * stopped + [1] + [2] * (last - stopped - 1)

    ended(started(["--resume", folder, "--stop-at", last, "--parallel", "fsdp"], processes=2))
    expected, held_out = alone(parts, steps)
    assert losses(folder) == expected
    assert float(metrics(folder)[-1]["held_out_loss"]) == pytest.approx(held_out, rel=compare_runs.BOUND)
    assert len(list((folder / "checkpoint").glob("*.distcp"))) == 2
    found = resume.find(str(folder))
    assert (found.about["step"], found.notes) == (last, [])

    assert train(["--resume", copied, "--stop-at", killed + 3]) == 0
    assert losses(copied) == alone([*parts[:killed], 1, 1, 1], steps)[0]
