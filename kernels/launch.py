"""The only place that launches: picks the driver by the bucket's device."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from . import caches, devices, lang, rules
from .cpu import norm as cpu_norm
from .cpu import step as cpu
from .quant import GROUP
from .storage import Storage

THREADS, CHUNK = 128, 1024  # of a program; elements that it updates
CODED_THREADS, CODED_CHUNK = 64, 16384  # where states are codes
COUNTED = 128  # counters that a program counts
FIRST_NORM = 2  # among the scalars of a step
OPTIONS = dict(enable_fp_fusion=False)  # contractions are written: a compiler's differ between lanes, blocks and versions


class GPUConfig(NamedTuple):
    """How a launch is cut into pieces on a GPU; no bit of what it computes depends on it."""

    chunk: int  # elements of a tensor that a program updates before it takes another chunk
    threads: int  # of a program
    vectors: int  # of 16 bytes of the compute type that a thread handles at a time
    programs: int  # a multiprocessor, which share all chunks; 0: one for each chunk
    registers: int  # most of a thread; 0: as many as the compiler likes

    def block(self, storage: Storage) -> int:
        """Elements that a program handles at a time."""
        return self.threads * self.vectors * (2 if storage.compute == "float64" else 4)


class CPUConfig(NamedTuple):
    """The same on a CPU."""

    chunk: int  # elements of a tensor that a thread updates before it takes another chunk
    min_work: int  # elements a thread must have before waking it pays


Config = GPUConfig | CPUConfig


def gpu_config(storage: Storage) -> GPUConfig:
    """What a launch of many elements takes on a GPU that nobody has tuned."""
    if storage.coded:  # takes longer to compute than to move
        return GPUConfig(CODED_CHUNK, CODED_THREADS, 1, 0, 0)
    return GPUConfig(CHUNK, THREADS, 1, 0, 0)


def default_config(device: torch.device, storage: Storage, n_elements: int = 1 << 62) -> Config:
    """What a launch takes that nobody has tuned; n_elements: in all of its tensors together."""
    if not devices.uses_triton(device):
        return CPUConfig(cpu.CHUNK, cpu.MIN_WORK)
    config = gpu_config(storage)
    enough = max(config.block(storage), n_elements // (4 * devices.multiprocessors(device)))  # for none to be idle
    while config.chunk > enough:
        config = config._replace(chunk=config.chunk // 2)
    return config


def _ranges(config: Config, storage: Storage) -> dict[str, tuple[bool, str]]:
    """Of each value whether a launch can run with it, and what it may be."""
    # a power of two, so that no chunk reaches over a multiple of 2**32 elements, where random bits have other keys, unless Storage.wraps
    least, most = (GROUP, 1 << 30) if isinstance(config, CPUConfig) else (max(GROUP, config.block(storage)), 1 << 22)
    chunk = least <= config.chunk <= most and not config.chunk & (config.chunk - 1), f"a power of two from {least} to {most}"
    if isinstance(config, CPUConfig):
        return dict(chunk=chunk, min_work=(1 <= config.min_work <= 1 << 60, f"from 1 to {1 << 60}"))
    registers = 65536 // max(1, config.threads)
    return dict(
        threads=(config.threads in (64, 128, 256, 512, 1024), "64, 128, 256, 512 or 1024"),
        vectors=(config.vectors in (1, 2, 4), "1, 2 or 4"),
        chunk=chunk,
        programs=(0 <= config.programs <= 64, "from 0 to 64"),
        registers=(config.registers == 0 or 32 <= config.registers <= registers, f"0, or from 32 to {registers}"),
    )


def out_of_range(config: Config, storage: Storage) -> str | None:
    """The first value that a launch cannot run with, and what it may be; None if there is none: what a file says may be anything."""
    for name, number in config._asdict().items():
        if type(number) is not int:
            return f"{name} {number!r}: it takes a whole number"
    for name, (fits, allowed) in _ranges(config, storage).items():
        if not fits:
            return f"{name} {getattr(config, name)}: it takes {allowed}"
    return None


def is_valid(config: Config, storage: Storage) -> bool:
    """Whether a launch can run with it."""
    return out_of_range(config, storage) is None


class Tables(NamedTuple):
    """What a launch reads, in the order of the kernels' arguments; NumPy arrays on the host, tensors on a GPU."""

    addresses: Any  # int64 [n_rows, n_tensors]: grad, param, state 0, ..., each in one row or two
    numels: Any  # int64 [n_tensors], elements
    groups: Any  # int32 [n_tensors]: row of hyper
    chunk_tensor: Any  # int32 [n_chunks]
    chunk_start: Any  # int64 [n_chunks], elements
    hyper: Any  # compute type [n_groups, n_hyper]: rules.COMMON, then the rule's args
    norm_index: Any  # int32 [n_tensors]: where among the scalars the norm is that limits this gradient
    noise: Any  # int32 [n_tensors, 3]: two words that no other parameter or seed has, the steps with this one
    origin: Any  # int64 [n_tensors], elements: where in a parameter the tensor begins, that is a part of it


