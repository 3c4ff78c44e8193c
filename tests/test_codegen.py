"""What the kernels become, for GPUs that are not here: vector accesses, no spills, few registers and instructions."""

import functools
import inspect
import itertools

import pytest
import triton

from cases import DTYPES, F32
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.kernels import lang, launch, rule
from fusedrms.kernels.storage import ITEMSIZE
from fusedrms.tools.inspect import is_vectorised
from fusedrms.tools.machine_code import TARGETS, build, read, step_constants, target_of
from fusedrms.tools.roofline import gpus, limit, multiprocessor
from fusedrms.tools.variants import MODES, RULES, variant
from tools import parameters

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from fusedrms.kernels.gpu.agreement import agreement_kernel
from fusedrms.kernels.gpu.norm import norms_kernel, squares_kernel
from fusedrms.kernels.gpu.step import step_kernel

THIS_TRITON = triton.__version__.startswith("3.7.")  # other versions' code is a little longer or shorter
NAMES = ("A100 80GB SXM", "H100 SXM", "H200", "B200", "MI300X")
# where arithmetic takes longer than memory, and the instructions a parameter that it may not exceed on each of NAMES; None: memory does.
# Codes of two states and more are decoded and encoded at 25 to 30 instructions each, for 1 or 2 bytes that memory moves; a B200 moves a
# byte in the time of 5 instructions (H100: 10, H200: 7), so there the leanest modes of one state are here too.
ARITHMETIC = {
    ("rmsprop_centered", "float32+4bit"): (None, None, None, 78, None),
    ("rmsprop_centered_momentum", "float32+4bit"): (None, None, None, 104, None),
    ("rmsprop_momentum", "bfloat16+8bit"): (None, None, 73, 62, None),
    ("rmsprop_centered", "bfloat16+8bit"): (None, None, 79, 67, None),
    ("rmsprop_centered_momentum", "bfloat16+8bit"): (None, None, 108, 91, 104),
    ("rmsprop_momentum", "bfloat16+stochastic+8bit"): (None, None, 78, 67, None),
    ("rmsprop_centered", "bfloat16+stochastic+8bit"): (None, None, 84, 72, None),
    ("rmsprop_centered_momentum", "bfloat16+stochastic+8bit"): (None, None, 113, 97, 104),
    ("rmsprop", "bfloat16+stochastic+4bit"): (None, None, None, 45, None),
    ("rmsprop_momentum", "bfloat16+stochastic+4bit"): (83, None, 81, 77, 73),
    ("rmsprop_centered", "bfloat16+stochastic+4bit"): (88, 87, 87, 82, 77),
    ("rmsprop_centered_momentum", "bfloat16+stochastic+4bit"): (119, 118, 118, 109, 107),
    ("smorms3", "bfloat16+stochastic+4bit"): (None, None, None, 102, None),
    ("rmsprop_momentum", "bfloat16+split+8bit"): (None, None, None, 70, None),
    ("rmsprop_centered", "bfloat16+split+8bit"): (None, None, None, 75, None),
    ("rmsprop_centered_momentum", "bfloat16+split+8bit"): (None, None, None, 100, None),
    ("rmsprop_momentum", "bfloat16+split24+8bit"): (None, None, 88, 77, None),
    ("rmsprop_centered", "bfloat16+split24+8bit"): (None, None, 93, 81, None),
    ("rmsprop_centered_momentum", "bfloat16+split24+8bit"): (None, None, 122, 106, None),
    ("rmsprop", "bfloat16+split24+4bit"): (None, None, None, 52, None),
    ("rmsprop_momentum", "bfloat16+split24+4bit"): (None, None, 91, 86, None),
    ("rmsprop_centered", "bfloat16+split24+4bit"): (None, None, 96, 92, None),
    ("rmsprop_centered_momentum", "bfloat16+split24+4bit"): (128, 128, 128, 118, 113),
    ("smorms3", "bfloat16+split24+4bit"): (None, None, None, 111, None),
}
# at most: bytes of addresses that ptxas rather reads again, outside of the loop, than keeps in a register; and on AMD's GPUs scalar
# registers that are kept in lanes of a vector register, which touches no memory
SPILLS = {
    ("rmsprop_centered_momentum", "float32+4bit", "gfx942"): 7,
    ("rmsprop_centered_momentum", "bfloat16+stochastic+4bit", "gfx942"): 9,
    ("rmsprop_centered_momentum", "bfloat16+split24+4bit", "gfx942"): 1,
    ("rmsprop", "bfloat16+split24+4bit", "sm_80"): 8,
}
# what other Tritons from 3.5 to 3.9 make of a few kernels: spills and instructions as above, and registers
SPILLS_ELSEWHERE = {
    ("rmsprop", "bfloat16+stochastic+4bit", "sm_100"): 8,
    ("rmsprop", "bfloat16+split24+4bit", "sm_90"): 8,
    ("rmsprop", "bfloat16+split24+4bit", "sm_100"): 40,
    ("rmsprop_centered", "bfloat16+split+8bit", "sm_100"): 10,
    ("rmsprop_centered_momentum", "float32+8bit", "gfx942"): 6,
    ("rmsprop_centered_momentum", "bfloat16+8bit", "gfx942"): 5,
    ("rmsprop_centered_momentum", "bfloat16+stochastic+8bit", "gfx942"): 2,
    ("rmsprop_centered_momentum", "bfloat16+master+8bit", "gfx942"): 8,
    ("rmsprop_momentum", "bfloat16+master+8bit", "gfx942"): 2,
}
ARITHMETIC_ELSEWHERE = {("rmsprop", "bfloat16+split24+4bit", "sm_100"): 57}
REGISTERS_ELSEWHERE = {("rmsprop_momentum", "bfloat16+split+8bit", "sm_80"): 123}
# bytes a parameter and, on sm_90, instructions a parameter that rmsprop may not exceed where a mode exists for its small traffic
PROMISED = {
    "float32": (20.0, 27),
    "bfloat16": (14.0, 31),
    "bfloat16+stochastic": (14.0, 38),
    "bfloat16+split": (18.0, 41),
    "bfloat16+master": (22.0, 45),  # the parameter is read too, to see whether something else has changed it
    "bfloat16+split24": (16.0, 45),
    "bfloat16+split+8bit": (12.2, 46),
    "bfloat16+split24+8bit": (10.2, 51),
    "bfloat16+split24+4bit": (9.2, 53),
    "bfloat16+stochastic+8bit": (8.2, 43),
    "bfloat16+stochastic+4bit": (7.2, 45),
    "float16+stochastic": (14.0, 59),
    "float64": (40.0, 88),
}
PAIRS = [(str(param)[6:], str(grad)[6:]) for param, grad in DTYPES if param != grad and not param.is_complex]


