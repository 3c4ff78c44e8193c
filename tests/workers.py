"""Processes that run checks as the ranks of a group."""

import faulthandler
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence

import torch
from torch import distributed

from process_tools import leave_group
from ranks import checkpoints, exchange, faults, gradients, loading, models, replicas, rules, shards, spikes, stages

MODULES = (replicas, shards, gradients, stages, spikes, checkpoints, exchange, loading, rules)
CHECKS = {check.__name__: check for module in MODULES for check in module.CHECKS}
FAULTS = {check.__name__: check for check in faults.CHECKS}
LIMIT = 300  # seconds that a check may take, on a busy machine and with all to be compiled


def work(rank: int, world: int, folder: str, names: list[str], device: str, store: str) -> None:
    """Run checks one after the other; a file for each, with the reason if it failed."""
    faulthandler.enable()  # what a rank did that dies
    os.chdir(folder)
    torch.set_num_threads(1)
    models.DEVICE, backends = device, "gloo"
    if device == "cuda":
        torch.cuda.set_device(rank)
        backends = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backends, init_method=store, rank=rank, world_size=world)
    for name in names:
        try:
            {**CHECKS, **FAULTS}[name](rank, world)
            result = ""
        except Exception:
            result = traceback.format_exc()
        pathlib.Path(f"{name}.{rank}").write_text(result)
        if result or name in FAULTS:
            os._exit(bool(result))  # the other ranks may wait for this one for ever
        distributed.barrier()
    leave_group()


def run(
    world: int,
    folder: str,
    names: list[str],
    dies: int | None = None,
    device: str = "cpu",
    store: str | None = None,
    machines: Sequence[Sequence[str]] = ([],),
) -> dict[str, str]:
    """What each check had to say, "" where it passed on all ranks but the one that dies, as it must.

    Args:
        store: the address where the ranks meet, as init_process_group takes it. Default: a file in the folder.
        machines: for each, what begins a command there; each has as many ranks.
    """
    code = "import json, sys, workers; workers.work(*json.loads(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ranks = []
    for rank in range(world):
        arguments = json.dumps([rank, world, folder, names, device, store or f"file://{folder}/store"])
        command = [*machines[rank * len(machines) // world], sys.executable, "-c", code, arguments]
        ranks.append(subprocess.Popen(command, env=environment))
    results = {name: [pathlib.Path(folder, f"{name}.{rank}") for rank in range(world)] for name in names}
    failed, ended, since = False, 0, time.monotonic()
    while any(process.poll() is None for process in ranks):
        time.sleep(0.1)
        failed |= any(rank != dies and process.poll() not in (0, None) for rank, process in enumerate(ranks))
        if (now := sum(path.exists() for paths in results.values() for path in paths)) > ended:
            ended, since = now, time.monotonic()
        if failed or time.monotonic() > since + LIMIT:
            for process in ranks:
                process.kill()
    found = {}
    for name, paths in results.items():
        reasons = [path.read_text() if path.exists() else "did not end" for rank, path in enumerate(paths) if rank != dies]
        reasons += ["did not die" for rank, path in enumerate(paths) if rank == dies and path.exists()]
        found[name] = "\n".join(reason for reason in sorted(set(reasons), reverse=True) if reason)
    return found
