"""The compiled kernels, executed: no bad access, the CPU driver's bits where nothing is approximated, the same in all configurations.

Under TRITON_INTERPRET=1 the interpreter takes the place of the compiled kernels.
"""

import hashlib
import itertools

import numpy as np
import pytest

from fusedrms.kernels import lang, launch
from fusedrms.kernels.rules import Common, RMSPropArgs
from fusedrms.tools.variants import MODES, RULES, variant
from ptx.compare import differing, of_other_classes
from ptx.launches import Launch
from ptx.norms import Squares
from ptx.opcodes import Approximate, fma
from ptx.stored import joined
from ptx.verdict import check
from sample import exhaustive

TARGETS = ("interpreter",) if lang.interpreted() else ("sm_80", "sm_90", "sm_100")
CASES = list(itertools.product(RULES, (*MODES, "float16+master", "float32+ema", "bfloat16+split+8bit+ema")))
SOME = [  # every rule, and every way to store a value
    ("rmsprop", "float32"),
    ("rmsprop_centered_momentum", "bfloat16+split+8bit"),
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
OTHERS = [(*case, target) for target in TARGETS for case in CASES if (*case, target) not in SOME]
STEPS = pytest.mark.parametrize(("rule", "mode", "target"), [*SOME, *(exhaustive(*case) for case in OTHERS)])

# every way in which a program may be cut to pieces; each rule and mode takes one of them for each target
CONFIGS = [
    launch.GPUConfig(0, threads, vectors, programs, 0)
    for (threads, vectors), programs in zip(itertools.product((64, 128, 256, 512, 1024), (1, 2, 4)), itertools.cycle((0, 3)), strict=False)
]

column = Common._fields.index  # of hyperparameters
ARGS = {name: len(Common._fields) + n for n, name in enumerate(RMSPropArgs._fields)}  # likewise


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
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("rule", "mode"), CASES)
def test_configurations(rule, mode, target):
    number = CASES.index((rule, mode)) + 5 * TARGETS.index(target)
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
@pytest.mark.parametrize("rule", RULES)
def test_masters_give_the_same_run(rule):
    split, whole = (Launch(rule, f"bfloat16+{kind}+8bit", "random") for kind in ("split", "master"))
    for t in range(len(split.numels)):
        for r in range(len(split.rows)):
            whole.memory[r][t] = split.memory[r][t]
        whole.memory[2][t] = joined([split.memory[1][t], split.memory[2][t]])
    for run in (Launch.on_cpu, Launch.on_gpu):
        a, b = run(split), run(whole)
        for t in range(len(split.numels)):
            assert np.array_equal(joined([a[1][t], a[2][t]]).view(np.int32), b[2][t].view(np.int32))


def test_a_variance_of_0_has_code_0():
    """Beside a tiny grad_avg, whose square underflows."""
    made = Launch("rmsprop_centered", "float32+8bit", "edge", numels=(64,))
    for row, (array,) in zip(made.rows, made.memory, strict=True):
        array[:] = dict(grad=0, param=0, variance=200, variance_2=1, grad_avg=100, grad_avg_2=2.0**-90)[row.name]
    made.memory[2][0][0] = 0
    made.groups[:] = 0
    assert made.on_cpu()[2][0][0] == made.on_gpu()[2][0][0] == 0


@pytest.mark.exhaustive
@pytest.mark.interpret
@pytest.mark.parametrize("mode", ["bfloat16+stochastic", "float16+stochastic", "bfloat16+stochastic+bf16", "bfloat16+split+8bit"])
def test_random_bits_beyond_2_to_the_32(mode):
    """They hang on the element's place alone, also where a chunk reaches over a multiple of 2**32."""
    made = Launch("rmsprop_momentum", mode, "random", straddles=True)
    cpu, gpu = made.on_cpu(), made.on_gpu()
    check(made, cpu, approximate=False)
    check(made, gpu, approximate=False)
    for chunk in (256, 1 << 14):
        assert not differing(made, made.on_cpu(chunk), cpu)
    for chunk in (1024, 1 << 14):
        assert not differing(made, made.on_gpu(made.default()._replace(chunk=chunk)), gpu)


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


def digest(rows) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for row in rows for array in row)).hexdigest()[:12]


# of the rows after a step, by the CPU driver, and by the compiled kernel whose approximations are rounded right
DIGESTS = {
    ("rmsprop", "float32"): ("cba2ae01ccdf", "b49e75c70621"),
    ("rmsprop", "float64"): ("f976b2aef6ec", "f976b2aef6ec"),
    ("rmsprop", "bfloat16+stochastic"): ("b495c642f08c", "b495c642f08c"),
    ("rmsprop", "bfloat16+split+8bit"): ("6d9e1b6a839f", "392d4893fc76"),
    ("rmsprop_momentum", "float32"): ("72f42c410146", "d01cada67bc5"),
    ("rmsprop_momentum", "float64"): ("055c792eca38", "055c792eca38"),
    ("rmsprop_momentum", "bfloat16+stochastic"): ("e248cffc4056", "a39490850e3b"),
    ("rmsprop_momentum", "bfloat16+split+8bit"): ("bd6f107e855a", "707fbebf73df"),
    ("rmsprop_centered", "float32"): ("a6a776b1f1bb", "426b77e176be"),
    ("rmsprop_centered", "float64"): ("41513753398d", "41513753398d"),
    ("rmsprop_centered", "bfloat16+stochastic"): ("862be932dbdb", "862be932dbdb"),
    ("rmsprop_centered", "bfloat16+split+8bit"): ("e7efc2d457de", "0f3d9b3a4cb1"),
    ("rmsprop_centered_momentum", "float32"): ("4d15bda6d14c", "12cd87d5c9c8"),
    ("rmsprop_centered_momentum", "float64"): ("640c05d671f2", "640c05d671f2"),
    ("rmsprop_centered_momentum", "bfloat16+stochastic"): ("ebe7e31bf893", "83a1b6173e82"),
    ("rmsprop_centered_momentum", "bfloat16+split+8bit"): ("d85adccfba12", "60cece151aee"),
    ("smorms3", "float32"): ("c8b1b7202287", "b4022e896377"),
    ("smorms3", "float64"): ("7d5701fd715b", "7d5701fd715b"),
    ("smorms3", "bfloat16+stochastic"): ("ccb3d8ec5aa6", "a9a5b289741c"),
    ("smorms3", "bfloat16+split+8bit"): ("3f86cf8c1768", "c2e02ba40edc"),
}


@pytest.mark.parametrize(("rule", "mode"), list(DIGESTS))
def test_no_version_changes_a_bit(rule, mode):
    """Of Python, NumPy, Numba, LLVM or Triton, nor a processor: the values come from integers alone, so they are the same everywhere."""
    made = Launch(rule, mode, "random")
    for target in TARGETS:
        assert (digest(made.on_cpu()), digest(made.on_gpu(target=target))) == DIGESTS[rule, mode]


def test_every_rule_has_digests():
    assert {rule for rule, _ in DIGESTS} == set(RULES)
