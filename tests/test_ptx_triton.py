"""What Triton compiles, run by the machine: right beside NumPy, and a fault where it is broken on purpose."""

import re

import numpy as np
import pytest
import triton
import triton.language as tl
from triton.compiler import ASTSource

from fusedrms.kernels import lang
from fusedrms.tools.machine_code import target_of

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from ptx.compare import differing
from ptx.launches import Launch
from ptx.machine import run
from ptx.memory import Fault, Memory
from ptx.verdict import check


@triton.jit
def softmax_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr, OFF_BY_ONE: tl.constexpr):
    row, offsets = tl.program_id(0), tl.arange(0, BLOCK)
    mask = offsets < n + OFF_BY_ONE
    x = tl.load(x_ptr + row * n + offsets, mask=mask, other=-float("inf"))
    x = x - tl.max(x, axis=0)
    y = x * x + 1.0
    tl.store(y_ptr + row * n + offsets, tl.sum(tl.where(mask, y, 0.0), axis=0) / y, mask=mask)


def softmax(n, warps, off_by_one=0, divisible=False, beyond=0):
    signature = dict(x_ptr="*fp32", y_ptr="*fp32", n="i32", BLOCK="constexpr", OFF_BY_ONE="constexpr")
    attributes = {(argument,): [["tt.divisibility", 16]] for argument in range(3)} if divisible else None
    source = ASTSource(softmax_kernel, signature=signature, constexprs={(3,): 1024, (4,): off_by_one}, attrs=attributes)
    binary = triton.compile(source, target=target_of("sm_90"), options=dict(num_warps=warps, enable_fp_fusion=False))
    memory, x = Memory(), np.random.default_rng(0).standard_normal((3, n)).astype(np.float32)
    args = [memory.add("x", x, beyond), memory.add("y", np.zeros_like(x), written=False), n, 0, 0]
    run(binary.asm["ptx"], 3, args, memory, binary.metadata.shared)
    y = (x - x.max(axis=1, keepdims=True)).astype(np.float64) ** 2 + 1
    return memory.get("y"), y.sum(axis=1, keepdims=True) / y


@pytest.mark.parametrize("n", [1, 31, 777, 1024])
@pytest.mark.parametrize("warps", [1, 4, 8])
def test_reductions_of_triton(n, warps):
    found, exact = softmax(n, warps)
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_a_mask_that_is_off_by_one():
    with pytest.raises(Fault, match="out of bounds"):
        softmax(777, 4, off_by_one=1)


def test_a_hint_that_is_wrong():
    softmax(1024, 1, divisible=True)
    with pytest.raises(Fault, match="misaligned"):
        softmax(1024, 1, divisible=True, beyond=4)


def broken(made, pattern, replacement, aligned=True):
    """What a kernel computes in whose PTX all that matches is replaced."""
    ptx = made.binary(made.default(), aligned, "sm_90").asm["ptx"]
    other, n = re.subn(pattern, replacement, ptx)
    assert n
    return made.on_gpu(aligned=aligned, ptx=other)


@pytest.mark.parametrize("mode", ["float32+8bit", "bfloat16+split+8bit", "bfloat16+split24+4bit"])
def test_without_barriers(mode):
    """Where threads exchange values, as at addresses that are not aligned."""
    with pytest.raises(Fault, match=r"race|never written|same bytes"):
        broken(Launch("rmsprop_momentum", mode, "random"), r"\n\tbar.sync \t0;", "", aligned=False)


def test_masks():
    """`<` becomes `<=` in the last block."""
    with pytest.raises(Fault, match="out of bounds"):
        broken(Launch("rmsprop", "float32", "random"), r"setp.lt.u32 (\t%p1\d, %r\d+, %r\d+;)", r"setp.le.u32 \1")


def test_addresses_that_are_not_aligned():
    made = Launch("rmsprop", "float32", "random")
    with pytest.raises(Fault, match="misaligned"):
        made.on_gpu(aligned=False, ptx=made.binary(made.default(), True, "sm_90").asm["ptx"])


def test_a_contraction_the_other_way_round():
    """In one lane weight * grad * grad is fused instead of alpha * square_avg, as a compiler may like it: no error, but other bits."""
    made = Launch("rmsprop", "float32", "random")
    ptx = made.binary(made.default(), True, "sm_90").asm["ptx"]
    # weight * grad, then that * grad again, in whichever order the factors stand
    twice = re.compile(
        r"mul\.rn\.f32 \t(?P<weighted>%r\d+), (?P<a>%r\d+), (?P<b>%r\d+);(?:.|\n)*?"
        r"mul\.rn\.f32 \t(?P<product>%r\d+), (?:(?P=weighted), (?P<grad>(?P=a)|(?P=b))|(?P<other>(?P=a)|(?P=b)), (?P=weighted));"
    )
    found = next(match for start in re.finditer(r"mul\.rn\.f32", ptx) if (match := twice.match(ptx, start.start())))
    weighted, product, grad = found["weighted"], found["product"], found["grad"] or found["other"]
    after = broken(
        made,
        rf"fma\.rn\.f32 \t(%r\d+), (%r\d+), (%r\d+), {product};",
        rf"mul.rn.f32 \t\1, \2, \3;\n\tfma.rn.f32 \t\1, {weighted}, {grad}, \1;",
    )
    check(made, after, approximate=False)
    assert differing(made, after, made.on_gpu())["square_avg"]
