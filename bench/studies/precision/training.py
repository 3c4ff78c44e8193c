"""A run: one problem in one mode from one seed."""

import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.common.machine import commit
from bench.studies.precision.modes import MODES
from bench.studies.precision.problems import Batch, Problem
from fusedrms import FusedRMSProp
from train_gpt import rate

EVALUATIONS = 12
Run = dict[str, Any]


def evaluated(steps: int) -> list[int]:
    """After which steps the held-out loss is taken."""
    return sorted({math.ceil(steps * n / EVALUATIONS) for n in range(1, EVALUATIONS + 1)})


def _loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """With activations in float32, which a CPU computes faster; gradients have the dtype of the parameters."""
    wide = {name: param.float() for name, param in model.named_parameters()}
    return functional_call(model, wide, (inputs, targets))


@torch.no_grad()
def _held_out(model: nn.Module, parts: list[Batch]) -> float:
    return sum(len(y) * _loss(model, x, y).item() for x, y in parts) / sum(len(y) for _, y in parts)


def _bytes(optimizer: FusedRMSProp) -> float:
    """A parameter, without its gradient."""
    memory = optimizer.memory()
    return (memory.total - memory.gradients) / memory.numel


def trained(problem: Problem, mode: str, seed: int, steps: int) -> Iterator[tuple[int, Run]]:
    """Yields, at each evaluation, the step and the run so far."""
    torch.manual_seed(seed)
    # all modes begin with weights that bfloat16 holds
    model = problem.task.model().bfloat16().to(MODES[mode].dtype)
    rule = dict(momentum=problem.momentum, centered=problem.centered)
    optimizer = FusedRMSProp(model.parameters(), lr=problem.lr, seed=seed, **rule, **MODES[mode].options)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    parts, due = problem.task.held_out(), set(evaluated(steps))
    run: Run = dict(mode=mode, seed=seed, commit=commit(), bytes=0.0, seconds=0.0, losses=[])
    seconds: list[float] = []
    for step in range(1, steps + 1):
        begin = time.perf_counter()
        optimizer.zero_grad()
        _loss(model, *problem.task.batch(seed, step)).backward()
        optimizer.step()
        schedule.step()
        seconds.append(time.perf_counter() - begin)
        if step in due:
            loss = _held_out(model, parts)
            run["losses"].append(round(loss, 5) if math.isfinite(loss) else None)
            run.update(bytes=round(_bytes(optimizer), 3), seconds=round(statistics.median(seconds), 5))
            yield step, run
