"""Launches of the step: tables and values that are as bad as they may be, run as PTX and by the CPU driver."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from fusedrms.engine.tables.chunks import chunks
from fusedrms.kernels import lang, launch
from fusedrms.kernels.cpu import step as cpu
from fusedrms.kernels.gpu.step import step_kernel
from fusedrms.kernels.quant import GROUP
from fusedrms.kernels.rules import columns
from fusedrms.kernels.tables import FIRST_NORM, UNIT, Tables
from fusedrms.tools.machine_code import build, target_of
from fusedrms.tools.variants import variant

from .machine import run
from .memory import Memory
from .options import hyperparameters
from .stored import TOP, in_words, narrow, nearest, random_bits

NUMELS = (1, 63, 64, 65, 0, 70, 1000, 1541, 4 * 1024 + 3)
CHUNK = 2048  # elements, of the default configuration: several to the largest tensor
STATES = dict(rmsprop=["square_avg"], rmsprop_momentum=["square_avg", "momentum_buffer"], rmsprop_centered=["square_avg", "grad_avg"])
STATES |= dict(rmsprop_centered_momentum=["square_avg", "grad_avg", "momentum_buffer"], smorms3=["square_avg", "grad_avg", "mem"])
LEAST = np.float32(2.0**-100)


class Row(NamedTuple):
    """A row of addresses."""

    value: int  # of grad, param, state 0, ...
    which: int  # of its two rows
    dtype: str
    name: str
    per: int  # elements that share one of its numbers


class Launch:
    """What a launch reads: its tables but for addresses and chunks, and the contents of all rows.

    Args:
        rule, mode: as of variants.variant().
        kind: "random": all sorts of numbers; "exact": no operation rounds, so that all drivers must give the same bits; "edge": zeros,
            infinities, NaN, numbers that overflow or vanish.
        eps: in place of that of the options.
        grad_dtype: in place of the mode's.
        straddles: as in Storage; every tensor begins less than its length before the 2**32nd element of its parameter.

    Attributes:
        sums: [n_units, n_columns], what the last run has measured of each unit, added up by neighbours; empty where it has not.
    """

    def __init__(
        self,
        rule: str,
        mode: str,
        kind: str,
        numels=NUMELS,
        eps: float | None = None,
        grad_dtype: str | None = None,
        straddles: bool = False,
    ):
        self.rule, self.mode, self.kind, self.rng = rule, mode, kind, np.random.default_rng(0)
        self.storage = variant(rule, mode).storage
        if grad_dtype:
            self.storage = self.storage._replace(dtypes=((grad_dtype,), *self.storage.dtypes[1:]))
        self.storage = self.storage._replace(straddles=straddles)
        self.compute = np.dtype(self.storage.compute)
        names = ["grad", "param", *STATES[rule], *(["param_ema"] if self.storage.average else [])]
        if self.storage.variance:
            names[2] = "variance"
        self.rows = [
            Row(v, w, dtype, names[v] + ("" if w == 0 else "_2"), 4 if "int4" in dtype else GROUP if w and rows[0] in TOP else 1)
            for v, rows in enumerate(self.storage.dtypes)
            for w, dtype in enumerate(rows)
        ]
        self.numels = np.array(numels, np.int64)
        n = len(numels)
        self.hyper = np.array([hyperparameters(rule, mode, kind, g, eps) for g in range(1 if kind == "exact" else 3)], self.compute)
        assert self.hyper.shape[1] == len(columns(rule))
        self.groups = (np.arange(n) % len(self.hyper)).astype(np.int32)
        self.norm_index = np.array([FIRST_NORM + k % 2 for k in range(n)], np.int32)
        words = self.rng.integers(0, 2**32, (n, 3), np.uint32)
        words[:, 2] = self.rng.integers(1, 2**24, n)
        self.random_key = words.view(np.int32)
        self.shard_offset = self.rng.integers(0, 2**20, n) * 1024 * 16 + (2**32 if kind == "random" else 0)
        self.shard_offset[0] = 8
        if straddles:
            self.shard_offset = 2**32 - self.rng.integers(1, np.maximum(self.numels, 2))
        self.boosts = np.resize([1.0, 2.0, 1000.0], n if self.storage.cautious else 0)
        self.scalars = np.array([0.0, 1.0 if kind == "exact" else 1 / 3, 1.7, 0.4])
        with np.errstate(all="ignore"):
            self.memory = [[self._contents(row, int(n)) for n in numels] for row in self.rows]
            self._finish()

    def _contents(self, row: Row, n: int) -> np.ndarray:
        rng, coded = self.rng, row.value in self.storage.quantized
        if coded and row.which:
            scale = some(rng, -(-n // GROUP), 2**23, -34, -20).astype(np.float32)
            if self.kind != "random":
                scale[rng.random(scale.shape) < 0.3] = LEAST
            if self.kind == "edge":
                pick = rng.random(scale.shape)
                scale[pick < 0.05] = rng.choice(np.array([3e38, 1e30, 2.0**-90, np.inf, np.nan], np.float32), (pick < 0.05).sum())
            return scale
        if coded:
            top = TOP[row.dtype]
            codes = rng.integers(0 if row.dtype[0] == "u" else -top, top + 1, n)
            codes[:: GROUP // 2] = top  # so that the scale is what it was
            codes[rng.random(n) < (1 if row.name == "grad_avg" and self.kind == "exact" else 0.1)] = 0
            return in_words(codes, row.dtype)
        if row.dtype in ("int16", "int8"):
            limits = np.iinfo(row.dtype)
            return rng.integers(limits.min, limits.max + 1, n).astype(row.dtype)
        values = some(rng, n, -(2**24), -34, -20)
        if self.kind == "exact" and (row.name == "grad" or (row.name == "grad_avg" and (self.storage.variance or self.rule == "smorms3"))):
            values[:] = 0
        if row.name == "mem":
            values = 1 + some(rng, n, 0, -28, -19) if self.kind != "exact" else rng.choice([0.0, 3.0, 15.0], n)
        if row.name in ("square_avg", "variance"):
            values = values**2
        elif row.name == "grad":
            values[rng.random(n) < 0.05] = 0
        if self.kind == "edge":
            odd = {
                "grad": [0, -0.0, 1e-30, 1e-38, 1e-42, -1e-20, 1e19, 1e30, -1e30, 3e38, np.inf, -np.inf, np.nan],
                "param": [0, -0.0, 1e-40, -1e-38, 3e38, np.inf, -np.inf, np.nan, 6.5e4],
                "square_avg": [0, 1e-45, 1e-40, 1e-38, 1e30, 3.4e38, np.inf, np.nan],
                "variance": [0, 1e-40, 1e-38, 1e30, 3.3e38, np.inf, np.nan],
                "mem": [0, 1, 1e-30, 1e10, 1e30, 3e38, np.inf, np.nan],
            }.get(row.name, [0, -0.0, 1e-40, 1e-30, 1e18, 3e38, np.inf, -np.inf, np.nan])
            mixed = rng.random(n) < 0.5
            if self.storage.quantized and row.name in ("grad", "grad_avg", "momentum_buffer"):
                # an infinity makes a whole group infinite: in some groups only
                calm = (np.arange(n) // GROUP) % 4 != 0
                odd = np.array(odd)
                fine = odd[np.abs(odd) < 1e20]
                values = np.where(mixed, np.where(calm, rng.choice(fine, n), rng.choice(odd, n)), values)
                values = np.where((np.arange(n) // GROUP) % 8 == 1, 0, values)  # and some of zeros
            else:
                values = np.where(mixed, rng.choice(odd, n), values)
        if row.name == "param_2":  # a master
            return values.astype(np.float32)
        return narrow(values, row.dtype)

    def _finish(self) -> None:
        """What belongs together: masters with their parameters, averages with each other."""
        rows = {row.name: r for r, row in enumerate(self.rows)}
        for t in range(len(self.numels)):
            if "param_2" in rows and self.rows[rows["param_2"]].dtype == "float32":
                dtype = self.rows[rows["param"]].dtype
                shown = nearest(self.memory[rows["param_2"]][t], dtype, away=True)
                changed = self.rng.random(len(shown)) < 0.1  # by something else
                self.memory[rows["param"]][t] = np.where(changed, self.memory[rows["param"]][t], narrow(shown, dtype))
            if self.kind == "random" and "grad_avg" in rows and "square_avg" in rows:
                mean, square = self.memory[rows["grad_avg"]][t], self.memory[rows["square_avg"]][t]
                square += mean.astype(square.dtype) ** 2

    def noise(self, tensor: int, value: int) -> np.ndarray:
        """The random bits of a tensor's elements for a value but the gradient."""
        *words, steps = self.random_key[tensor].tolist()
        return random_bits(words, steps, self.shard_offset[tensor] + np.arange(self.numels[tensor]), value - 1)

    # runs

    def tables(self, addresses: np.ndarray, chunk: int, block: int = UNIT) -> Tables:
        """block: elements that a row of unit_sums is of."""
        chunk_tensor, chunk_start = chunks(self.numels, chunk)
        n_units = -(-self.numels // UNIT) if self.storage.measured else self.numels[:0]
        return Tables(
            addresses=addresses,
            numels=self.numels,
            groups=self.groups,
            chunk_tensor=chunk_tensor,
            chunk_start=chunk_start,
            hyper=self.hyper,
            norm_index=self.norm_index,
            random_key=self.random_key,
            shard_offset=self.shard_offset,
            boosts=self.boosts,
            first_unit=np.cumsum(n_units) - n_units,
            unit_sums=np.zeros((n_units.sum() * (UNIT // block), self.storage.n_columns), self.compute),
        )

    def _add_up(self, unit_sums: np.ndarray, block: int) -> None:
        sums = unit_sums.reshape(-1, UNIT // block, unit_sums.shape[1])
        largest = sums[:, :, -1].max(1)
        while sums.shape[1] > 1:
            sums = sums[:, 0::2] + sums[:, 1::2]
        self.sums = np.column_stack([sums[:, 0, :-1], largest])

    def on_cpu(self, chunk: int = cpu.CHUNK) -> list[list[np.ndarray]]:
        """The rows after a step by the Numba driver."""
        return self._launched(launch.CPUConfig(chunk, 1 << 40), lambda table: table)

    def _launched(self, config: launch.Config, as_table: Callable[[np.ndarray], Any]) -> list[list[np.ndarray]]:
        """The rows after a launch of this process."""
        memory = [[array.copy() for array in row] for row in self.memory]
        addresses = np.array([[array.ctypes.data for array in row] for row in memory], np.int64)
        block = UNIT if isinstance(config, launch.CPUConfig) else config.block(self.storage)
        made = self.tables(addresses, config.chunk, block)
        with np.errstate(all="ignore"):
            launch.prepare(self.rule, self.storage, False, Tables(*map(as_table, made)), config)(as_table(self.scalars))
            self._add_up(made.unit_sums, block)
        return memory

    def default(self) -> launch.GPUConfig:
        config = launch.gpu_config(self.storage)
        assert isinstance(config, launch.GPUConfig)
        return config._replace(chunk=max(CHUNK, config.block(self.storage)))

    def binary(self, config: launch.GPUConfig, aligned: bool, target: str) -> Any:
        return compiled(self.rule, self.storage, config._replace(chunk=0), aligned, target)

    def place(self, memory: Memory, aligned: bool) -> np.ndarray:
        """Addresses of all rows, once they are in a memory."""
        rng = np.random.default_rng(1)
        addresses = np.zeros((len(self.rows), len(self.numels)), np.int64)
        for r, row in enumerate(self.rows):
            for t in range(len(self.numels)):
                array = self.memory[r][t]
                beyond = 16 * int(rng.integers(0, 64)) + (0 if aligned else array.itemsize * int(rng.integers(1, 16 // array.itemsize)))
                addresses[r, t] = memory.add(f"{row.name} of tensor {t}", array, beyond)
        return addresses

    def _check_sums(self, memory: Memory, tables: Tables, block: int) -> None:
        """A row of unit_sums is written for each block that has elements, unless the step is left out, and no other."""
        stored = memory.stored("unit_sums").reshape(*tables.unit_sums.shape, self.compute.itemsize)
        wanted = np.zeros(len(stored), bool)
        for first, n in zip(tables.first_unit, self.numels, strict=False):
            wanted[first * (UNIT // block) :][: -(-int(n) // block)] = self.scalars[0] == 0
        assert (stored == wanted[:, None, None]).all(), "a row of unit_sums was written that has no block, or not written"
        self._add_up(memory.get("unit_sums"), block)

    def on_gpu(
        self,
        config: launch.GPUConfig | None = None,
        aligned: bool = True,
        target: str = "sm_90",
        seed: int | None = None,
        ptx: str | None = None,
    ) -> list[list[np.ndarray]]:
        """The same by the PTX, or by another in its place; programs of a config are those of the launch; seed as of machine.run().

        Under TRITON_INTERPRET=1 by the interpreter.

        Raises:
            Fault: as machine.run().
            AssertionError: it has written what it must not, or left out what it must.
        """
        config = config or self.default()
        if lang.interpreted():
            return self._launched(config, torch.from_numpy)
        binary = self.binary(config, aligned, target)
        memory = Memory()
        tables = self.tables(self.place(memory, aligned), config.chunk, config.block(self.storage))
        args = [memory.add(name, table, 16, written=name != "unit_sums") for name, table in tables._asdict().items()]
        args += [len(self.numels), len(tables.chunk_tensor), config.chunk, memory.add("scalars", self.scalars)]
        run(ptx or binary.asm["ptx"], min(config.programs or 1 << 30, len(tables.chunk_tensor)), args, memory, binary.metadata.shared, seed)
        self._check_sums(memory, tables, config.block(self.storage))
        for name in {*tables._fields, "scalars"} - {"unit_sums"}:
            assert not memory.stored(name).any(), f"{name} was written"
        for row in self.rows:
            for t in range(len(self.numels)):
                stored, wanted = memory.stored(f"{row.name} of tensor {t}"), bool(row.value) and self.scalars[0] == 0
                assert (stored == wanted).all(), f"bytes of {row.name} of tensor {t} were {'not ' if wanted else ''}written"
        return [[memory.get(f"{row.name} of tensor {t}") for t in range(len(self.numels))] for row in self.rows]


def some(rng: np.random.Generator, n: int, least: int, low: int, high: int) -> np.ndarray:
    """Numbers of 24 bits times powers of two: the same on every machine, which logarithms would not be."""
    return np.ldexp(rng.integers(least, 2**24, n).astype(float), rng.integers(low, high, n))


@functools.cache
def compiled(rule: str, storage, config: launch.GPUConfig, aligned: bool, target: str) -> Any:
    return build(step_kernel, launch.constants(rule, storage, aligned, config, 32), target_of(target), storage.compute)
