"""The compiled kernels, executed: no bad access, the CPU driver's bits where nothing is approximated, the same in all configurations.

Under TRITON_INTERPRET=1 the interpreter takes the place of the compiled kernels.
"""

import itertools

import numpy as np
import pytest

from fusedrms.kernels import lang, launch
from fusedrms.kernels.rules import Common, RMSPropNumbers
from fusedrms.tools.variants import MODES, RULES, variant
from ptx.compare import differing, of_other_classes
from ptx.launches import Launch
from ptx.norms import Squares
from ptx.opcodes import Approximate, fma
from ptx.stored import joined, master24
from ptx.verdict import check
from sample import exhaustive

TARGETS = ("interpreter",) if lang.interpreted() else ("sm_80", "sm_90", "sm_100")
# of masters of 24 bits and codes of 4 a few: nothing in them is the rule's
FEW = [("rmsprop", mode) for mode in MODES if "split24" in mode or "4bit" in mode]
FEW += [("smorms3", "bfloat16+stochastic+4bit"), ("rmsprop_centered_momentum", "bfloat16+split24+4bit")]
FEW = [(*case, target) for case, target in zip(FEW, itertools.cycle(TARGETS), strict=False)]
MANY = [mode for mode in MODES if "split24" not in mode and "4bit" not in mode]
MANY = itertools.product(RULES, (*MANY, "float16+master", "float32+ema", "bfloat16+split+8bit+ema"))
CASES = [  # without codes one target each: of theirs the code hardly differs
    *(
        (*case, target)
        for number, case in enumerate(MANY)
        for target in (TARGETS if "8bit" in case[1] else TARGETS[number % len(TARGETS) :][:1])
    ),
    *FEW,
]
SOME = [  # every rule, and every way to store a value
    ("rmsprop", "float32"),
    ("rmsprop_centered_momentum", "bfloat16+split24+4bit"),
    ("smorms3", "bfloat16+stochastic+8bit"),
    ("rmsprop_momentum", "float16+stochastic"),
    ("rmsprop_centered", "float64"),
    ("smorms3", "float16+master"),
    ("rmsprop", "bfloat16+stochastic+bf16"),
    ("rmsprop_centered", "bfloat16+split+bf16"),
    ("rmsprop_centered_momentum", "bfloat16+master+8bit"),
    ("rmsprop", "float32+ema"),
    ("rmsprop_centered", "bfloat16+split+8bit+ema"),
]
SOME = [(*case, TARGETS[len(TARGETS) // 2]) for case in SOME]
STEPS = pytest.mark.parametrize(("rule", "mode", "target"), [*SOME, *(exhaustive(*case) for case in CASES if case not in SOME)])

# every way in which a program may be cut to pieces; each rule and mode takes one of them for each target
CONFIGS = [
    launch.GPUConfig(0, threads, vectors, programs, 0)
    for (threads, vectors), programs in zip(itertools.product((64, 128, 256, 512, 1024), (1, 2, 4)), itertools.cycle((0, 3)), strict=False)
]

column = Common._fields.index  # of hyperparameters
ARGS = {name: len(Common._fields) + n for n, name in enumerate(RMSPropNumbers._fields)}  # likewise


def averages(made: Launch) -> set[str]:
    """The rows in which nothing is approximated: where they are not kept as codes, the averages; in float64, all."""
    coded = made.storage.quantized
    exact = ("square_avg", "grad_avg", "variance") if made.storage.compute == "float32" else [row.name for row in made.rows]
    return {row.name for row in made.rows if row.value not in coded and row.name in exact}


@pytest.mark.interpret
@STEPS
def test_step(rule, mode, target):
    exact, random = Launch(rule, mode, "exact"), Launch(rule, mode, "random")
    cpu_exact, cpu_random = exact.on_cpu(), random.on_cpu()
    check(random, cpu_random, approximate=False)
    found = {aligned: random.on_gpu(aligned=aligned, target=target) for aligned in (True, False)}
    check(random, found[True], approximate=False)
    assert not differing(random, found[True], found[False])
    assert not averages(random) & differing(random, found[True], cpu_random).keys()
    for aligned in (True, False):
        assert not differing(exact, exact.on_gpu(aligned=aligned, target=target), cpu_exact)
    if not lang.interpreted():
        worst = random.on_gpu(target=target, seed=1)  # approximations as bad as they may be
        check(random, worst)
        assert not averages(random) & differing(random, worst, cpu_random).keys()


@pytest.mark.interpret
@STEPS
def test_odd_values(rule, mode, target):
    """Zeros, infinities, NaN, what overflows or vanishes; and steps that are left out."""
    edge = Launch(rule, mode, "edge")
    cpu, gpu = edge.on_cpu(), edge.on_gpu(target=target)
    check(edge, cpu, approximate=False)
    check(edge, gpu, approximate=False)
    assert not of_other_classes(edge, gpu, cpu)
    assert not differing(edge, edge.on_gpu(aligned=False, target=target), gpu)
    for value in (1.0, np.nan, np.inf, -0.5):
        edge.scalars[0] = value
        assert not differing(edge, edge.on_gpu(target=target), edge.memory)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("rule", "mode", "target"), CASES)
def test_configurations(rule, mode, target):
    number = CASES.index((rule, mode, target))
    config, storage = CONFIGS[number % len(CONFIGS)], variant(rule, mode).storage
    config = config._replace(chunk=max(config.block(storage), 1024))
    assert launch.is_valid(config, storage)
    made = Launch(rule, mode, "random", numels=(1, 65, 0, 70, 1000, 2 * config.chunk + config.block(storage) // 2 + 3))
    assert not differing(made, made.on_gpu(config, aligned=number % 2 == 0, target=target), made.on_gpu(target=target)), config


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("rule", "mode", "config"),
    [
        ("rmsprop", "float32", launch.GPUConfig(2048, 256, 2, 0, 0)),
        ("rmsprop_centered", "float32", launch.GPUConfig(1024, 128, 1, 3, 0)),
        ("rmsprop_centered", "bfloat16+split+8bit", launch.GPUConfig(2048, 512, 1, 1, 0)),
        ("rmsprop_centered", "bfloat16+split24+4bit", launch.GPUConfig(1024, 64, 1, 3, 0)),
        ("smorms3", "bfloat16+stochastic", launch.GPUConfig(4096, 64, 4, 0, 0)),
    ],
)
def test_some_configurations(rule, mode, config):
    made = Launch(rule, mode, "random")
    for aligned in (True, False):
        assert not differing(made, made.on_gpu(config, aligned), made.on_gpu())


def test_whole_blocks_and_the_last():
    """Equal elements of one tensor come out equal, wherever they lie."""
    made = Launch("rmsprop_centered", "float32", "random", numels=(2 * 1024 + 513,))
    for (array,) in made.memory:
        array[:] = array[5]
    for (array,) in made.on_gpu():
        assert len(set(array.view(np.int32).tolist())) == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize(("rule", "kind"), [*((rule, "split") for rule in RULES), ("rmsprop", "split24")])
def test_masters_give_the_same_run(rule, kind):
    """But for the rounding of 24 bits."""
    split, whole = (Launch(rule, f"bfloat16+{kind}+8bit", "random") for kind in (kind, "master"))
    for t in range(len(split.numels)):
        for r in range(len(split.rows)):
            whole.memory[r][t] = split.memory[r][t]
        whole.memory[2][t] = joined([split.memory[1][t], split.memory[2][t]])
    for run in (Launch.on_cpu, Launch.on_gpu):
        a, b = run(split), run(whole)
        for t in range(len(split.numels)):
            master = master24(b[2][t], split.noise(t, 1)) if kind == "split24" else b[2][t]
            assert np.array_equal(joined([a[1][t], a[2][t]]).view(np.int32), master.view(np.int32))


def test_a_variance_of_0_has_code_0():
    """Beside a tiny grad_avg, whose square underflows."""
    made = Launch("rmsprop_centered", "float32+8bit", "edge", numels=(64,))
    for row, (array,) in zip(made.rows, made.memory, strict=True):
        array[:] = dict(grad=0, param=0, variance=200, variance_2=1, grad_avg=100, grad_avg_2=2.0**-90)[row.name]
    made.memory[2][0][0] = 0
    made.groups[:] = 0
    assert made.on_cpu()[2][0][0] == made.on_gpu()[2][0][0] == 0


@pytest.mark.interpret
@pytest.mark.parametrize(
    ("rule", "mode", "eps"),
    [*itertools.product(RULES, ["float32"], (0.0, 1e-45, 1e-39)), *itertools.product(RULES, ["float64"], (0.0, 1e-310))],
)
def test_no_eps_is_too_small(rule, mode, eps):
    """A gradient of 0 beside an average of 0 moves nothing, on either driver."""
    made = Launch(rule, mode, "exact", eps=eps)
    for row, arrays in zip(made.rows, made.memory, strict=True):
        for array in arrays:
            array[:] = dict(param=3, mem=1).get(row.name, 0)
    made.hyper[:, column("decoupled_weight_decay")] = 0
    for after in (made.on_cpu(), made.on_gpu(), made.on_gpu(seed=2)):
        assert all((array == 3).all() for array in after[1])


@pytest.mark.interpret
@pytest.mark.parametrize("eps", [1e-45, 1e-40, 1e-38])
def test_an_eps_inside_of_the_root_is_not_flushed(eps):
    made = Launch("rmsprop", "float32", "exact", numels=(1,))
    made.hyper[:, [ARGS["eps_inside"], ARGS["eps_outside"], column("lr"), column("decoupled_weight_decay")]] = eps, 0, 1e-3, 0
    for row, (array,) in zip(made.rows, made.memory, strict=True):
        array[:] = dict(grad=1e-23).get(row.name, 0)
    np.testing.assert_allclose(made.on_cpu()[1][0], -1e-26 / 2.0**-63, rtol=1e-6)
    np.testing.assert_allclose(made.on_gpu()[1][0], made.on_cpu()[1][0], rtol=1e-6)


@pytest.mark.parametrize(
    ("rule", "mode"),
    [
        ("rmsprop", "float32"),
        ("rmsprop_centered", "float64"),
        ("rmsprop_momentum", "bfloat16+stochastic"),
        ("rmsprop_centered_momentum", "float32"),
    ],
)
def test_a_root_that_is_no_less_than_its_floor(rule, mode):
    for kind in ("random", "edge"):
        made = Launch(rule, mode, kind)
        made.rule += "_floor"
        made.hyper[:, [ARGS["eps_inside"], ARGS["eps_outside"]]] = 0, 0.5
        cpu, gpu = made.on_cpu(), made.on_gpu()
        check(made, gpu, approximate=False)
        assert not averages(made) & differing(made, gpu, cpu).keys()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("mode", "grad_dtype"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "bfloat16"), ("float64", "float32")]
)
def test_gradients_of_other_dtypes(mode, grad_dtype):
    for kind in ("random", "edge"):
        made = Launch("rmsprop", mode, kind, grad_dtype=grad_dtype)
        cpu = made.on_cpu()
        for aligned in (True, False):
            found = made.on_gpu(aligned=aligned)
            check(made, found, approximate=False)
            assert not averages(made) & differing(made, found, cpu).keys()


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_a_weight_that_one_step_would_round_wrong(seed):
    """Of SMORMS3: 1 / (mem + 1), where its second step is needed."""
    y = np.float32(2) + np.arange(0, 2**23, 2, dtype=np.float32) * np.float32(2.0**-22)
    root = Approximate(seed).rsqrt(y)
    r = root * root
    hard = y[fma(fma(-y, r, np.float32(1)), r, r) != np.float32(1) / y]
    assert len(hard)
    made = Launch("smorms3", "float32", "random", numels=(len(hard),))
    made.memory[-1][0][:] = hard - np.float32(1)
    assert not averages(made) & differing(made, made.on_gpu(seed=seed), made.on_cpu()).keys()


@pytest.mark.parametrize(
    ("dtype", "target"),
    [("float32", "sm_90"), ("bfloat16", "sm_90")]
    + [exhaustive(dtype, target) for dtype in ("float32", "bfloat16", "float16", "float64") for target in TARGETS],
)
@pytest.mark.parametrize("odd", [False, True])
def test_norms(dtype, target, odd):
    """The CPU's bits, whatever the warps and the alignment; the sums to float32's rounding."""
    made = Squares(dtype, odd=odd)
    with np.errstate(all="ignore"):
        sums, norms = made.on_cpu()
        right = made.exact()
        fine = np.abs(sums - right) <= 40 * 2.0 ** (-53 if dtype == "float64" else -24) * right + 16 * 2.0**-149
        assert (fine | (sums == right) | ~np.isfinite(right.astype(made.compute))).all()
        np.testing.assert_allclose(norms, made.exact_norms(sums), rtol=1e-14)
        for warps, aligned in itertools.product((1, 4, 8), (True, False)):
            for a, b in zip(made.on_gpu(warps, aligned, target), (sums, norms), strict=True):
                assert np.array_equal(a.view(np.int64), b.view(np.int64)) or np.array_equal(a, b, equal_nan=True)