@functools.cache
def compiled(rule, mode, target, grad_dtype=None, aligned=True):
    """The Storage of a mode with gradients of another dtype than its parameters, elements of a thread, and what the step became."""
    storage = variant(rule, mode).storage
    if grad_dtype:
        storage = storage._replace(dtypes=((grad_dtype,), *storage.dtypes[1:]))
    gpu = target_of(target)
    constants = step_constants(rule, storage, aligned, gpu)
    code = read(build(step_kernel, constants, gpu, storage.compute))
    return storage, constants["BLOCK"] // (constants["num_warps"] * gpu.warp_size), code


def registers(rule, storage, target, aligned=True):
    """With 64, half of the threads that a multiprocessor can hold are there, and each has its loads under way.

    More only where a parameter has more to compute with, or an address for each element; AMD's wider waves share 512.
    """
    more = 0 if THIS_TRITON else 16
    if storage.quantized:
        return more + (96 if target == "gfx942" else 64 if aligned else 72)
    many = len(storage.streams) > 10 or storage.compute == "float64"  # addresses, or values, of two registers each
    return more + (80 if many or not aligned or target == "gfx942" else 72)


# of modes without codes, which are far from every limit, two targets tell enough
STEPS = [
    (rule, mode, target)
    for rule, mode, target in itertools.product(RULES, MODES, TARGETS)
    if "bit" in mode or target in ("sm_90", "gfx942") or rule == "rmsprop"
]


@pytest.mark.parametrize(("rule", "mode", "target"), STEPS)
def test_step(rule, mode, target):
    storage, n, code = compiled(rule, mode, target)
    assert is_vectorised(code, storage, n, aligned=True)
    narrow = len(storage.quantized) == 1 and "float32" not in storage.streams
    assert n == (2 if storage.compute == "float64" else 8 if narrow else 4)  # 16 bytes of the compute type, or of narrow rows
    spills, most_registers = SPILLS.get((rule, mode, target), 0), registers(rule, storage, target)
    if not THIS_TRITON:
        spills = SPILLS_ELSEWHERE.get((rule, mode, target), spills)
        most_registers = REGISTERS_ELSEWHERE.get((rule, mode, target), most_registers)
    assert code.spilled <= spills
    assert code.spilled or not spills or not THIS_TRITON, "it spills no longer: take it out of SPILLS"
    assert spills or not any(opcode.startswith(("LDL", "STL", "scratch")) for opcode in code.loop)
    assert code.registers <= most_registers
    assert not code.shared or target == "gfx942" or not THIS_TRITON  # threads need not wait for each other
    instructions = multiprocessor(target).issued(code) / n
    for gpu in gpus(target):
        most = ARITHMETIC.get((rule, mode), [None] * len(NAMES))[NAMES.index(gpu.name)]
        found = limit(gpu, storage.traffic, instructions)
        if most is None:
            little = not THIS_TRITON and instructions <= 1.05 * found.issuable
            assert found.by == "memory" or little, (
                f"{instructions} instructions; {gpu.name} has time for {found.issuable}: make it fewer, or add it to ARITHMETIC"
            )
        else:
            assert instructions <= (most if THIS_TRITON else ARITHMETIC_ELSEWHERE.get((rule, mode, target), most))
            near = instructions > 0.95 * found.issuable  # with another Triton it may be beyond
            assert found.by == "arithmetic" or near or not THIS_TRITON, f"{gpu.name} has time for {instructions}: take it out of ARITHMETIC"
    if rule == "rmsprop" and target == "sm_90" and mode in PROMISED:
        n_bytes, most = PROMISED[mode]
        assert storage.traffic <= n_bytes
        assert instructions <= most + (0 if THIS_TRITON else 3)


