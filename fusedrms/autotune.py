"""Which configuration a launch takes: what was tuned for the device, or a default."""

import numpy as np
import torch

from .kernels.launch import Config, default_config
from .kernels.storage import Storage


def choose(rule: str, device: torch.device, storage: Storage, aligned: bool, numels: np.ndarray) -> Config:
    return default_config(device.type, storage, aligned)
