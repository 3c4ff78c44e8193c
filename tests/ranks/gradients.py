"""Gradients of DTensors that are placed otherwise, still under way, or not there on every rank."""

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed._functional_collectives import all_reduce
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module

from fusedrms import FusedRMSProp
from fusedrms.engine.sharded import local

from .models import STEPS, check, mesh_of


def parameter(shape: tuple[int, ...], mesh, placements) -> nn.Parameter:
    return nn.Parameter(distribute_tensor(torch.ones(shape), mesh, placements))


class Block(nn.Module):
    """In sequence parallel the gradients of its norms are partial sums; an expert belongs to one rank alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.last = nn.LayerNorm(8), nn.LayerNorm(8)
        self.up, self.down, self.expert = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.down(self.up(self.norm(x)).relu()))


def sequence_parallel(rank: int, world: int) -> None:
    """As torch's optimizer, from the step on that a checkpoint makes with gradients of zeros, and where tables differ between ranks."""
    trained = []
    for cls in (FusedRMSProp, torch.optim.RMSprop):
        model = Block()
        plan = {
            "norm": SequenceParallel(),
            "up": ColwiseParallel(input_layouts=Shard(1)),
            "down": RowwiseParallel(output_layouts=Shard(1)),
            "last": SequenceParallel(),
        }
        parallelize_module(model, mesh_of(world), plan)
        optimizer = cls(model.parameters(), lr=1e-3, eps=1e-3)
        for param in model.parameters():
            param.grad = torch.zeros_like(param)
        optimizer.step()
        for step in range(STEPS):
            optimizer.zero_grad()
            x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(step))
            loss = model(x[:, rank * 4 // world : (rank + 1) * 4 // world]).to_local().square().sum()
            if rank or step != 1:
                loss = loss + model.expert(x).square().mean()
            loss.backward()
            assert model.norm.weight.grad.placements[0].is_partial()
            optimizer.step()
        trained.append([local(param) for param in model.parameters()])
    check(*trained, exact=False)


def other_placements(rank: int, world: int) -> None:
    """They may change from step to step, also where nothing else does."""
    mesh, whole = mesh_of(world), torch.arange(8.0)
    for placements in ([Replicate()], [Shard(0)]):
        param, plain = parameter((8,), mesh, placements), nn.Parameter(torch.ones(8))
        optimizer, expected = FusedRMSProp([param], clip_grad_norm=1.0), FusedRMSProp([plain], clip_grad_norm=1.0)
        for partial in (False, True, True, False):
            whole = whole + 1
            parts = whole * (rank + 1) * 2 / (world * (world + 1))
            param.grad = DTensor.from_local(parts, mesh, [Partial()]) if partial else distribute_tensor(whole, mesh, placements)
            plain.grad = whole.clone()
            versions = param._version, local(param)._version
            optimizer.step()
            expected.step()
            assert (param._version, local(param)._version) > versions
            assert local(param)._version > versions[1]
        torch.testing.assert_close(param.full_tensor(), plain, rtol=1e-6, atol=1e-6)


def under_way(rank: int, world: int) -> None:
    """The results of collectives that have not ended: their memory is not theirs yet."""
    mesh, plain = mesh_of(world), nn.Parameter(torch.ones(1000))
    params = parameter((1000,), mesh, [Replicate()]), nn.Parameter(torch.ones(1000))
    optimizer, expected = FusedRMSProp(params), FusedRMSProp([plain])
    for step in range(STEPS):
        part = torch.full((1000,), 1.0 + step)
        params[0].grad = DTensor.from_local(part, mesh, [Partial()]).redistribute(mesh, [Replicate()], async_op=True)
        params[1].grad = all_reduce(part, "sum", distributed.group.WORLD)
        plain.grad = world * part
        optimizer.step()
        expected.step()
    check(map(local, params), [plain, plain])


def missing_on_one_rank(rank: int, world: int) -> None:
    """A rank without a gradient takes part in the norm, with nothing, and knows it."""
    mesh = mesh_of(world)

    def ones(param: Tensor) -> Tensor:
        return DTensor.from_local(torch.ones_like(local(param)), mesh, param.placements)

    for over in ("optimizer", "parameter"):
        params = [parameter((8, 8), mesh, placements) for placements in ([Shard(0)], [Replicate()], [Shard(1)], [Shard(0)])]
        for param in params if rank else params[1:]:
            param.grad = ones(param)
        optimizer = FusedRMSProp(params, clip_grad_norm=1.0, clip_norm_over=over)
        if rank == 1:
            params[3].grad = None
        optimizer.step()
        here = 64 * (4 - 2 / world)
        torch.testing.assert_close(optimizer.last_grad_norm.item(), here**0.5, rtol=1e-6, atol=0)
        for param in params:
            param.grad = None
        if rank == 0:
            params[0].grad = ones(params[0])
        optimizer.step()
        torch.testing.assert_close(optimizer.last_grad_norm.item(), (64 / world) ** 0.5, rtol=1e-6, atol=0)


def other_bits_by_columns(rank: int, world: int) -> None:
    """Parts that do not lie in a row share their random bits with no other part."""
    param = nn.Parameter(distribute_tensor(torch.ones(64, 64 * world, dtype=torch.bfloat16), mesh_of(world), [Shard(1)]))
    optimizer = FusedRMSProp([param], lr=2.0**-9, weight_decay=1.0, decoupled_weight_decay=True, stochastic_rounding=True)
    param.grad = torch.zeros_like(param)
    optimizer.step()
    drawn = param.full_tensor() != 1
    parts = drawn.float().unflatten(1, (world, 64)).transpose(0, 1).flatten(1)
    assert (parts.mean(1) - 0.5).abs().max() < 4 * 0.5 / 64
    for other in range(1, world):
        assert (parts[0] == parts[other]).float().mean() < 0.5 + 4 * 0.5 / 64


def wrong(rank: int, world: int) -> None:
    """Named, on all ranks, before anything has changed."""
    mesh = mesh_of(world)

    def refused(param: Tensor, grad: Tensor, message: str, first: Tensor | None = None) -> None:
        optimizer = FusedRMSProp([param])
        if first is not None:
            param.grad = first
            optimizer.step()
        before = local(param).detach().clone()
        param.grad = grad
        with pytest.raises(RuntimeError, match=message):
            optimizer.step()
        assert torch.equal(local(param), before)

    replicated = distribute_tensor(torch.ones(8), mesh, [Replicate()])
    refused(nn.Parameter(torch.ones(8)), replicated, "no DTensor but its gradient is one")
    refused(nn.Parameter(torch.ones(8)), replicated, "no DTensor but its gradient is one", first=torch.ones(8))
    refused(parameter((8,), mesh, [Replicate()]), torch.ones(8), "a DTensor but its gradient is not")
    plain = nn.Parameter(torch.ones(8, 8))
    sharded = parameter((8, 8), mesh, [Shard(0)])
    states = []
    for param in (plain, sharded):
        optimizer = FusedRMSProp([param])
        param.grad = torch.ones_like(param)
        optimizer.step()
        states.append(optimizer.state_dict())
    for param, saved in zip((sharded, plain), states, strict=True):
        with pytest.raises(ValueError, match="set_optimizer_state_dict"):
            FusedRMSProp([param]).load_state_dict(saved)


CHECKS = (sequence_parallel, other_placements, under_way, missing_on_one_rank, other_bits_by_columns, wrong)