def test_exceptions_are_known():
    assert set(ARITHMETIC) <= set(itertools.product(RULES, MODES))
    assert list(NAMES) == [gpu.name for target in TARGETS for gpu in gpus(target)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("rule", "dtype", "grad_dtype"),
    [("rmsprop", *pair) for pair in PAIRS] + [(rule, "bfloat16", "float32") for rule in list(RULES)[1:]],
)
def test_gradients_of_other_dtypes(rule, dtype, grad_dtype, target):
    """Streams of different widths: one access for each row that is read and each that is written."""
    storage, n, code = compiled(rule, dtype, target, grad_dtype)
    assert code.spilled == 0
    assert code.registers <= registers(rule, storage, target)
    assert sorted(code.accesses) == sorted(n * ITEMSIZE[name] for name in storage.streams)
    for gpu in gpus(target):
        assert limit(gpu, storage.traffic, multiprocessor(target).issued(code) / n).by == "memory"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", ["float32", "bfloat16+split+8bit"])
@pytest.mark.parametrize("rule", ["rmsprop", "rmsprop_centered_momentum", "smorms3"])
def test_unaligned(rule, mode, target):
    """At addresses that only the element divides, nothing may be wider than an element."""
    storage, n, code = compiled(rule, mode, target, aligned=False)
    lanes = 32 * ((target, rule, mode) == ("gfx942", "rmsprop_centered_momentum", "bfloat16+split+8bit"))  # scalars, as in SPILLS
    assert code.spilled <= lanes
    assert code.registers <= registers(rule, storage, target, aligned=False)
    assert is_vectorised(code, storage, n, aligned=False)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("aligned", [True, False])
def test_norm(dtype, aligned, target):
    gpu, constants = target_of(target), launch.squares_constants(dtype, aligned, n_hyper=17)
    code = read(build(squares_kernel, constants, gpu, "float64" if dtype == "float64" else "float32"))
    assert code.spilled == 0
    assert code.registers <= 64
    n = (1 << constants["LEVELS"]) // (constants["num_warps"] * gpu.warp_size)  # elements of a thread and row of lanes
    assert set(code.accesses) == {min(16, n * ITEMSIZE[dtype]) if aligned else ITEMSIZE[dtype]}
    if aligned:  # the loop may hold several rows
        each = multiprocessor(target).issued(code) / (sum(code.accesses) / ITEMSIZE[dtype])
        assert all(limit(known, ITEMSIZE[dtype], each).by == "memory" for known in gpus(target))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", ["float32", "bfloat16+split+8bit"])
def test_agreement(mode, target):
    """It reads what the step reads, by as wide accesses, and stores nothing but counts."""
    gpu, storage = target_of(target), variant("rmsprop_centered_momentum", mode).storage
    config = launch.gpu_config(storage)
    constants = launch.agreement_constants("rmsprop_centered_momentum", storage, True, config, gpu.warp_size)
    code = read(build(agreement_kernel, constants, gpu))
    assert code.spilled == 0
    assert code.registers <= 128
    n = config.block(storage) // config.threads
    assert set(code.accesses) <= {n * ITEMSIZE[dtype] for dtype in storage.streams} | {4}
    assert max(code.accesses) == n * max(ITEMSIZE[dtype] for dtype in storage.streams)


@pytest.mark.parametrize("target", TARGETS)
def test_norms(target):
    assert read(build(norms_kernel, launch.norms_constants(), target_of(target))).spilled == 0


def recipe_of(optimizer, options):
    optimizer = optimizer(parameters([(8,)], dtype=F32), **options)
    return optimizer.recipe(optimizer.param_groups[0])


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


def test_order_of_numbers_is_in_the_cache_key():
    """Triton does not see the fields of a NamedTuple: a kernel of another order must not be taken from its cache."""
    target = target_of("sm_90")
    constants = step_constants("rmsprop", variant("rmsprop", "float32").storage, True, target)
    hashes = {build(step_kernel, constants | {name: constants[name][::-1]}, target, "float32").hash for name in ("COMMON", "ARGS")}
    assert len(hashes | {build(step_kernel, constants, target, "float32").hash}) == 3


def test_every_rule_is_here():
    found = {name for name, one in rule.RULES.items() if one.function is getattr(launch.rules, name, None)}
    floored = {name for name in found if name.endswith("_floor")}  # each like another, but for one instruction
    assert set(RULES) == found - floored
    assert {f"{name}_floor" for name in RULES if name != "smorms3"} == floored
