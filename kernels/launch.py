"""The only place that launches: picks the driver by the bucket's device."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from . import devices, lang, rules
from .cpu import agreement as cpu_agreement
from .cpu import norm as cpu_norm
from .cpu import step as cpu_step
from .cpu import threads as cpu_threads
from .cpu import values as cpu_values
from .kernel import OPTIONS, Kernel
from .quant import GROUP
from .rule import RULES
from .storage import ITEMSIZE, WORDS, Storage
from .tables import AgreementTables, NormTables, Tables

THREADS, CHUNK = 128, 1024  # of a program; elements that it updates
QUANTIZED_THREADS, QUANTIZED_CHUNK = 64, 16384  # where states are 8-bit codes
COUNTED = 128  # counters that a program counts


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
    if storage.quantized:  # takes longer to compute than to move
        # Eight elements a thread share its addresses, and find their scale by one step less. Wider rows would go through shared memory, and
        # more states would take more than 64 registers, with which a scheduler holds eight warps. Eight rows and more, and codes in words,
        # come down to 64 without spills, statistics and whole offsets with few; where compilers take fewer by themselves, a limit makes
        # them take 64, and spill.
        n, n_rows = len(storage.quantized), sum(map(len, storage.dtypes))
        vectors = 2 if n == 1 and all(ITEMSIZE[row] <= 2 for row in storage.streams) else 1
        more = storage.measured or storage.straddles or not WORDS.keys().isdisjoint(storage.streams)
        registers = 64 if n_rows > 7 or (more and n * vectors > 1) else 0
        return GPUConfig(QUANTIZED_CHUNK, QUANTIZED_THREADS, vectors, 0, registers)
    return GPUConfig(CHUNK, THREADS, 1, 0, 0)


def default_config(device: torch.device, storage: Storage, n_elements: int = 1 << 62) -> Config:
    """What a launch takes that nobody has tuned; n_elements: in all of its tensors together."""
    if not devices.uses_triton(device):
        return CPUConfig(cpu_step.CHUNK, cpu_threads.MIN_WORK)
    config = gpu_config(storage)
    enough = max(config.block(storage), n_elements // (4 * devices.multiprocessors(device)))  # for none to be idle
    while config.chunk > enough:
        config = config._replace(chunk=config.chunk // 2)
    return config


def _ranges(config: Config, storage: Storage) -> dict[str, tuple[bool, str]]:
    """Of each value whether a launch can run with it, and what it may be."""
    # a power of two: no chunk reaches over a multiple of 2**32 elements, where random bits have other keys, unless Storage.straddles
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


def norm_chunk_size() -> int:
    """Elements whose squares make one sum, on every device."""
    return cpu_norm.CHUNK


def constants(rule: str, storage: Storage, aligned: bool, config: GPUConfig, warp_size: int) -> dict:
    """What the Triton kernel is compiled for; rule and storage as in prepare().

    Args:
        warp_size: threads, 32 on NVIDIA's GPUs and 64 on AMD's, whose compiler takes no limit of registers.
    """
    limit = dict(maxnreg=config.registers) if config.registers and warp_size == 32 else {}
    return dict(
        RULE=RULES[rule].function,
        COMMON=rules.Common._fields,
        ARGS=RULES[rule].numbers,
        NEUTRAL=rules.neutral(rule) if storage.quantized else None,  # elsewhere memory takes longer than all arithmetic
        FORMATS=storage.formats,
        ROWS=tuple(itertools.accumulate(map(len, storage.dtypes[:-1]), initial=0)),
        DTYPES=tuple(getattr(lang.tl, WORDS.get(dtype, dtype)) for rows in storage.dtypes for dtype in rows),
        FLAGS=storage.flags,
        STRADDLES=storage.straddles,
        ALIGN=16 if aligned else 1,
        BLOCK=config.block(storage),
        PER_THREAD=config.block(storage) // config.threads,
        LEVELS=config.block(storage).bit_length() - 1,
        PERSISTENT=config.programs > 0,
        num_warps=config.threads // warp_size,
        **OPTIONS,
        **limit,
    )


def agreement_constants(rule: str, storage: Storage, aligned: bool, config: GPUConfig, warp_size: int) -> dict:
    """What agreement.agreement_kernel is compiled for; arguments as of constants()."""
    names = "RULE", "COMMON", "ARGS", "FORMATS", "ROWS", "DTYPES", "FLAGS", "ALIGN", "BLOCK", "num_warps", *OPTIONS
    return {name: value for name, value in constants(rule, storage, aligned, config, warp_size).items() if name in names}


def squares_constants(dtype: str, aligned: bool, n_hyper: int) -> dict:
    """What norm.squares_kernel is compiled for; dtype is that of the gradients."""
    return dict(
        COMMON=rules.Common._fields,
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


def _pointers(tables: Tables | AgreementTables | NormTables) -> dict:
    """Tables by the names that they have as arguments of kernels."""
    return {f"{name}_ptr": table for name, table in tables._asdict().items()}


def prepare(rule: str, storage: Storage, aligned: bool, tables: Tables, config: Config) -> Callable[[Any], None]:
    """What updates every tensor of a bucket: one launch, on the tables' device and its current stream.

    Args:
        rule: the name of a rule.
        storage: what the rows of addresses point at.
        aligned: every address is a multiple of 16 bytes.
        tables: NumPy arrays for the Numba driver, tensors for the Triton one; their contents may change between launches.
        config: with the chunk of the tables.

    Returns:
        A function of the scalars: float64, as the tables, with the numbers that tables.py names.
    """
    n_chunks = len(tables.chunk_tensor)
    if not n_chunks:
        return lambda scalars: None
    if isinstance(config, CPUConfig):
        return cpu_step.prepare(rule, storage, tables, config.chunk, config.min_work)
    from .gpu.step import step_kernel  # needs Triton, which exists on Linux only

    n_programs = min(n_chunks, config.programs * devices.multiprocessors(tables.addresses.device) or n_chunks)
    args = _pointers(tables) | dict(n_tensors=tables.numels.numel(), n_chunks=n_chunks, chunk_size=config.chunk)
    return Kernel(step_kernel, n_programs, constants(rule, storage, aligned, config, devices.warp_size()), args, "scalars_ptr")


def prepare_agreement(rule: str, storage: Storage, aligned: bool, tables: AgreementTables, config: Config) -> Callable[[Any], None]:
    """What counts, for each chunk of a bucket, the elements whose update agrees with their gradient: one launch; arguments as of prepare().

    Returns:
        A function of the counts: float64 [n_chunks], as the tables.
    """
    n_chunks = len(tables.chunk_tensor)
    if not n_chunks:
        return lambda agreed: None
    if isinstance(config, CPUConfig):
        return cpu_agreement.prepare(rule, storage, tables, config.chunk, config.min_work)
    from .gpu.agreement import agreement_kernel

    args = _pointers(tables) | dict(n_tensors=tables.numels.numel(), chunk_size=config.chunk)
    made = agreement_constants(rule, storage, aligned, config, devices.warp_size())
    return Kernel(agreement_kernel, n_chunks, made, args, "agreed_ptr")


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

    args = _pointers(tables) | dict(n_tensors=tables.numels.numel())
    return Kernel(squares_kernel, n_chunks, squares_constants(dtype, aligned, tables.hyper.shape[1]), args, "sums_ptr")


def prepare_norms(spans, norms) -> Callable[[Any], None]:
    """What sets norms[k] to the square root of the sum of sums[spans[k, 0] : spans[k, 1]]: one launch; int64, float64.

    Returns:
        A function of the sums.
    """
    if isinstance(spans, np.ndarray):
        return lambda sums: cpu_norm.norms(sums, spans, norms)
    from .gpu.norm import norms_kernel

    return Kernel(norms_kernel, norms.numel(), norms_constants(), dict(spans_ptr=spans, norms_ptr=norms), "sums_ptr")


def prepare_count(counters, double, counted, random_key) -> Callable[[Any], None]:
    """What counts a step of each parameter of a bucket on a GPU: one launch; the tables are those of count.count_kernel.

    Returns:
        A function of the scalars, as that of prepare().
    """
    from .gpu.count import count_kernel

    n = counters.numel()
    args = dict(counters_ptr=counters, double_ptr=double, counted_ptr=counted, random_key_ptr=random_key, n_tensors=n)
    return Kernel(count_kernel, -(-n // COUNTED), count_constants(), args, "scalars_ptr")


def value_drivers(device: torch.device) -> dict[str, Callable[[str, np.ndarray, np.ndarray], np.ndarray]]:
    """What computes a rule on values alone, by its driver's name: Numba, and Triton, by its interpreter where there is no GPU.

    Triton is left out where it does not exist; and for a CPU where there is a GPU, for which others may compile while the interpreter has
    Triton's language changed, or where it would not put that back. Numba is left out where it has not: it compiles nothing then.

    Returns:
        Functions of a rule's name, grad, param and states [2 + n_states, n], and lr and the rule's numbers, all of the compute type.
        Results are the update and the new states.
    """

    def numba(rule: str, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        results = np.empty((len(values) - 1, values.shape[1]), values.dtype)
        cpu_values.values_of(rule, values, numbers, results)
        return results

    def triton(rule: str, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        given, rest = (torch.from_numpy(each).to(device if devices.is_gpu(device) else "cpu") for each in (values, numbers))
        results = torch.empty_like(given[1:])
        gpu_values.values_of(rule, given, rest, results)
        return results.cpu().numpy()

    if lang.triton is None:
        return dict(numba=numba)
    from .gpu import values as gpu_values

    puts_back = gpu_values.puts_back()
    has_triton = devices.is_gpu(device) or lang.interpreted() or (puts_back and not devices.gpus())
    has_numba = puts_back or not lang.interpreted()
    return {**({"numba": numba} if has_numba else {}), **({"triton": triton} if has_triton else {})}
