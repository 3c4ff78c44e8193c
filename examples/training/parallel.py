"""Processes that train together, as torchrun starts them. One alone is a group of one, so that all else is written once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from gpt import GPT

T = TypeVar("T")


@contextmanager
def process_group() -> Iterator[None]:
    """The group of all processes. Of several, end_process destroys it, and says why; one alone has it no longer than this context.

    So one alone may not make a DistributedDataParallel, which would outlive it.
    """
    if dist.is_torchelastic_launched():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        yield
    else:
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def end_process(main: Callable[[], int]) -> NoReturn:
    """End it with the status that `main` returns or exits with, or 130 after Ctrl-C, but without Python's own end.

    A thread of gloo that still lets go of a tensor then aborts the process, and `destroy_process_group` does not always end the
    threads: what DTensor caches keeps each mesh of `fully_shard`, and the mesh its group.

    The group is destroyed here, after all that `main` made has gone: a DistributedDataParallel that outlives it waits for such a
    thread while it holds Python's lock, for which the thread waits. After an error it is not: the others may not answer any more.
    """
    together = True
    try:
        status = main()
    except SystemExit as end:  # is for all at once, see decided_by_first
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        status, together = 130, False
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)  # torchrun's says which rank it is
        status, together = 1, False
    if together and dist.is_initialized():
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def set_timeout(seconds: int) -> None:
    """For the others: a machine that has died says nothing, and gloo would wait for half an hour."""
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds))


def decided_by_first(decide: Callable[[], T]) -> T:
    """What `decide` returns to the first process, for all of them; if it exits, having said why, all exit; an OSError is for all, too."""
    box: list = [None]
    if dist.get_rank() == 0:
        try:
            box = [decide()]
        except (SystemExit, OSError) as error:
            box = [error]
    dist.broadcast_object_list(box)
    if isinstance(box[0], (SystemExit, OSError)):
        raise box[0]
    return box[0]


def shard(rows: Tensor) -> Tensor:
    """The rows that this process takes; all processes together take each once."""
    return rows[dist.get_rank() :: dist.get_world_size()]


def all_gather(values: list[float]) -> Tensor:
    """The values of all processes, in one row each."""
    rows = [torch.empty(len(values), dtype=torch.float64) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, torch.tensor(values, dtype=torch.float64))
    return torch.stack(rows)


def local_device(name: str) -> torch.device:
    """That of this process: of several on a machine, each has the GPU of its number there."""
    device = torch.device(name)
    if device.type == "cuda" and dist.is_torchelastic_launched():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """By the same names in any number of processes: DistributedDataParallel puts its own before them."""
    return [(name.removeprefix("module."), parameter) for name, parameter in model.named_parameters()]


def parallelize(model: GPT, parallel: str | None, device: torch.device) -> nn.Module:
    """The model as each process holds it: all of it, with averaged gradients ("ddp"), or in parts ("fsdp"), block by block."""
    if parallel == "ddp":
        return DistributedDataParallel(model, gradient_as_bucket_view=True)
    if parallel == "fsdp":
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for part in (*model.blocks, model):
            fully_shard(part, mesh=mesh)
    return model
