"""Whole parameters on every rank: DistributedDataParallel, ZeroRedundancyOptimizer."""

from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from fusedrms import FusedRMSProp, FusedSMORMS3

from .models import STEPS, check

SHAPES = [(3, 5), (130,), (77, 3), ()]
OPTIONS = {
    "plain": (FusedRMSProp, {}),
    "everything": (FusedRMSProp, dict(centered=True, momentum=0.9, weight_decay=0.1)),
    "clip norm": (FusedRMSProp, dict(clip_grad_norm=3.0)),
    "SMORMS3": (FusedSMORMS3, {}),
}
LEAN = {
    "stochastic": dict(stochastic_rounding=True, seed=3),
    "split, 8-bit": dict(master_weights="split", state_dtype="8bit", momentum=0.9, seed=0),
}


class Linear(nn.Module):
    """Whose gradients are its inputs: of whole numbers, sums over ranks are exact in any order."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(5)
        self.weights = nn.ParameterList([torch.randn(shape, dtype=dtype) for shape in SHAPES])

    def forward(self, inputs):
        return sum((weight * x).sum() for weight, x in zip(self.weights, inputs, strict=True))


def inputs(step: int, rank: int, world: int, dtype=torch.float32) -> list[torch.Tensor]:
    """Multiples of the number of ranks, so that a mean over them is exact too."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    return [world * torch.randint(-3, 4, shape, generator=generator).to(dtype) for shape in SHAPES]


def alone(make: Callable, world: int, dtype=torch.float32) -> list[torch.Tensor]:
    """Parameters after the steps of one process with the global batch."""
    model = Linear(dtype)
    optimizer = make(model.parameters())
    for step in range(STEPS):
        optimizer.zero_grad()
        parts = [inputs(step, rank, world, dtype) for rank in range(world)]
        model([torch.stack(part).mean(0) for part in zip(*parts, strict=True)]).backward()
        optimizer.step()
    return [param.detach() for param in model.parameters()]


def train(model, optimizer, rank: int, world: int, dtype=torch.float32) -> None:
    for step in range(STEPS):
        optimizer.zero_grad()
        model(inputs(step, rank, world, dtype)).backward()
        optimizer.step()


def ddp(rank: int, world: int) -> None:
    """With gradients that are views into buckets, at addresses of any alignment."""
    made = [(cls, options, torch.float32) for cls, options in OPTIONS.values()]
    made += [(FusedRMSProp, options, torch.bfloat16) for options in LEAN.values()]
    for cls, options, dtype in made:
        model = DistributedDataParallel(Linear(dtype), gradient_as_bucket_view=True)
        train(model, cls(model.parameters(), **options), rank, world, dtype)
        check(model.parameters(), alone(lambda params, cls=cls, options=options: cls(params, **options), world, dtype))


def zero_redundancy(rank: int, world: int) -> None:
    """Each rank holds the states of some parameters; the norm of all gradients cannot be had there."""
    for name in ("plain", "everything", "SMORMS3"):
        cls, options = OPTIONS[name]
        model = DistributedDataParallel(Linear())
        optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=cls, **options)
        train(model, optimizer, rank, world)
        check(model.parameters(), alone(lambda params, cls=cls, options=options: cls(params, **options), world))
        optimizer.consolidate_state_dict(to=0)
        if rank == 0:
            whole = cls(Linear().parameters(), **options)
            whole.load_state_dict(optimizer.state_dict())
            assert all(float(state["step"]) == STEPS for state in whole.state.values())


def nan_on_one_rank(rank: int, world: int) -> None:
    """Reduced gradients carry it everywhere: all ranks leave the step out, and stay equal."""
    model = DistributedDataParallel(Linear())
    optimizer = FusedRMSProp(model.parameters(), skip_nonfinite=True)
    train(model, optimizer, rank, world)
    before = [param.detach().clone() for param in model.parameters()]
    optimizer.zero_grad()
    spoiled = inputs(9, rank, world)
    if rank == world - 1:
        spoiled[1][7] = float("nan")
    model(spoiled).backward()
    optimizer.step()
    assert optimizer.skipped_steps == 1
    check(model.parameters(), before)


CHECKS = (ddp, zero_redundancy, nan_on_one_rank)
