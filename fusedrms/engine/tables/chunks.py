"""Tables where their driver reads them, and tensors in chunks."""

import numpy as np
import torch
from torch import Tensor

from ...kernels import devices


def on_device(table: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """As the driver of that device reads it."""
    return torch.from_numpy(table).to(device) if devices.uses_triton(device) else table


def chunks(numels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The tensor (int32) and first element (int64) of each chunk of at most `size` elements."""
    counts = -(-numels // size)
    tensor = np.repeat(np.arange(len(numels), dtype=np.int32), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return tensor, (np.arange(len(tensor), dtype=np.int64) - first) * size
