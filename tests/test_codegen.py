"""What the kernels become, for GPUs that are not here: vector accesses, no spills, few registers and instructions."""

import pytest

from cases import DTYPES
from fusedrms import FusedRMSProp
from fusedrms.kernels import lang, launch
from fusedrms.options import STORED
from tools import parameters

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from fusedrms.kernels.step import step_kernel
from sass import TARGETS, compiled

SIGNATURE = dict(
    addresses_ptr="*i64", numels_ptr="*i64", groups_ptr="*i32", chunk_tensor_ptr="*i32", chunk_start_ptr="*i64", n_tensors="i32"
)
ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
RULES = {
    "rmsprop": {},
    "rmsprop_momentum": dict(momentum=0.9),
    "rmsprop_centered": dict(centered=True),
    "rmsprop_centered_momentum": dict(momentum=0.9, centered=True),
}
REAL = [pair for pair in DTYPES if not pair[0].is_complex]  # complex parameters run the kernels of real ones


def code(options, dtype, grad_dtype, aligned, target):
    """The kernel that FusedRMSProp with these options would launch for such a parameter."""
    (param,) = parameters([(8,)], dtype=dtype)
    optimizer = FusedRMSProp([param], **options)
    recipe = optimizer.recipe(optimizer.param_groups[0])
    state = "float64" if STORED[dtype] == "float64" else "float32"
    dtypes = (STORED[grad_dtype], STORED[dtype]) + (state,) * len(recipe.states)
    constants = launch.constants(recipe.rule, dtypes, aligned, len(recipe.common + recipe.args), target.warp_size)
    signature = {**SIGNATURE, "hyper_ptr": "*fp64" if state == "float64" else "*fp32"}
    return recipe, dtypes, constants, compiled(step_kernel, signature, constants, target)


# Square root and division of float64 are 45 instructions on a GPU that has none for them. A parameter of 40 bytes still leaves
# time for 280 (the issue limit of an H200 at the speed of its memory), so the memory remains the limit.
REGISTERS = {"float32": 64, "float64": 80}
INSTRUCTIONS = {"float32": 40, "float64": 80}  # a parameter, on sm_90


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "grad_dtype"), REAL, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("rule", RULES)
def test_aligned(rule, dtype, grad_dtype, target):
    recipe, dtypes, constants, result = code(RULES[rule], dtype, grad_dtype, True, TARGETS[target])
    assert recipe.rule == rule
    assert result.spilled == 0
    assert result.registers <= REGISTERS[dtypes[2]]
    # one access for each row that is read and each that is written: all 16 bytes wide, or 8 beside wider elements
    widest = max(ITEMSIZE[name] for name in dtypes[1:])
    assert sorted(result.accesses) == sorted(16 * ITEMSIZE[name] // widest for name in dtypes + dtypes[1:])
    if target == "sm_90":
        elements = constants["BLOCK"] / (constants["num_warps"] * TARGETS[target].warp_size)
        assert len(result.loop) / elements <= INSTRUCTIONS[dtypes[2]]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "grad_dtype"), [REAL[0], REAL[4]], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("rule", RULES)
def test_unaligned(rule, dtype, grad_dtype, target):
    """At addresses that only the element divides, nothing may be wider than an element."""
    _, dtypes, _, result = code(RULES[rule], dtype, grad_dtype, False, TARGETS[target])
    assert result.spilled == 0
    assert result.registers <= REGISTERS[dtypes[2]]
    assert set(result.accesses) == {ITEMSIZE[name] for name in dtypes}


def test_every_rule_is_here():
    assert set(RULES) == {name for name in dir(launch.rules) if name.startswith("rmsprop")}
