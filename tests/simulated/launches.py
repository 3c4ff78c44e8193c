"""Launches of Triton's kernels: queued on a stream with nothing but addresses, and run by the CPU driver on the GPU's memory."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from fusedrms.engine.tables.chunks import chunks
from fusedrms.kernels.cpu import agreement as cpu_agreement
from fusedrms.kernels.cpu import norm as cpu_norm
from fusedrms.kernels.cpu import step as cpu
from fusedrms.kernels.cpu import threads as cpu_threads
from fusedrms.kernels.cpu import values as cpu_values
from fusedrms.kernels.quant import GROUP, PER_WORD
from fusedrms.kernels.storage import FLAGS, ITEMSIZE, QUANTIZED, TOP, WORDS, Storage
from fusedrms.kernels.tables import FIRST_NORM, SKIP, UNIT, AgreementTables, NormTables, Tables

from .memory import Fault, array_at, memory
from .streams import state, stream_of

Arguments = dict[str, Any]  # of a kernel, by name; pointers as addresses


def launched(kernel: Any, signature: dict[str, str], n_programs: int, handle: int, values: tuple) -> None:
    """What a compiled kernel does when it is called; signature: Triton's types of its arguments."""
    stream = stream_of(handle)
    device = stream.device.index
    if device != state.device:
        raise Fault(f"{kernel.__name__} is launched on a stream of GPU {device}, while GPU {state.device} is the current one")
    arguments = {name: value.data_ptr() if isinstance(value, Tensor) else value for name, value in zip(signature, values, strict=True)}
    stream.put(functools.partial(RUN[kernel.__name__], arguments, _Tables(arguments, signature, device), n_programs))
    state.launched.append((kernel.__name__, device, handle))


CODES = {word: code for code, word in WORDS.items()}
NAMES = {"i32": "int32", "i64": "int64", "fp32": "float32", "fp64": "float64", "fp16": "float16", "bf16": "bfloat16"}


def _name(dtype: Any) -> str:
    """What torch calls a dtype of Triton's."""
    return NAMES.get(str(dtype), str(dtype))


class _Tables:
    """Makes arrays of what a launch's pointers point at, each in bounds."""

    def __init__(self, arguments: Arguments, signature: dict[str, str], device: int):
        self._arguments, self._signature, self.device = arguments, signature, device

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        dtype = np.dtype(_name(self._signature[f"{name}_ptr"].removeprefix("*")))
        pointer, count = self._arguments[f"{name}_ptr"], int(np.prod(shape))
        memory.checked(f"{name}_ptr", pointer, count * dtype.itemsize, self.device)
        return array_at(pointer, count, dtype).reshape(shape)

    def row(self, what: str, addresses: np.ndarray, tables: Any, size: int, each: int, align: int, per: int = 1) -> None:
        """Fault unless the numbers of each chunk are there, of `each` bytes, one for every `per` elements of the tensor."""
        for tensor in np.unique(tables.chunk_tensor):
            starts, address = tables.chunk_start[tables.chunk_tensor == tensor], int(addresses[tensor])
            first, last = int(starts.min()) // per, -(-min(int(starts.max()) + size, int(tables.numels[tensor])) // per)
            name = f"{what} of tensor {tensor}"
            memory.checked(name, address + first * each, (last - first) * each, self.device)
            if address % align:
                raise Fault(f"{name} at {address:#x}: no multiple of {align}")


def _storage(a: Arguments) -> Storage:
    """Of the step, or as much of it as another kernel is compiled for."""
    ends = [*a["ROWS"][1:], len(a["DTYPES"])]
    rows = [tuple(map(_name, a["DTYPES"][first:last])) for first, last in zip(a["ROWS"], ends, strict=True)]
    for v, format in enumerate(a["FORMATS"]):
        if format == QUANTIZED:
            rows[v] = (CODES.get(rows[v][0], rows[v][0]), *rows[v][1:])
    return Storage(tuple(rows), **dict(zip(FLAGS, a["FLAGS"], strict=True)), straddles=a.get("STRADDLES", False))


def _check_rows(a: Arguments, at: _Tables, storage: Storage, tables: Tables | AgreementTables) -> None:
    """Fault unless all that the rows of addresses point at is there."""
    for first, dtypes in zip(a["ROWS"], storage.dtypes, strict=True):
        for k, dtype in enumerate(dtypes):
            per = GROUP if k and dtypes[0] in TOP else PER_WORD if dtype in WORDS else 1
            each = int(ITEMSIZE[dtype] * (PER_WORD if dtype in WORDS else 1))
            at.row(f"row {first + k}", tables.addresses[first + k], tables, size=a["chunk_size"], each=each, align=a["ALIGN"], per=per)


