"""Launches of the norm: gradients and tables, run as PTX and by the CPU driver."""

import numpy as np

from fusedrms.engine.tables.chunks import chunks
from fusedrms.kernels import launch
from fusedrms.kernels.gpu.norm import norms_kernel, squares_kernel
from fusedrms.kernels.rules import Common
from fusedrms.kernels.tables import UNSCALE, NormTables
from fusedrms.tools.machine_code import build, target_of

from .intervals import WIDE
from .launches import some
from .machine import run
from .memory import Memory
from .stored import narrow, wide

NUMELS = (1, 63, 64, 65, 0, 70, 1000, 1541, 16 * 1024 + 3)

column = Common._fields.index  # of hyperparameters


class Squares:
    """What the two launches of a norm read: gradients and tables; the first two sums belong to others.

    Args:
        odd: some gradients are subnormal, infinite, or have infinite squares.
    """

    def __init__(self, dtype: str, odd: bool = False):
        rng = np.random.default_rng(0)
        self.dtype, self.compute = dtype, "float64" if dtype == "float64" else "float32"
        self.numels = np.array(NUMELS, np.int64)
        self.grads = [narrow(some(rng, n, -(2**24), -34, -20), dtype) for n in NUMELS]
        if odd:
            self.grads[3][:] = narrow(np.resize([1e-30, 0, 1e-42, 3e-20], 65), dtype)
            self.grads[6][:3] = narrow(np.array([np.inf, 1e30, 3e38]), dtype)
        self.hyper = np.ones((2, len(Common._fields) + 1), self.compute)
        self.hyper[:, column("clip_normed")] = np.inf, 0.5
        self.hyper[1, column("grad_scale")] = -0.75
        self.groups = (np.arange(len(NUMELS)) % 2).astype(np.int32)
        self.scalars = np.array([0.0, 1 / 3, 0.0])
        counts = -(-self.numels // launch.norm_chunk_size())
        self.first = np.cumsum(counts) - counts + 2
        self.n_sums = int(counts.sum()) + 2
        self.spans = np.array(
            [[2, self.n_sums], [self.first[8], self.first[8] + counts[8]], [2, 2], *np.stack([self.first, self.first + counts], 1)]
        )

    def tables(self, addresses):
        chunk_tensor, chunk_start = chunks(self.numels, launch.norm_chunk_size())
        return NormTables(
            addresses=addresses,
            numels=self.numels,
            groups=self.groups,
            chunk_tensor=chunk_tensor,
            chunk_start=chunk_start,
            hyper=self.hyper,
            first_sum=self.first,
            scalars=self.scalars,
        )

    def exact(self) -> np.ndarray:
        """The sum of the squares of each chunk, added up in long double."""
        sums = []
        for grad, group in zip(self.grads, self.groups, strict=True):
            compute = np.dtype(self.compute).type
            scale, limit = self.hyper[group, [column("grad_scale"), column("clip_normed")]]
            values = np.clip(wide(grad, self.dtype).astype(compute) * (scale * compute(self.scalars[UNSCALE])), -limit, limit)
            size = launch.norm_chunk_size()
            sums += [np.sum(values[k : k + size].astype(WIDE) ** 2) for k in range(0, len(values), size)]
        return np.array(sums)

    def on_cpu(self):
        sums, norms = np.zeros(self.n_sums), np.zeros(len(self.spans))
        addresses = np.array([[grad.ctypes.data for grad in self.grads]], np.int64)
        launch.prepare_squares(self.dtype, False, self.tables(addresses))(sums)
        launch.prepare_norms(self.spans, norms)(sums)
        return sums[2:], norms

    def exact_norms(self, sums: np.ndarray) -> np.ndarray:
        return np.array([np.sqrt(np.sum(sums[first - 2 : last - 2].astype(WIDE))) for first, last in self.spans], float)

    def on_gpu(self, warps: int = 4, aligned: bool = True, target: str = "sm_90"):
        constants = dict(launch.squares_constants(self.dtype, aligned, self.hyper.shape[1]), num_warps=warps)
        binary = build(squares_kernel, constants, target_of(target), self.compute)
        memory, size = Memory(), self.grads[0].itemsize
        addresses = [memory.add(f"grad {t}", grad, 16 * t if aligned else size * (t + 1)) for t, grad in enumerate(self.grads)]
        *tables, scalars = self.tables(np.array([addresses], np.int64))
        args = [memory.add(f"table {k}", table) for k, table in enumerate(tables)]
        args += [memory.add("scalars", scalars), len(self.numels), memory.add("sums", np.zeros(self.n_sums), written=False)]
        run(binary.asm["ptx"], self.n_sums - 2, args, memory, binary.metadata.shared)
        stored = memory.stored("sums").reshape(-1, 8)
        assert not stored[:2].any(), "a sum of others was written"
        assert stored[2:].all(), "a sum was not written"
        sums = memory.get("sums")
        sums[:2] = np.nan  # belongs to others
        binary = build(norms_kernel, dict(launch.norms_constants(), num_warps=warps), target_of(target))
        memory = Memory()
        args = [memory.add("spans", self.spans), memory.add("norms", np.zeros(len(self.spans)), written=False), memory.add("sums", sums)]
        run(binary.asm["ptx"], len(self.spans), args, memory, binary.metadata.shared)
        assert memory.stored("norms").all(), "a norm was not written"
        return sums[2:], memory.get("norms")
