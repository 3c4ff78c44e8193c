"""A model that is trained, with its optimizer and learning-rate schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.stopwatch import Stopwatch


@dataclass
class Learner:
    """A checkpoint saves and loads it; what state_dict returns is the same for any number of processes."""

    name: str  # of its optimizer
    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler

    def __post_init__(self) -> None:
        device = next(self.model.parameters()).device
        self.stopwatch = Stopwatch(device)  # of optimizer.step()
        self.turn = Stopwatch(device)  # of all that a step does

    def state_dict(self) -> dict:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        groups: Any = optimizer["param_groups"]
        for group in groups:
            group.pop("param_names", None)  # which checkpoints of earlier versions lack; the model knows them
        return {"model": model, "optimizer": optimizer, "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
