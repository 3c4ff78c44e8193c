"""Optimizers that keep averages of their parameters, for their tests."""

import torch

from cases import F32
from fusedrms import FusedRMSProp
from tools import parameters, random_grads

SHAPES = [(33, 5), (700,), (), (0,)]


def trained(cls=FusedRMSProp, steps=3, dtype=F32, shapes=SHAPES, **options):
    torch.manual_seed(0)
    params = parameters(shapes, dtype=dtype)
    optimizer = cls(params, **{"ema_decay": 0.75, "seed": 0, **options})
    for _ in range(steps):
        random_grads(params)
        optimizer.step()
    return optimizer, params


def averages(optimizer) -> list[torch.Tensor]:
    return [average for _, _, average in optimizer.averages()]


def same(ours, theirs) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
