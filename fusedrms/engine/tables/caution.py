"""What the updates of each parameter are multiplied by where caution leaves out those against their gradient's sign."""

import torch
from torch import Tensor, distributed

from ...kernels.devices import current_stream, is_gpu, keep
from ..sharded import local, summed_over
from .buckets import Bucket
from .norms import Scalars, as_tensor

LEAST = 1e-3  # share of agreeing elements that counts, as in timm


class Caution:
    """Counts, before a step, how many elements of each parameter have an update with the sign of their gradient.

    Args:
        buckets: of a plan.
        active: the parameters that have a gradient.
        cautious: all parameters of the optimizer whose groups ask for it, with a gradient or without, so that processes agree in what they
            add up.
        scalars: of the plan.
    """

    def __init__(self, buckets: list[Bucket], active: list[Tensor], cautious: list[Tensor], scalars: Scalars):
        home = next(iter(scalars.on), local(cautious[0]).device)
        place, over = {param: k for k, param in enumerate(cautious)}, [summed_over(param) for param in cautious]
        numels = [max(1, param.numel() * (1 + param.is_complex())) for param in cautious]
        self._numels = torch.tensor(numels, dtype=torch.float64, device=home)
        self._groups = {
            groups: torch.tensor([k for k, each in enumerate(over) if each == groups], device=home)
            for groups in dict.fromkeys(filter(None, over))
        }
        self._made = []  # of each bucket what counts, and among the cautious parameters those of its chunks, and of its tensors
        for bucket in (bucket for bucket in buckets if bucket.layout.storage.cautious):
            made = bucket.agreement(scalars.on[bucket.layout.device])
            of_tensors = torch.tensor([place[active[n]] for n in bucket.active_index], device=home)
            of_chunks = of_tensors[as_tensor(made.chunk_tensor).long().to(home)]
            self._made.append((made, of_chunks, of_tensors))
        kept = [self._numels, *self._groups.values(), *(t for made, *places in self._made for t in (made.agreed, *places))]
        self._on_streams = [
            (current_stream(device), [tensor for tensor in kept if isinstance(tensor, Tensor) and tensor.device == device])
            for device in dict.fromkeys([home, *scalars.on])
            if is_gpu(device)
        ]

    def compute(self) -> None:
        """One launch for each bucket; the host waits for none, unless some parameters are on a CPU, some not."""
        for stream, tensors in self._on_streams:
            keep(tensors, stream)
        counts = torch.zeros_like(self._numels)
        for made, of_chunks, _ in self._made:
            made.launch(made.agreed)
            counts.index_add_(0, of_chunks, as_tensor(made.agreed).to(counts.device))  # whole numbers: the same sum in any order
        for groups, index in self._groups.items():
            whole = counts[index]
            for group in groups:
                distributed.all_reduce(whole, group=group)
            counts[index] = whole
        boosts = (counts / self._numels).clamp_(min=LEAST).reciprocal_()
        for made, _, of_tensors in self._made:
            as_tensor(made.boosts).copy_(boosts[of_tensors])
