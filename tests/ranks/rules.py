"""Rules of a user's making, examples/own_rules.py's, under FSDP2: in shards, in few bits, and resumed."""

import pathlib
import sys

import torch
import torch.distributed.checkpoint as dcp

from fusedrms import apply_in_backward
from fusedrms.engine.sharded import local

from . import models
from .checkpoints import load, state, steps
from .models import STEPS, agree, check, layers, mesh_of, sharded
from .shards import codes, compare

sys.path.append(str(pathlib.Path(__file__).parents[2] / "examples"))
from own_rules import AdamW, Lion

LEAN = dict(master_weights="split", state_dtype="8bit", seed=3)
MODES = {
    "decay": (torch.float32, dict(weight_decay=0.5, clip_grad_value=0.5)),
    "stochastic": (torch.bfloat16, dict(stochastic_rounding=True, seed=3)),
    "split": (torch.bfloat16, dict(master_weights="split", weight_decay=0.5, ema_decay=0.5)),
    "split, bfloat16 states": (torch.bfloat16, dict(master_weights="split", state_dtype=torch.bfloat16, seed=3)),
}


def rules_in_shards(rank: int, world: int) -> None:
    """As one process has them, bit for bit but for a norm; of codes, whose groups begin anew in each shard, what begins the whole."""
    mesh = mesh_of(world)
    compare(sharded(mesh), layers(), AdamW, dict(lr=1e-2, clip_grad_norm=0.1))
    compare(sharded(mesh, torch.bfloat16), layers(torch.bfloat16), AdamW, dict(lr=1e-2, master_weights="split"))
    for cls in (AdamW, Lion):
        codes(rank, sharded(mesh, torch.bfloat16), dict(lr=1e-2, **LEAN), cls)


def rules_in_every_mode(rank: int, world: int) -> None:
    mesh = mesh_of(world)
    for cls in (AdamW, Lion):
        for dtype, options in MODES.values():
            compare(sharded(mesh, dtype), layers(dtype), cls, dict(lr=1e-2, **options))


def rules_resumed(rank: int, world: int) -> None:
    """Through torch.distributed.checkpoint, which another optimizer loads: as if it had never stopped, bit for bit."""
    mesh = mesh_of(world)
    for cls in (AdamW, Lion):
        model, other = sharded(mesh, torch.bfloat16), sharded(mesh, torch.bfloat16)
        with torch.no_grad():
            for param in other.parameters():
                local(param).zero_()
        optimizer = cls(model.parameters(), lr=1e-2, weight_decay=0.1, clip_grad_norm=0.1, betas=(0.5, 0.9), **LEAN)
        loaded = cls(other.parameters(), lr=1.0, clip_grad_norm=1.0, **LEAN)
        steps(model, optimizer, 0, STEPS)
        dcp.save(state(model, optimizer), checkpoint_id=cls.__name__)
        steps(model, optimizer, STEPS, 2 * STEPS)
        load(cls.__name__, other, loaded)
        steps(other, loaded, STEPS, 2 * STEPS)
        check(map(local, other.parameters()), map(local, model.parameters()))
        for param, twin in zip(model.parameters(), other.parameters(), strict=True):
            assert optimizer.state[param].keys() == loaded.state[twin].keys()
            for key, value in optimizer.state[param].items():
                assert torch.equal(local(value), local(loaded.state[twin][key])), key
        assert loaded.param_groups[0]["betas"] == (0.5, 0.9)


def rules_in_backward(rank: int, world: int) -> None:
    """Each parameter as soon as its gradient is there, with the data that one process has."""
    model, plain = sharded(mesh_of(world)), layers()
    for each in (model, plain):
        apply_in_backward(each, AdamW, lr=1e-3, clip_grad_norm=0.1, norm_from="previous")
    for step in range(STEPS):
        x = torch.randn(4, 7, generator=torch.Generator().manual_seed(step)).to(models.DEVICE)
        for each in (model, plain):
            each(x).square().mean().backward()
            assert all(param.grad is None for param in each.parameters())
    agree(model, plain, exact=False)


CHECKS = (rules_in_shards, rules_in_every_mode, rules_resumed, rules_in_backward)
