"""Precision modes and rules, and optimizers of them, for the tests of how values are stored."""

import pytest
import torch

from cases import BF16, MODES, SHAPES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.kernels.quant import GROUP
from tools import parameters, random_grads, step_and_check

modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
FEW = [(), (0,), (GROUP + 1,), (1025,)]
TAILS = [*SHAPES, (GROUP - 1,), (GROUP,), (GROUP + 1,), (3, 43), (2 * GROUP + 1,)]
RULES = {
    "plain": (FusedRMSProp, {}),
    "momentum": (FusedRMSProp, dict(momentum=0.9, weight_decay=0.1)),
    "centered": (FusedRMSProp, dict(centered=True, eps=1e-4)),
    "Graves": (FusedRMSPropGraves, dict(clip_grad_norm=1.0)),
    "SMORMS3": (FusedSMORMS3, dict(lr=0.1)),
}
STORED = {"float32": torch.float32, "split": torch.int16, "split24": torch.int8}  # masters, by their kind
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def made(rule, mode, shapes=TAILS, dtype=BF16, device="cpu", steps=0, **options):
    cls, own = rule
    params = parameters(shapes, device, dtype)
    optimizer = cls(params, **{"seed": 0, **own, **mode, **options})
    for _ in range(steps):
        random_grads(params)
        optimizer.step()
    return optimizer, params


def same_state(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) and value.dtype == b[key].dtype for key, value in a.items())


def rounded(kind: str, values: torch.Tensor) -> torch.Tensor:
    """float32 values as a kind of master holds them: those of 24 bits to nearest, ties away from 0."""
    return (values.view(torch.int32) + 0x80 & ~0xFF).view(torch.float32) if kind == "split24" else values


def check_steps(rule, mode, dtype, device="cpu", shapes=TAILS):
    optimizer, params = made(rule, mode, shapes, dtype, device)
    for _ in range(3):
        random_grads(params)
        step_and_check(optimizer)
