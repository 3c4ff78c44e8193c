"""The last rank is killed; what the others are left with."""

import os
import signal

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import distributed
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from fusedrms import FusedRMSProp
from fusedrms.engine.sharded import local

from .checkpoints import OPTIONS, state, steps
from .models import STEPS, check, give_gradients, mesh_of, sharded


def kill(*_, **__) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in_step(rank: int, world: int) -> None:
    """As it adds up the norm: step() of the others raises, and has changed nothing."""
    model = sharded(mesh_of(world))
    optimizer = FusedRMSProp(model.parameters(), clip_grad_norm=0.01, momentum=0.9)
    steps(model, optimizer, 0, STEPS)

    def values() -> list[torch.Tensor]:
        return [local(tensor).clone() for param in model.parameters() for tensor in (param, *optimizer.state[param].values())]

    before = values()
    give_gradients(STEPS, model)
    if rank == world - 1:
        distributed.all_reduce = kill
    with pytest.raises(RuntimeError):
        optimizer.step()
    check(values(), before)


def killed_in_save(rank: int, world: int) -> None:
    """The checkpoint that it began has no metadata, and the one before it is whole."""
    model = sharded(mesh_of(world))
    optimizer = FusedRMSProp(model.parameters(), **OPTIONS)
    steps(model, optimizer, 0, STEPS)
    dcp.save(state(model, optimizer), checkpoint_id="before")
    steps(model, optimizer, STEPS, 2 * STEPS)
    if rank == world - 1:
        FileSystemWriter.write_data = kill
    with pytest.raises((RuntimeError, dcp.api.CheckpointException)):
        dcp.save(state(model, optimizer), checkpoint_id="killed")


CHECKS = (killed_in_step, killed_in_save)
