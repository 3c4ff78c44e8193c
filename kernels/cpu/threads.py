"""Shares out a loop of the Numba driver among the threads that torch computes with."""

import ctypes
import functools
import itertools
import os
import pathlib
import platform
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils
from numba.core import types as nt
from numba.extending import intrinsic

from ..caches import cached_njit
from .packed import Packed

SET_UP = 256  # elements that take as long as to begin a chunk
# Elements that a thread must have before waking it pays: half a millisecond's, from memory. To wait for one that other programs keep from
# its core takes 8 ms, two quanta of the scheduler.
MIN_WORK = 1 << 19
WORD, INT, VOID, VOID_P = ir.IntType(64), ir.IntType(32), ir.VoidType(), ir.IntType(8).as_pointer()
MACHINE = platform.machine().lower()


def _intrinsic(builder: ir.IRBuilder, name: str, type_: ir.FunctionType, *args):
    return builder.call(builder.module.declare_intrinsic(f"llvm.{name}", (), type_), args)


def _mode(builder: ir.IRBuilder):
    """How this thread rounds, and whether it takes subnormal numbers for 0: a register of its own; 0 on machines that are not known."""
    if MACHINE in ("x86_64", "amd64"):
        slot = cgutils.alloca_once(builder, INT)
        _intrinsic(builder, "x86.sse.stmxcsr", ir.FunctionType(VOID, [VOID_P]), builder.bitcast(slot, VOID_P))
        return builder.zext(builder.load(slot), WORD)
    if MACHINE in ("aarch64", "arm64"):
        return _intrinsic(builder, "aarch64.get.fpcr", ir.FunctionType(WORD, []))
    return WORD(0)


def _set_mode(builder: ir.IRBuilder, mode) -> None:
    """Let this thread compute as the one that _mode() was read in."""
    if MACHINE in ("x86_64", "amd64"):
        slot = cgutils.alloca_once_value(builder, builder.trunc(mode, INT))
        _intrinsic(builder, "x86.sse.ldmxcsr", ir.FunctionType(VOID, [VOID_P]), builder.bitcast(slot, VOID_P))
    elif MACHINE in ("aarch64", "arm64"):
        _intrinsic(builder, "aarch64.set.fpcr", ir.FunctionType(VOID, [WORD]), mode)


@intrinsic
def _mode_here(typing_context):
    return nt.int64(), lambda context, builder, signature, args: _mode(builder)


@intrinsic
def _set_mode_here(typing_context, mode):
    def build(context, builder, signature, args):
        _set_mode(builder, args[0])
        return context.get_dummy_value()

    return nt.none(nt.int64), build


@cached_njit()
def float_mode():
    """How the calling thread rounds, and whether it flushes subnormal numbers, as torch.set_flush_denormal() lets it."""
    return _mode_here()


@cached_njit()
def set_float_mode(mode):
    """Let the calling thread compute as the one where float_mode() was asked."""
    _set_mode_here(mode)


@intrinsic
def _fork(typing_context, parallel, loop, tables, chunk, shares, n_shares, out):
    """Run the loop on all shares by the threads of GOMP_parallel, at that address: whichever is free takes the next share.

    All compute in the mode of the thread that calls: else a result would depend on who took a share.
    """
    types = (nt.voidptr, tables, nt.intp, nt.intp, nt.intp, out)

    def build(context, builder, signature, values):
        parallel, *given = values
        *_, n_threads, _ = given  # one for each share
        fields = *given, _mode(builder), WORD(0)
        data = cgutils.alloca_once(builder, ir.LiteralStructType([field.type for field in fields]))
        for n, field in enumerate(fields):
            builder.store(field, cgutils.gep_inbounds(builder, data, 0, n))

        name = builder.module.get_unique_name("share")
        body = ir.Function(builder.module, ir.FunctionType(VOID, [VOID_P]), name)
        body.linkage = "internal"
        inner = ir.IRBuilder(body.append_basic_block("entry"))
        own = inner.bitcast(body.args[0], data.type)
        loop, tables, chunk, shares, n_shares, out, mode = (inner.load(cgutils.gep_inbounds(inner, own, 0, n)) for n in range(7))
        shares = inner.inttoptr(shares, WORD.as_pointer())
        function = inner.inttoptr(loop, context.call_conv.get_function_type(nt.none, types).as_pointer())
        take, run, done = (body.append_basic_block(name) for name in ("take", "run", "done"))
        before = _mode(inner)
        _set_mode(inner, mode)
        inner.branch(take)
        inner.position_at_end(take)
        k = inner.atomic_rmw("add", cgutils.gep_inbounds(inner, own, 0, 7), WORD(1), "monotonic")
        inner.cbranch(inner.icmp_signed("<", k, n_shares), run, done)
        inner.position_at_end(run)
        first, last = (inner.load(inner.gep(shares, [index])) for index in (k, inner.add(k, WORD(1))))
        null = ir.Constant(VOID_P, None)
        context.call_conv.call_function(inner, function, nt.none, types, [null, tables, chunk, first, last, out])
        inner.branch(take)
        inner.position_at_end(done)
        _set_mode(inner, before)
        inner.ret_void()

        start = ir.FunctionType(VOID, [body.type, VOID_P, INT, INT])
        builder.call(
            builder.inttoptr(parallel, start.as_pointer()), [body, builder.bitcast(data, VOID_P), builder.trunc(n_threads, INT), INT(0)]
        )
        return context.get_dummy_value()

    return nt.none(nt.intp, nt.intp, tables, nt.intp, nt.intp, nt.intp, out), build


