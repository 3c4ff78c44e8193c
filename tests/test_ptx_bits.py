"""The bits of compiled kernels, executed: random ones hang on the element's place alone and are as good as independent, none changes."""

import hashlib

import numpy as np
import pytest

from fusedrms.kernels import lang
from fusedrms.kernels.gpu import values as interpreter
from fusedrms.tools.variants import RULES
from ptx.compare import differing
from ptx.launches import Launch
from ptx.stored import random_bits
from ptx.verdict import check
from sample import exhaustive

pytestmark = pytest.mark.skipif(
    lang.interpreted() and not interpreter.puts_back(), reason="Numba compiles nothing once this Triton's interpreter has run"
)
TARGETS = ("interpreter",) if lang.interpreted() else ("sm_80", "sm_90", "sm_100")


@pytest.mark.parametrize("seed", [8, 22])
def test_random_bits_are_independent(seed):
    """Of the four elements that share a word, of the four streams, of words that lie near: beyond chance no two are correlated.

    Nor are their squares, nor single bits.
    """
    n = 2**16  # words
    keys = np.random.default_rng(seed).integers(0, 2**32, 2, np.uint32)
    drawn = np.stack([random_bits(keys, 0, np.arange(4 * n), stream) for stream in range(4)])
    columns = drawn.reshape(4, n, 4).swapaxes(1, 2).reshape(16, n).astype(np.float32)
    assert np.abs(columns.mean(axis=1) - 32767.5).max() < 5 * 2**16 / np.sqrt(12 * n)
    for values in (columns, (columns - 2**15) ** 2, columns // 2**15, columns // 2**8 % 2, columns % 2):
        values = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
        for distance in (0, 1, 2, 3, 6, 12):
            # not as matrices, whose product would take threads
            correlations = np.einsum("an,bn->ab", values, np.roll(values, distance, axis=1)) / n
            assert np.abs(correlations - np.eye(16) * (distance == 0)).max() < 5 / np.sqrt(n), distance


@pytest.mark.exhaustive
@pytest.mark.interpret
@pytest.mark.parametrize(
    "mode", ["bfloat16+stochastic", "float16+stochastic", "bfloat16+stochastic+bf16", "bfloat16+split+8bit", "bfloat16+split24+4bit"]
)
def test_random_bits_beyond_2_to_the_32(mode):
    """They hang on the element's place alone, also where a chunk reaches over a multiple of 2**32."""
    made = Launch("rmsprop_momentum", mode, "random", straddles=True)
    assert set(made.shard_offset % 4) == {1, 2, 3}
    cpu, gpu = made.on_cpu(), made.on_gpu()
    check(made, cpu, approximate=False)
    check(made, gpu, approximate=False)
    for chunk in (256, 1 << 14):
        assert not differing(made, made.on_cpu(chunk), cpu)
    for chunk in (1024, 1 << 14):
        assert not differing(made, made.on_gpu(made.default()._replace(chunk=chunk)), gpu)


@pytest.mark.interpret
@pytest.mark.parametrize("mode", ["bfloat16+stochastic+bf16", "bfloat16+split24"])
def test_shards_give_the_bits_of_the_whole(mode):
    """Wherever they begin: also at no multiple of the four elements that share a random word."""
    starts = np.array([0, 1, 6, 135, 200])
    whole, shards = (
        Launch("rmsprop", mode, "random", (1000,)),
        Launch("rmsprop", mode, "random", np.diff(starts, append=1000), straddles=True),
    )
    shards.memory = [np.split(row[0], starts[1:]) for row in whole.memory]
    shards.shard_offset = whole.shard_offset + starts
    for name in ("groups", "norm_index", "random_key"):
        setattr(shards, name, np.repeat(getattr(whole, name), len(starts), axis=0))
    for run in (Launch.on_cpu, Launch.on_gpu):
        for (row,), parts in zip(run(whole), run(shards), strict=True):
            assert np.array_equal(row, np.concatenate(parts))


def digest(rows) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for row in rows for array in row)).hexdigest()[:12]


# of the rows after a step, by the CPU driver, and by the compiled kernel whose approximations are rounded right
DIGESTS = {
    ("rmsprop", "float32"): ("cba2ae01ccdf", "b49e75c70621"),
    ("rmsprop", "float64"): ("f976b2aef6ec", "f976b2aef6ec"),
    ("rmsprop", "bfloat16+stochastic"): ("15fef1fc37e8", "15fef1fc37e8"),
    ("rmsprop", "bfloat16+split+8bit"): ("f711f4e812af", "891dcf25ff46"),
    ("rmsprop_momentum", "float32"): ("72f42c410146", "d01cada67bc5"),
    ("rmsprop_momentum", "float64"): ("055c792eca38", "055c792eca38"),
    ("rmsprop_momentum", "bfloat16+stochastic"): ("ca27810e4b82", "96944b2b2728"),
    ("rmsprop_momentum", "bfloat16+split+8bit"): ("03de945bfae6", "082ccd03906b"),
    ("rmsprop_centered", "float32"): ("a6a776b1f1bb", "426b77e176be"),
    ("rmsprop_centered", "float64"): ("41513753398d", "41513753398d"),
    ("rmsprop_centered", "bfloat16+stochastic"): ("893659485581", "dfe0e8379dd8"),
    ("rmsprop_centered", "bfloat16+split+8bit"): ("d62e398a5224", "55ebec0ae1ff"),
    ("rmsprop_centered_momentum", "float32"): ("4d15bda6d14c", "12cd87d5c9c8"),
    ("rmsprop_centered_momentum", "float64"): ("640c05d671f2", "640c05d671f2"),
    ("rmsprop_centered_momentum", "bfloat16+stochastic"): ("e9fb9e13e20d", "b1a6dea1c468"),
    ("rmsprop_centered_momentum", "bfloat16+split+8bit"): ("ab9685eb7bad", "c2b31ef9b577"),
    ("rmsprop_centered_momentum", "bfloat16+split24+4bit"): ("1d1b22850773", "0e2171209e19"),
    ("smorms3", "float32"): ("c8b1b7202287", "b4022e896377"),
    ("smorms3", "float64"): ("7d5701fd715b", "7d5701fd715b"),
    ("smorms3", "bfloat16+stochastic"): ("d7dbd84cfd7f", "7192b8475fe5"),
    ("smorms3", "bfloat16+split+8bit"): ("e7a22ae013a3", "5c28735cef57"),
    ("smorms3", "bfloat16+stochastic+4bit"): ("535882793722", "db735515916d"),
}


@pytest.mark.parametrize(("rule", "mode"), [exhaustive(*case) if "4bit" in case[1] else case for case in DIGESTS])
def test_no_version_changes_a_bit(rule, mode):
    """Of Python, NumPy, Numba, LLVM or Triton, nor a processor: the values come from integers alone, so they are the same everywhere."""
    made = Launch(rule, mode, "random")
    for target in TARGETS:
        assert (digest(made.on_cpu()), digest(made.on_gpu(target=target))) == DIGESTS[rule, mode]


def test_every_rule_has_digests():
    assert {rule for rule, _ in DIGESTS} == set(RULES)
