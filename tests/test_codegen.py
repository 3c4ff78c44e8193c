"""What the kernels become, for GPUs that are not here: vector accesses, no spills, few registers and instructions."""

import inspect
import itertools

import pytest

from cases import DTYPES, F32
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.kernels import lang, launch
from fusedrms.options import STORED
from tools import parameters

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from fusedrms.kernels.norm import norms_kernel, squares_kernel
from fusedrms.kernels.step import step_kernel
from sass import TARGETS, compiled

SIGNATURE = dict(
    addresses_ptr="*i64",
    numels_ptr="*i64",
    groups_ptr="*i32",
    chunk_tensor_ptr="*i32",
    chunk_start_ptr="*i64",
    norm_index_ptr="*i32",
    norms_ptr="*fp64",
    n_tensors="i32",
    first_sum_ptr="*i64",
    sums_ptr="*fp64",
    spans_ptr="*i64",
)
ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
RULES = {
    "rmsprop": (FusedRMSProp, {}),
    "rmsprop_momentum": (FusedRMSProp, dict(momentum=0.9)),
    "rmsprop_centered": (FusedRMSProp, dict(centered=True)),
    "rmsprop_centered_momentum": (FusedRMSPropGraves, {}),
    "smorms3": (FusedSMORMS3, {}),
}
REAL = [pair for pair in DTYPES if not pair[0].is_complex]  # complex parameters run the kernels of real ones


def recipe_of(optimizer, options, dtype=F32):
    optimizer = optimizer(parameters([(8,)], dtype=dtype), **options)
    return optimizer.recipe(optimizer.param_groups[0])


def code(rule, dtype, grad_dtype, aligned, target):
    """The kernel that an optimizer of this rule would launch for such a parameter."""
    recipe = recipe_of(*RULES[rule], dtype)
    assert recipe.rule == rule
    state = "float64" if STORED[dtype] == "float64" else "float32"
    dtypes = (STORED[grad_dtype], STORED[dtype]) + (state,) * len(recipe.states)
    constants = launch.constants(recipe.rule, dtypes, aligned, len(recipe.common + recipe.args), target.warp_size)
    signature = {**SIGNATURE, "hyper_ptr": "*fp64" if state == "float64" else "*fp32"}
    return dtypes, constants, compiled(step_kernel, signature, constants, target)


def registers(rule, dtypes, target, aligned=True):
    """With 64, half of the threads that a multiprocessor can hold are there, and each has its loads under way.

    More only where a parameter has more to compute with, or an address for each element; AMD's wider waves share 512.
    """
    if "float64" in dtypes:
        return 96
    return 64 if aligned and rule != "smorms3" and target != "gfx942" else 80


def instructions(dtypes):
    """What an H200 can issue while its memory serves one parameter, halved: 132 multiprocessors, 128 lanes, 1.75 GHz; 4.8 TB/s."""
    n_bytes = sum(ITEMSIZE[name] for name in dtypes + dtypes[1:])
    return 0.5 * n_bytes * 132 * 128 * 1.75e9 / 4.8e12


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "grad_dtype"), REAL, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("rule", RULES)
def test_aligned(rule, dtype, grad_dtype, target):
    dtypes, constants, result = code(rule, dtype, grad_dtype, True, TARGETS[target])
    assert result.spilled == 0
    assert result.registers <= registers(rule, dtypes, target)
    # one access for each row that is read and each that is written: all 16 bytes wide, or 8 beside wider elements
    widest = max(ITEMSIZE[name] for name in dtypes[1:])
    assert sorted(result.accesses) == sorted(16 * ITEMSIZE[name] // widest for name in dtypes + dtypes[1:])
    if target == "sm_90":
        elements = constants["BLOCK"] / (constants["num_warps"] * TARGETS[target].warp_size)
        assert len(result.loop) / elements <= (40 if rule == "rmsprop" and "float64" not in dtypes else instructions(dtypes))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "grad_dtype"), [REAL[0], REAL[4]], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("rule", RULES)