class NormTables(NamedTuple):
    """What the launch of a norm reads; chunks have cpu_norm.CHUNK elements."""

    addresses: Any  # the first six as in Tables
    numels: Any
    groups: Any
    chunk_tensor: Any
    chunk_start: Any
    hyper: Any
    first_sum: Any  # int64 [n_tensors]: where the sums of each tensor begin
    scalars: Any  # float64: as for prepare()


def norm_chunk_size() -> int:
    """Elements whose squares make one sum, on every device."""
    return cpu_norm.CHUNK


def constants(rule: str, storage: Storage, aligned: bool, n_hyper: int, config: GPUConfig, warp_size: int) -> dict:
    """What the Triton kernel is compiled for; rule and storage as in prepare().

    Args:
        n_hyper: numbers in a row of hyper.
        warp_size: threads, 32 on NVIDIA's GPUs and 64 on AMD's, whose compiler takes no limit of registers.
    """
    limit = dict(maxnreg=config.registers) if config.registers and warp_size == 32 else {}
    return dict(
        RULE=getattr(rules, rule),
        N_COMMON=len(rules.COMMON),
        N_ARGS=n_hyper - len(rules.COMMON),
        DTYPES=tuple(getattr(lang.tl, dtype) for rows in storage.dtypes for dtype in rows),
        ROWS=tuple(itertools.accumulate(map(len, storage.dtypes), initial=0)),
        STOCHASTIC=storage.stochastic,
        VARIANCE=storage.variance,
        WRAPS=storage.wraps,
        ALIGN=16 if aligned else 1,
        BLOCK=config.block(storage),
        EACH=config.block(storage) // config.threads,
        PERSISTENT=config.programs > 0,
        num_warps=config.threads // warp_size,
        **OPTIONS,
        **limit,
    )


def squares_constants(dtype: str, aligned: bool, n_hyper: int) -> dict:
    """What norm.squares_kernel is compiled for; dtype is that of the gradients."""
    return dict(
        N_COMMON=len(rules.COMMON),
        N_HYPER=n_hyper,
        DTYPE=getattr(lang.tl, dtype),
        ALIGN=16 if aligned else 1,
        CHUNK=cpu_norm.CHUNK,
        LEVELS=cpu_norm.LEVELS,
        num_warps=4,
        **OPTIONS,
    )


