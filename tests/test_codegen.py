"""What the kernels become, for GPUs that are not here: vector accesses, no spills, few registers and instructions."""

import inspect
import itertools
from collections import Counter

import pytest
import torch

from cases import BF16, DTYPES, F32, MODES
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.kernels import lang, launch
from fusedrms.kernels.storage import ITEMSIZE
from fusedrms.plan import Plan
from tools import parameters, random_grads

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
    noise_ptr="*i32",
    norms_ptr="*fp64",
    n_tensors="i32",
    n_chunks="i32",
    chunk_size="i32",
    first_sum_ptr="*i64",
    sums_ptr="*fp64",
    spans_ptr="*i64",
)
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


def code(rule, dtype, grad_dtype, target, aligned=True, mode=None):
    """The kernel that an optimizer of this rule would launch for such a parameter: its Storage, its constants, what it became."""
    cls, options = RULES[rule]
    params = parameters([(8,)], dtype=dtype)
    random_grads(params, grad_dtype)
    optimizer = cls(params, **options, **(mode or {}))
    (bucket,) = Plan("", optimizer.param_groups, optimizer._recipes(), optimizer.state)._buckets
    assert bucket.rule == rule
    storage = bucket.layout.storage
    constants = launch.constants(
        rule, storage, aligned, bucket._host.hyper.shape[1], launch.default_config(torch.device("cuda"), storage, aligned), target.warp_size
    )
    signature = {**SIGNATURE, "hyper_ptr": "*fp64" if storage.compute == "float64" else "*fp32"}
    return storage, constants, compiled(step_kernel, signature, constants, target)


def elements(constants, target):
    """Of a thread in one round of the loop."""
    return constants["BLOCK"] // (constants["num_warps"] * target.warp_size)


def registers(rule, storage, target, aligned=True):
    """With 64, half of the threads that a multiprocessor can hold are there, and each has its loads under way.

    More only where a parameter has more to compute with, or an address for each element; AMD's wider waves share 512.
    """
    if storage.compute == "float64":
        return 96
    if storage.coded:
        return launch.REGISTERS[aligned and target != "gfx942"]
    return 64 if aligned and rule != "smorms3" and target != "gfx942" else 80


def issued(n_bytes):
    """Instructions that an H200 can issue while its memory serves so much: 132 multiprocessors, 128 lanes, 1.75 GHz; 4.8 TB/s."""
    return n_bytes * 132 * 128 * 1.75e9 / 4.8e12


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "grad_dtype"), REAL, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("rule", RULES)
def test_aligned(rule, dtype, grad_dtype, target):
    storage, constants, result = code(rule, dtype, grad_dtype, TARGETS[target])
    assert result.spilled == 0
    assert result.registers <= registers(rule, storage, target)
    # one access for each row that is read and each that is written: all 16 bytes wide, or 8 beside wider elements
    n = elements(constants, TARGETS[target])
    assert sorted(result.accesses) == sorted(n * ITEMSIZE[name] for name in storage.streams)
    if target == "sm_90":
        most = 40 if rule == "rmsprop" and storage.compute == "float32" else issued(storage.traffic) / 2
        assert len(result.loop) / n <= most


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "grad_dtype"), [REAL[0], REAL[4]], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("rule", RULES)
def test_unaligned(rule, dtype, grad_dtype, target):
    """At addresses that only the element divides, nothing may be wider than an element."""
    storage, _, result = code(rule, dtype, grad_dtype, TARGETS[target], aligned=False)
    assert result.spilled == 0
    assert result.registers <= registers(rule, storage, target, aligned=False)
    assert set(result.accesses) == {ITEMSIZE[name] for name in storage.streams}


LEAN = [("rmsprop", BF16, mode) for mode in MODES] + [("rmsprop", torch.float16, "stochastic"), ("rmsprop", F32, "8-bit state")]
LEAN += [(rule, BF16, mode) for rule in list(RULES)[1:] for mode in ("split, 8-bit state", "stochastic, bfloat16 state")]
# bytes a parameter and instructions a parameter that may not be exceeded where a mode exists for its small traffic
PROMISED = {
    "split, 8-bit state": (12.2, 90),
    "stochastic, 8-bit state": (8.2, 90),
    "stochastic": (14.0, 60),
    "split": (18.0, 60),
    "master": (22.0, 60),  # the parameter is read too, to see whether something else has changed it
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("rule", "dtype", "mode"), LEAN, ids=str)
def test_modes(rule, dtype, mode, target):
    storage, constants, result = code(rule, dtype, dtype, TARGETS[target], mode=MODES[mode])
    n = elements(constants, TARGETS[target])
    accesses, expected = Counter(result.accesses), Counter(n * ITEMSIZE[name] for name in storage.streams)
    assert n == 4  # 16 bytes of float32, 8 of 16 bits, 4 of 8 bits
    assert not expected - accesses
    # a scale is 4 bytes, read and written once by a thread, for all of its elements
    assert set(accesses - expected) <= {4}
    assert (accesses - expected).total() <= 2 * len(storage.coded)
    assert result.registers <= registers(rule, storage, target)
    assert result.spilled <= (8 if (target, rule) == ("sm_100", "smorms3") else 0)  # of the stack, which the loop leaves alone
    if target == "sm_90" and rule == "rmsprop":
        n_bytes, n_instructions = PROMISED.get(mode, (18.2, 90))
        assert storage.traffic <= n_bytes
        assert len(result.loop) / n <= n_instructions


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rule", ["rmsprop", "rmsprop_centered_momentum", "smorms3"])
def test_modes_unaligned(rule, target):
    storage, _, result = code(rule, BF16, BF16, TARGETS[target], aligned=False, mode=MODES["split, 8-bit state"])
    assert result.spilled <= (8 if (target, rule) == ("sm_100", "smorms3") else 0)
    assert result.registers <= registers(rule, storage, target, aligned=False)
    assert set(result.accesses) == {ITEMSIZE[name] for name in (*storage.streams, "float32")}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "compute"), [("float32", "fp32"), ("bfloat16", "fp32"), ("float16", "fp32"), ("float64", "fp64")])
@pytest.mark.parametrize("aligned", [True, False])
def test_norm(dtype, compute, aligned, target):
    constants = launch.squares_constants(dtype, aligned, n_hyper=17)
    result = compiled(squares_kernel, {**SIGNATURE, "hyper_ptr": f"*{compute}"}, constants, TARGETS[target])
    assert result.spilled == 0
    assert result.registers <= 64
    n = (1 << constants["LEVELS"]) // (constants["num_warps"] * TARGETS[target].warp_size)  # elements of a thread and row of lanes
    assert set(result.accesses) == {min(16, n * ITEMSIZE[dtype]) if aligned else ITEMSIZE[dtype]}
    if target == "sm_90" and aligned:  # the loop may hold several rows
        assert len(result.loop) / (sum(result.accesses) / ITEMSIZE[dtype]) <= issued(ITEMSIZE[dtype]) / 2


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
    seed=[0, 1],
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
