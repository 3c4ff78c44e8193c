"""Functions that run as the ranks of a process group."""

import datetime
import os
import pathlib
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, multiprocessing

from process_tools import leave_group


def _work(rank: int, check: Callable[..., None], world: int, arguments: tuple[Any, ...]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    wait = datetime.timedelta(seconds=120)
    distributed.init_process_group("gloo", init_method=f"file://{pathlib.Path.cwd()}/store", rank=rank, world_size=world, timeout=wait)
    check(*arguments)
    leave_group()


def run(world: int, check: Callable[..., None], *arguments: Any) -> None:
    """Raises what a rank has raised, with its traceback."""
    multiprocessing.start_processes(_work, (check, world, arguments), world, start_method="spawn")