@cached_njit(nogil=True)
def _share(parallel, loop, tables, chunk, shares, n_shares, out):
    _fork(parallel, loop, tables, chunk, shares, n_shares, out)


class Loop(NamedTuple):
    """Machine code of a function of (variant, tables, chunk, first, last, out): a type, an address, three integers, an array."""

    variant: Any
    call: Any
    address: int
    share: Any  # _share() for such tables


def compile_loop(dispatcher, variant, tables, out) -> Loop:
    """From the disk cache if it is there; tables, out: the Numba types of the tables' address and of what each call brings."""
    signature = (variant, tables, nt.intp, nt.intp, nt.intp, out)
    call = dispatcher.compile(signature)
    code = dispatcher.overloads[signature]
    share = _share.compile((nt.intp, nt.intp, tables, nt.intp, nt.intp, nt.intp, out))
    return Loop(variant, call, code.library.get_pointer_to_function(code.fndesc.llvm_func_name), share)


@functools.cache
def _parallel() -> int:
    """Address of GOMP_parallel in the OpenMP that torch itself uses; 0 where it has none that is known by this name.

    Its threads wait in a loop for a while after an operation of torch, on the cores that others would need.
    """
    folder = pathlib.Path(torch.__file__).parent / "lib"
    try:  # looked up in what the library depends on, too
        found = ctypes.CDLL(str(next(folder.glob("libtorch_cpu.so")))).GOMP_parallel
    except (StopIteration, OSError, AttributeError):
        return 0
    return ctypes.cast(found, ctypes.c_void_p).value or 0


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that live as long as the process. Numba's own would abort it when two Python threads step at once."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fusedrms")


def _after_fork() -> None:
    """Threads do not survive a fork, and OpenMP would wait for its own."""
    global _parallel
    _pool.cache_clear()
    _parallel = lambda: 0  # noqa: E731


if hasattr(os, "register_at_fork"):  # Windows has none
    os.register_at_fork(after_in_child=_after_fork)


class Threads:
    """A loop over all chunks, by as many threads as torch uses, if there is enough to do.

    Args:
        loop: machine code.
        tables: Tables or NormTables of NumPy arrays.
        chunk: elements of each.
        min_work: what a thread must have, in elements; never less than MIN_WORK, which no quiet machine can tell.
    """

    def __init__(self, loop: Loop, tables: Any, chunk: int, min_work: int = 0):
        self._loop, self._packed, self._chunk = loop, Packed(tables), chunk
        # of the chunks up to each, in elements
        self._work = (np.minimum(tables.numels[tables.chunk_tensor] - tables.chunk_start, chunk) + SET_UP).cumsum()
        self._most = max(1, int(self._work[-1]) // max(MIN_WORK, min_work))  # threads
        self._alone = partial(loop.call, loop.variant, self._packed.address, chunk, 0, len(self._work))
        self._shares, self._shares_at = np.zeros(0, np.int64), 0

    def __call__(self, out: np.ndarray) -> None:
        n_threads = min(torch.get_num_threads(), self._most) if self._most > 1 else 1
        if n_threads == 1:
            self._alone(out)
            return
        if n_threads != len(self._shares) - 1:
            inner = np.searchsorted(self._work, self._work[-1] * np.arange(1, n_threads) // n_threads)
            self._shares = np.array([0, *inner, len(self._work)])  # between each two a thread finds as much work as the others
            self._shares_at = self._shares.ctypes.data
        if address := _parallel():
            self._loop.share(address, self._loop.address, self._packed.address, self._chunk, self._shares_at, n_threads, out)
        else:
            self._by_pool(out)

    def _run(self, first: int, last: int, out: np.ndarray) -> None:
        self._loop.call(self._loop.variant, self._packed.address, self._chunk, first, last, out)

    def _by_pool(self, out: np.ndarray) -> None:
        first, *rest = itertools.pairwise(self._shares)
        mode = float_mode()
        others = [self._start(mode, *part, out) for part in rest]
        try:
            self._run(*first, out)
        finally:  # nothing may write any more once this has returned, by Ctrl-C either
            try:
                wait(others)
            except KeyboardInterrupt:
                wait(others)
                raise

    def _run_in(self, mode: int, *args) -> None:
        set_float_mode(mode)
        self._run(*args)

    def _start(self, *args) -> Future:
        try:
            return _pool().submit(self._run_in, *args)
        except RuntimeError:  # the interpreter is shutting down and starts no threads
            self._run_in(*args)
            done = Future()
            done.set_result(None)
            return done