def step(a: Arguments, at: _Tables, n_programs: int) -> None:
    """step_kernel."""
    n_tensors, n_chunks, storage = a["n_tensors"], a["n_chunks"], _storage(a)
    groups, norm_index = at("groups", n_tensors), at("norm_index", n_tensors)
    tables = Tables(
        addresses=at("addresses", len(a["DTYPES"]), n_tensors),
        numels=at("numels", n_tensors),
        groups=groups,
        chunk_tensor=at("chunk_tensor", n_chunks),
        chunk_start=at("chunk_start", n_chunks),
        hyper=at("hyper", 1 + int(groups.max()), len(a["COMMON"]) + len(a["ARGS"])),
        norm_index=norm_index,
        random_key=at("random_key", n_tensors, 3),
        shard_offset=at("shard_offset", n_tensors),
        boosts=at("boosts", n_tensors) if storage.cautious else np.zeros(0),
        first_unit=at("first_unit", n_tensors) if storage.measured else np.zeros(0, np.int64),
        unit_sums=np.zeros((0, 0), storage.compute),
    )
    if storage.measured:  # the CPU driver writes one row for each unit, of several
        n_units, blocks = int((-(-tables.numels // UNIT)).sum()), UNIT // a["BLOCK"]
        there = at("unit_sums", n_units * blocks, storage.n_columns)
        tables = tables._replace(unit_sums=there[::blocks].copy())
    scalars = at("scalars", 1 + int(norm_index.max()))
    if not a["PERSISTENT"] and n_programs != n_chunks:
        raise Fault(f"{n_programs} programs take {n_chunks} chunks, one each")
    _check_rows(a, at, storage, tables)
    chunk = a["chunk_size"]
    if storage.measured and chunk < UNIT:  # whose chunks are units at least
        chunk_tensor, chunk_start = chunks(tables.numels, UNIT)
        tables, chunk = tables._replace(chunk_tensor=chunk_tensor, chunk_start=chunk_start), UNIT
    cpu.prepare(a["RULE"].__name__, storage, tables, chunk, cpu_threads.MIN_WORK)(scalars)
    if storage.measured:
        there[::blocks] = tables.unit_sums


def agreement(a: Arguments, at: _Tables, n_programs: int) -> None:
    """agreement_kernel."""
    n_tensors, storage = a["n_tensors"], _storage(a)
    groups, norm_index = at("groups", n_tensors), at("norm_index", n_tensors)
    tables = AgreementTables(
        addresses=at("addresses", len(a["DTYPES"]), n_tensors),
        numels=at("numels", n_tensors),
        groups=groups,
        chunk_tensor=at("chunk_tensor", n_programs),
        chunk_start=at("chunk_start", n_programs),
        hyper=at("hyper", 1 + int(groups.max()), len(a["COMMON"]) + len(a["ARGS"])),
        norm_index=norm_index,
        scalars=at("scalars", 1 + int(norm_index.max())),
    )
    _check_rows(a, at, storage, tables)
    cpu_agreement.prepare(a["RULE"].__name__, storage, tables, a["chunk_size"], cpu_threads.MIN_WORK)(at("agreed", n_programs))


def squares(a: Arguments, at: _Tables, n_programs: int) -> None:
    """squares_kernel."""
    n_tensors, dtype = a["n_tensors"], _name(a["DTYPE"])
    numels, groups, first = at("numels", n_tensors), at("groups", n_tensors), at("first_sum", n_tensors)
    tables = NormTables(
        addresses=at("addresses", 1, n_tensors),
        numels=numels,
        groups=groups,
        chunk_tensor=at("chunk_tensor", n_programs),
        chunk_start=at("chunk_start", n_programs),
        hyper=at("hyper", 1 + int(groups.max()), a["N_HYPER"]),
        first_sum=first,
        scalars=at("scalars", FIRST_NORM),
    )
    at.row("gradient", tables.addresses[0], tables, a["CHUNK"], int(ITEMSIZE[dtype]), a["ALIGN"])
    written = first[tables.chunk_tensor] + tables.chunk_start // a["CHUNK"]
    cpu_norm.prepare_squares(dtype, tables)(at("sums", 1 + int(written.max())))


def norms(a: Arguments, at: _Tables, n_programs: int) -> None:
    """norms_kernel."""
    spans = at("spans", n_programs, 2)
    cpu_norm.norms(at("sums", int(spans.max())), spans, at("norms", n_programs))


def count(a: Arguments, at: _Tables, n_programs: int) -> None:
    """count_kernel."""
    n = a["n_tensors"]
    counted, random_key, skipped = at("counted", n), at("random_key", n, 3), at("scalars", 1)[SKIP] != 0
    for k, (address, double) in enumerate(zip(at("counters", n).tolist(), at("double", n), strict=True)):
        dtype = np.dtype(np.float64 if double else np.float32)
        memory.checked(f"counter {k}", address, dtype.itemsize, at.device)
        counter = array_at(address, 1, dtype)
        counted[k] = counter[0] + dtype.type(1)
        random_key[k, 2] = counted[k]
        if not skipped:
            counter[0] = counted[k]


def values(a: Arguments, at: _Tables, n_programs: int) -> None:
    """values_kernel."""
    n, n_states = a["n"], a["N_STATES"]
    numbers, results = at("numbers", 1 + len(a["ARGS"])), at("results", 1 + n_states, n)
    cpu_values.values_of(a["RULE"].__name__, at("values", 2 + n_states, n), numbers, results)


RUN: dict[str, Callable] = {
    "agreement_kernel": agreement,
    "count_kernel": count,
    "step_kernel": step,
    "squares_kernel": squares,
    "norms_kernel": norms,
    "values_kernel": values,
}