def test_unaligned(rule, dtype, grad_dtype, target):
    """At addresses that only the element divides, nothing may be wider than an element."""
    dtypes, _, result = code(rule, dtype, grad_dtype, False, TARGETS[target])
    assert result.spilled == 0
    assert result.registers <= registers(rule, dtypes, target, aligned=False)
    assert set(result.accesses) == {ITEMSIZE[name] for name in dtypes}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "compute"), [("float32", "fp32"), ("bfloat16", "fp32"), ("float16", "fp32"), ("float64", "fp64")])
@pytest.mark.parametrize("aligned", [True, False])
def test_norm(dtype, compute, aligned, target):
    constants = launch.squares_constants(dtype, aligned, n_hyper=17)
    result = compiled(squares_kernel, {**SIGNATURE, "hyper_ptr": f"*{compute}"}, constants, TARGETS[target])
    assert result.spilled == 0
    assert result.registers <= 64
    elements = (1 << constants["LEVELS"]) // (constants["num_warps"] * TARGETS[target].warp_size)  # of a thread and row of lanes
    assert set(result.accesses) == {min(16, elements * ITEMSIZE[dtype]) if aligned else ITEMSIZE[dtype]}
    if target == "sm_90" and aligned:  # the loop may hold several rows
        assert len(result.loop) / (sum(result.accesses) / ITEMSIZE[dtype]) <= instructions((dtype,))


@pytest.mark.parametrize("target", TARGETS)
def test_norms(target):
    result = compiled(norms_kernel, SIGNATURE, launch.norms_constants(), TARGETS[target])
    assert result.spilled == 0


OPTIONS = dict(
    alpha=[0.5, 1.0],
    weight_decay=[0, 0.1],
    momentum=[0, 0.9],
    centered=[False, True],
    maximize=[False, True],
    eps_placement=["outside", "inside", "both"],
    lr_in_momentum=[False, True],
    nesterov=[False, True],
    decoupled_weight_decay=[False, True],
    initial_square_avg=[0.0, 1.0],
    bias_correction=[False, True],
    rescale_grad=[1.0, 0.5],
    clip_grad_value=[None, 1.0],
    clip_after_decay=[False, True],
    clip_grad_norm=[None, 1.0],
    clip_norm_on=["gradient", "update"],
    clip_norm_over=["optimizer", "parameter"],
    clip_weights=[None, 1.0],
)


@pytest.mark.parametrize("optimizer", [FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3])
def test_options_compile_nothing_else(optimizer):
    """Every pair of values of two options leads to a kernel that the tests above compile: options are numbers, not kernels."""
    fixed = {"centered", "eps_placement", "lr_in_momentum"} if optimizer is FusedRMSPropGraves else set()
    taken = set(inspect.signature(FusedSMORMS3 if optimizer is FusedSMORMS3 else FusedRMSProp).parameters) - fixed
    table = {option: values for option, values in OPTIONS.items() if option in taken}
    numbers = {rule: len(recipe_of(*made).common + recipe_of(*made).args) for rule, made in RULES.items()}
    accepted = 0
    for (a, values), (b, others) in itertools.combinations(table.items(), 2):
        for value, other in itertools.product(values, others):
            try:
                recipe = recipe_of(optimizer, {a: value, b: other})
            except ValueError as error:
                assert "nesterov" in str(error) or "bias_correction" in str(error)  # noqa: PT017
                continue
            accepted += 1
            assert numbers[recipe.rule] == len(recipe.common + recipe.args)
    assert accepted > 100


def test_every_rule_is_here():
    def is_update(value):
        return lang.is_rule(value) and list(inspect.signature(value.fn).parameters)[-1] == "args"

    assert set(RULES) == {name for name, value in vars(launch.rules).items() if is_update(value)}
