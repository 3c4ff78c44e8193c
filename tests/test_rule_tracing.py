"""Rules that users write, traced: what compilers take, special values, and a machine without Triton. Other values: test_rule_check.py."""

import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from fusedrms.kernels import launch
from fusedrms.kernels.rule import Rule, State, declare
from fusedrms.rules.source import function_of
from fusedrms.rules.tracing import Traced, run, trace
from tools import natively
from traced_rules import CASES, Case

COMPUTES = ("float32", "float64")


def traced(case: Case) -> Traced:
    return trace(
        case.function,
        name=case.function.__name__,
        states=case.states,
        numbers=dict.fromkeys(case.numbers, True),
        static=case.static,
        nonnegative_states=case.nonnegative,
    )


@natively
@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("name", CASES)
def test_compiled_for_a_gpu(name, compute):
    """Nothing is fused that the tracer has not."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from fusedrms.kernels.gpu.values import values_kernel

    made, pointer = traced(CASES[name]), "*fp32" if compute == "float32" else "*fp64"
    signature = dict.fromkeys(("values_ptr", "numbers_ptr", "results_ptr"), pointer) | dict(n="i32")
    given = dict(RULE=function_of(made.source, made.name), N_STATES=len(CASES[name].states), ARGS=made.numbers, BLOCK=256)
    constants = {(values_kernel.arg_names.index(argument),): value for argument, value in given.items()}
    source = ASTSource(values_kernel, signature | dict.fromkeys(given, "constexpr"), constants)
    ptx = compile(source, GPUTarget("cuda", 90, 32), dict(enable_fp_fusion=False)).asm["ptx"]
    assert "st.global" in ptx
    assert "fma" not in ptx or any(word in made.source for word in ("tl.fma", "exp", "log"))


@pytest.mark.interpret
@pytest.mark.parametrize("compute", COMPUTES)
def test_special_values(compute):
    """NaN and infinity, as torch has them."""
    case, values = CASES["special"], (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -2.0)
    rows = np.ones((2 + len(case.states), len(values) ** 2), compute)
    rows[0], rows[1] = np.repeat(values, len(values)), np.tile(values, len(values))
    made = traced(case)
    declare(Rule(made.name, function_of(made.source, made.name), dict.fromkeys(case.states, State()), made.numbers, {}))
    grad, param, *states = torch.from_numpy(rows.astype(np.float64))
    update, new = run(case.function, grad, param, dict(zip(case.states, states, strict=True)), lr=0.01, numbers=case.numbers, step=7)
    for name, driver in launch.value_drivers(torch.device("cpu")).items():
        found = driver(made.name, rows, np.array([0.01, *made.static_numbers(case.numbers)], compute))
        np.testing.assert_array_equal(found, torch.stack([update, *new.values()]), err_msg=name)


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # as on macOS and Windows
import numpy, torch
from numba.core import types
from fusedrms import FusedRMSProp
from fusedrms.kernels.cpu.language import compile_rule
from fusedrms.rules.source import function_of
from fusedrms.rules.tracing import trace
from traced_rules import CASES
param = torch.nn.Parameter(torch.ones(5))
param.grad = torch.ones(5)
FusedRMSProp([param]).step()
assert (param < 1).all()
function, states, numbers, *_ = CASES["every word"]
made = trace(function, name="rule", states=states, numbers=dict.fromkeys(numbers, True))
n = {**dict(zip(made.numbers, made.static_numbers(numbers))), **made.numbers_at(numbers, 3)}
update, new = compile_rule(function_of(made.source, made.name), types.float64)(0.5, 0.2, (0.1,) * len(states), 0.1, tuple(n.values()))
assert update == update and len(new) == len(states)
"""


@natively
def test_without_triton():
    subprocess.run([sys.executable, "-c", WITHOUT_TRITON], cwd=pathlib.Path(__file__).parent, check=True)