def count_constants() -> dict:
    """What count.count_kernel is compiled for."""
    return dict(BLOCK=COUNTED, num_warps=COUNTED // 32, **OPTIONS)  # a thread for each: nothing has to change hands


def norms_constants() -> dict:
    """What norm.norms_kernel is compiled for."""
    return dict(LEVELS=cpu_norm.LEVELS, AT_ONCE=8, num_warps=16, **OPTIONS)


class _Kernel:
    """A launch of a Triton kernel. What it takes is put together once, all but the tensors of a call.

    Args:
        kernel: of step.py or norm.py.
        n_programs: as many share out the work.
        constants: what it is compiled for.
        args: its first arguments, tensors and integers; the tensors may be written, not replaced.
    """

    def __init__(self, kernel, n_programs: int, constants: dict, *args):
        self._kernel, self._grid, self._constants, self._args = kernel, (n_programs, 1, 1), constants, args
        self._device = args[0].device
        self._compiled = None

    def __call__(self, *tensors) -> None:
        """Launch; tensors: its last arguments."""
        with devices.current(self._device):
            if self._compiled is None:
                if not lang.interpreted():
                    caches.loaded(self._kernel, lambda: self._load(tensors))
                self._compiled = self._kernel[self._grid](*self._args, *tensors, **self._constants)  # the interpreter returns None
                if self._compiled is not None:
                    names = self._kernel.arg_names[len(self._args) + len(tensors) :]
                    self._run = self._compiled[self._grid]
                    # addresses: of tensors Triton asks the driver whose memory they are
                    self._before = tuple(arg.data_ptr() if isinstance(arg, torch.Tensor) else arg for arg in self._args)
                    self._after = tuple(self._constants[name] for name in names)
            else:
                self._run(*self._before, *[tensor.data_ptr() for tensor in tensors], *self._after)

    def _load(self, tensors: tuple) -> None:
        """Compile what the launch will find in memory."""
        compiled = self._kernel.warmup(*self._args, *tensors, grid=self._grid, **self._constants)
        if compiled is not None:  # a hook of the user's may say that there is nothing to compile
            compiled[self._grid]

    @property
    def spills(self) -> int:
        """Registers that the compiler keeps in memory; 0 before the first call."""
        return self._compiled.n_spills if self._compiled else 0


def prepare(rule: str, storage: Storage, aligned: bool, tables: Tables, config: Config) -> Callable[[Any], None]:
    """What updates every tensor of a bucket: one launch, on the tables' device and its current stream.

    Args:
        rule: a function of rules.py.
        storage: what the rows of addresses point at.
        aligned: every address is a multiple of 16 bytes.
        tables: NumPy arrays for the Numba driver, tensors for the Triton one; their contents may change between launches.
        config: with the chunk of the tables.

    Returns:
        A function of the scalars: float64, as the tables: not 0 if nothing may change, what gradients are multiplied by, and from
        FIRST_NORM on L2 norms of gradients, 0 where none is limited.
    """
    n_chunks = len(tables.chunk_tensor)
    if not n_chunks:
        return lambda scalars: None
    if isinstance(config, CPUConfig):
        return cpu.prepare(rule, storage, tables, config.chunk, config.min_work)
    from .gpu.step import step_kernel  # needs Triton, which exists on Linux only

    chosen = constants(rule, storage, aligned, tables.hyper.shape[1], config, devices.warp_size())
    n_programs = min(n_chunks, config.programs * devices.multiprocessors(tables.addresses.device) or n_chunks)
    return _Kernel(step_kernel, n_programs, chosen, *tables, tables.numels.numel(), n_chunks, config.chunk)


def prepare_squares(dtype: str, aligned: bool, tables: NormTables) -> Callable[[Any], None]:
    """What writes the sum of squares of each chunk of a bucket's gradients: one launch.

    Args:
        dtype: stored dtype of the gradients.
        aligned: every address is a multiple of 16 bytes.
        tables: NumPy arrays for the Numba driver, tensors for the Triton one.

    Returns:
        A function of the sums: float64, as the tables; written where the tables' first_sum says.
    """
    n_chunks = len(tables.chunk_tensor)
    if not n_chunks:
        return lambda sums: None
    if isinstance(tables.addresses, np.ndarray):
        return cpu_norm.prepare_squares(dtype, tables)
    from .gpu.norm import squares_kernel

    return _Kernel(squares_kernel, n_chunks, squares_constants(dtype, aligned, tables.hyper.shape[1]), *tables, tables.numels.numel())


def prepare_norms(spans, norms) -> Callable[[Any], None]:
    """What sets norms[k] to the square root of the sum of sums[spans[k, 0] : spans[k, 1]]: one launch; int64, float64.

    Returns:
        A function of the sums.
    """
    if isinstance(spans, np.ndarray):
        return lambda sums: cpu_norm.norms(sums, spans, norms)
    from .gpu.norm import norms_kernel

    return _Kernel(norms_kernel, norms.numel(), norms_constants(), spans, norms)


def prepare_count(counters, double, counted, noise) -> Callable[[Any], None]:
    """What counts a step of each parameter of a bucket on a GPU: one launch; the tables are those of count.count_kernel.

    Returns:
        A function of the scalars, as that of prepare().
    """
    from .gpu.count import count_kernel

    n = counters.numel()
    return _Kernel(count_kernel, -(-n // COUNTED), count_constants(), counters, double, counted, noise, n)
