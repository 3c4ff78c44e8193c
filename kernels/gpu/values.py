"""A rule on values alone, as the step calls it: what is compared with the other driver."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba.core.compiler_lock import global_compiler_lock

from .. import fma
from ..kernel import OPTIONS, Kernel
from ..lang import interpreted, jit, tl, twin
from ..rule import RULES
from .memory import load_numbers

BLOCK = 256


@jit
def values_kernel(
    values_ptr,  # [2 + N_STATES, n]: grad, param, states
    numbers_ptr,  # lr, and the rule's numbers
    results_ptr,  # [1 + N_STATES, n]: the update, the new states
    n,
    RULE: tl.constexpr,
    N_STATES: tl.constexpr,
    ARGS: tl.constexpr,  # names of the latter, as of step.step_kernel
    BLOCK: tl.constexpr,
):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    values = ()
    for v in tl.static_range(2 + N_STATES):
        values = values + (tl.load(values_ptr + v * n + offsets, mask=mask, other=0.0),)
    numbers = load_numbers(numbers_ptr, 1 + len(ARGS))
    update, state = RULE(values[0], values[1], values[2:], numbers[0], numbers[1:])
    new = (update,) + state
    for v in tl.static_range(1 + N_STATES):
        tl.store(results_ptr + v * n + offsets, new[v], mask=mask)


@functools.cache
def puts_back() -> bool:
    """Whether Triton's interpreter puts back what it changes of the language, as it does since Triton 3.6."""
    from triton.runtime import interpreter

    return hasattr(interpreter, "_LangPatchScope")


def _rewritten(copy):
    from triton.runtime.interpreter import InterpretedFunction

    return InterpretedFunction(copy).rewrite()  # called by a kernel, an InterpretedFunction itself would put nothing back


@functools.cache
def _interpreted(function):
    """A function, and what it calls, as the interpreter runs them."""
    return twin(function, {"tl": tl}, _rewritten)


def _alone(interpret) -> None:
    """Numba compiles nothing meanwhile, which would find tl's functions changed, and no interrupt keeps them from being put back."""

    def run():
        with global_compiler_lock, np.errstate(all="ignore"):
            interpret()

    with ThreadPoolExecutor(1) as pool:  # interrupts come to the main thread
        pool.submit(run).result()


def values_of(rule: str, values: torch.Tensor, numbers: torch.Tensor, results: torch.Tensor) -> None:
    """As values_of() of cpu/values.py: on the tensors' device, or by the interpreter where they are on the CPU."""
    n = values.shape[1]
    n_programs = -(-n // BLOCK)
    constants = dict(N_STATES=len(values) - 2, ARGS=RULES[rule].numbers, BLOCK=BLOCK)
    args = dict(values_ptr=values, numbers_ptr=numbers, n=n)
    if values.is_cpu and not interpreted():
        from triton.runtime.interpreter import GridExecutor

        fma.interpret()
        run = GridExecutor(_interpreted(values_kernel), values_kernel.arg_names, (n_programs,))
        constants |= dict(RULE=_interpreted(RULES[rule].function), results_ptr=results)
        _alone(lambda: run(**args, **constants))
        return
    constants |= dict(RULE=RULES[rule].function, num_warps=4, **OPTIONS)
    Kernel(values_kernel, n_programs, constants, args, "results_ptr")(results)
