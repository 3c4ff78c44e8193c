"""The machine itself: hand-written PTX, its numbers and its faults."""

import numpy as np
import pytest

from fusedrms.kernels import lang

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from ptx.machine import run
from ptx.memory import Fault, Memory
from ptx.opcodes import Approximate, fma

HEAD = """.version 8.7
.target sm_90a
.address_size 64
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u64 .ptr .global .align 1 kernel_param_1
)
.reqntid %d
{
	.reg .pred 	%%p<9>;
	.reg .b16 	%%rs<9>;
	.reg .b32 	%%r<99>;
	.reg .b64 	%%rd<99>;
	ld.param.b64 	%%rd1, [kernel_param_0];
	ld.param.b64 	%%rd2, [kernel_param_1];
	mov.u32 	%%r1, %%tid.x;
	mov.u32 	%%r2, %%ctaid.x;
%s
	ret;
}
"""


def launched(body, source, target, threads=32, grid=1, shared=0, beyond=0, written=True):
    """What a body makes of two arrays, whose addresses are in %rd1 and %rd2."""
    memory = Memory()
    args = [memory.add("source", source, beyond), memory.add("target", target, written=written)]
    run(HEAD % (threads, body), grid, args, memory, shared)
    return memory.get("target")


def one_by_one(opcode, *columns, result=np.uint32):
    """An opcode on columns of numbers, thread by thread; 32 bits in, 32 out."""
    n = len(columns[0])
    source = np.stack([np.asarray(column).view(np.uint32) for column in columns])
    lines = ["mad.wide.u32 %rd3, %r1, 4, %rd1;", "mad.wide.u32 %rd4, %r1, 4, %rd2;", f"setp.ge.u32 %p1, %r1, {n};", "@%p1 bra $L_end;"]
    for k in range(len(columns)):
        lines.append(f"ld.global.b32 {{ %r{10 + k} }}, [ %rd3 + {4 * n * k} ];")
    lines += [
        f"{opcode} %r20, {', '.join(f'%r{10 + k}' for k in range(len(columns)))};",
        "st.global.b32 [ %rd4 + 0 ], { %r20 };",
        "$L_end:",
    ]
    return launched("\n".join(lines), source, np.zeros(n, np.uint32), threads=-(-n // 32) * 32).view(result)


def floats(numbers):
    return np.array(numbers, np.float32)


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("opcode", "columns", "expected"),
    [
        ("sqrt.approx.ftz.f32", [floats([0, -0.0, 4, 1e-40, -1e-40, -1, INF, NAN])], floats([0, -0.0, 2, 0, -0.0, NAN, INF, NAN])),
        ("rsqrt.approx.ftz.f32", [floats([0, -0.0, 4, 1e-40, -1e-40, -1, INF, NAN])], floats([INF, -INF, 0.5, INF, -INF, NAN, 0, NAN])),
        ("div.full.f32", [floats([1, 1, 0, INF, 1]), floats([0, -0.0, 0, INF, INF])], floats([INF, -INF, NAN, NAN, 0])),
        ("min.f32", [floats([NAN, 1, -0.0, 0, NAN]), floats([2, NAN, 0, -0.0, NAN])], floats([2, 1, -0.0, -0.0, NAN])),
        ("max.f32", [floats([NAN, 1, -0.0, 0, 5]), floats([2, NAN, 0, -0.0, 6])], floats([2, 1, 0, 0, 6])),
        ("min.NaN.f32", [floats([NAN, 1, -0.0, 3]), floats([2, NAN, 0, 4])], floats([NAN, NAN, -0.0, 3])),
        ("max.NaN.f32", [floats([NAN, 1, -0.0, 3]), floats([2, NAN, 0, 4])], floats([NAN, NAN, 0, 4])),
        ("min.NaN.xorsign.abs.f32", [floats([NAN, -1, 3, -3, -0.0]), floats([2, 2, -2, -4, 1])], floats([NAN, -1, -2, 3, -0.0])),
        ("div.rn.ftz.f32", [floats([1, 1e-40, 1e-38, 1]), floats([3, 1, 8, 1e-40])], floats([1 / 3, 0, 0, INF])),
        ("cvt.rmi.ftz.f32.f32", [floats([1.5, -1.5, 1e-40, -1e-40, INF, -0.5])], floats([1, -2, 0, -0.0, INF, -1])),
        (
            "fma.rn.f32",
            [floats([1 + 2**-12, 1e30, INF]), floats([1 - 2**-12, 1e30, 0]), floats([-1, -INF, 1])],
            floats([-(2.0**-24), -INF, NAN]),
        ),
        ("neg.f32", [floats([0, -0.0, 1e-40])], floats([-0.0, 0, -1e-40])),
        ("mul.f32", [floats([1e-20, 3e38, 0]), floats([1e-20, 2, INF])], floats([1e-40, INF, NAN])),
    ],
)
def test_floats(opcode, columns, expected):
    found = one_by_one(opcode, *columns, result=np.float32)
    assert np.array_equal(found.view(np.int32)[~np.isnan(expected)], expected.view(np.int32)[~np.isnan(expected)])
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert (found.view(np.uint32)[np.isnan(found)] == 0x7FFFFFFF).all()


@pytest.mark.parametrize(
    ("opcode", "columns", "expected"),
    [
        ("cvt.rzi.s32.f32", [floats([1.9, -1.9, NAN, 3e9, -3e9, INF]).view(np.int32)], [1, -1, 0, 2**31 - 1, -(2**31), 2**31 - 1]),
        ("cvt.rzi.u32.f32", [floats([1.9, -1.9, NAN, 5e9, 3e9]).view(np.int32)], [1, 0, 0, 2**32 - 1, 3000000000]),
        ("shl.b32", [[1, 1, 1, 3], [31, 32, 2**31, 0]], [2**31, 0, 0, 3]),
        ("shr.u32", [[2**31, 2**31, 7], [31, 32, 1]], [1, 0, 3]),
        ("shr.s32", [[-8, -8, 8], [1, 99, 40]], [-4, -1, 0]),
        ("bfe.u32", [[0xABCD1234, 0xFF, 0xFFFFFFFF], [8, 4, 31], [8, 0, 5]], [0x12, 0, 1]),
        ("bfe.s32", [[0x40, 0x40, -256, 7, 0x7FFF0000, -1], [6, 5, 4, 0, 16, 40], [1, 2, 8, 0, 32, 4]], [-1, -2, -16, 0, 0x7FFF, -1]),
        ("prmt.b32", [[0x33221100, 0x80, 0x11], [0x77665544, 0, 0x22], [0x7250, 0x8880, 0x0004]], [0x77225500, 0xFFFFFF80, 0x11111122]),
        ("mul.lo.s32", [[-3, 2**31 - 1], [5, 2]], [-15, -2]),
        ("mad.wide.s16", [[-3, 2**15 - 1], [256, 2], [1, -1]], [-767, 2**16 - 3]),
        ("mad.wide.u16", [[2**16 - 3, 5], [2, 4], [1, 0]], [2**17 - 5, 20]),
        ("min.s32", [[-1, 5], [1, 4]], [-1, 4]),
        ("min.u32", [[-1, 5], [1, 4]], [1, 4]),
        ("add.s16x2", [[0x0001FFFF, 0x7FFF8000], [0x00010001, 0x00018000]], [0x00020000, 0x80000000]),
        ("min.s16x2", [[0x0001FFFF, 0x7FFF8000], [0xFFFF0000, 0x00017FFF]], [0xFFFFFFFF, 0x00018000]),
        ("max.u16x2", [[0x0001FFFF], [0xFFFF0000]], [0xFFFFFFFF]),
        (
            "cvt.rn.bf16x2.f32",
            [floats([1, NAN, 3.4e38]).view(np.int32), floats([1.00390625, 1.01171875, -0.0]).view(np.int32)],
            [0x3F803F80, 0x7FFF3F82, 0x7F808000],
        ),
        (
            "cvt.rn.f16x2.f32",
            [floats([65504, 65520, 2**-25]).view(np.int32), floats([1, NAN, 2**-24]).view(np.int32)],
            [0x7BFF3C00, 0x7C007FFF, 0x00000001],
        ),
    ],
)
def test_integers(opcode, columns, expected):
    to_bits = lambda numbers: (np.asarray(numbers, np.int64) % 2**32).astype(np.uint32)  # noqa: E731
    assert np.array_equal(one_by_one(opcode, *map(to_bits, columns)), to_bits(expected))


def test_fma_rounds_once():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(10_000).astype(np.float32) for _ in range(2))
    c = -(a.astype(np.float64) * b).astype(np.float32) * rng.choice([1, 1 + 2.0**-22, 2.0**-20], 10_000).astype(np.float32)
    exact = a.astype(np.longdouble) * b + c  # 64 bits hold it but for rare cases, which rounding to 24 does not see
    assert np.array_equal(fma(a, b, c), exact.astype(np.float32))
    assert fma(np.float64(1 + 2.0**-30), np.float64(1 - 2.0**-30), np.float64(-1)) == -(2.0**-60)


def test_approximations_stay_within_their_bounds():
    x = np.exp2(np.random.default_rng(0).uniform(-120, 120, 100_000)).astype(np.float32)
    wide = x.astype(np.float64)
    for name, exact, bound in (("sqrt", np.sqrt(wide), 2.0**-23), ("rsqrt", 1 / np.sqrt(wide), 2.0**-22.9)):
        found = [getattr(Approximate(seed), name)(x).astype(np.float64) for seed in (None, 1, 2)]
        errors = [np.abs(one / exact - 1).max() for one in found]
        assert errors[0] <= 2.0**-24 < errors[1] <= bound
        assert (found[1] != found[2]).any()


def test_threads_part_and_meet():
    """A loop of as many rounds as the thread's number, with an if inside; then all shuffle."""
    body = """
	mov.b32 %r10, 0;
	mov.b32 %r11, 0;
	setp.eq.s32 %p1, %r1, 0;
	@%p1 bra $L_done;
$L_loop:
	and.b32 %r12, %r11, 1;
	setp.eq.s32 %p2, %r12, 0;
	@%p2 bra $L_even;
	add.s32 %r10, %r10, 100;
	bra $L_next;
$L_even:
	add.s32 %r10, %r10, 1;
$L_next:
	add.s32 %r11, %r11, 1;
	setp.lt.s32 %p3, %r11, %r1;
	@%p3 bra $L_loop;
$L_done:
	shfl.sync.bfly.b32 %r13, %r10, 1, 31, -1;
	mad.wide.u32 %rd4, %r1, 4, %rd2;
	st.global.b32 [ %rd4 + 0 ], { %r13 };"""
    found = launched(body, np.zeros(1, np.int32), np.zeros(64, np.int32), threads=64)
    own = np.array([(t + 1) // 2 + 100 * (t // 2) for t in range(64)])
    assert np.array_equal(found, own[np.arange(64) ^ 1])


LOAD = "mad.wide.u32 %rd3, %r1, 4, %rd1;\nld.global.b32 { %r10 }, [ %rd3 + 0 ];\nmad.wide.u32 %rd4, %r1, 4, %rd2;\n"
STORE = "st.global.b32 [ %rd4 + 0 ], { %r10 };"
SHARED = "shl.b32 %r11, %r1, 2;\nst.shared.b32 [ %r11 + 0 ], %r10;\nBARRIER\nxor.b32 %r12, %r11, 128;\nld.shared.b32 %r10, [%r12];\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (LOAD + STORE, None),
        (LOAD + SHARED.replace("BARRIER", "bar.sync 0;") + STORE, None),
        (LOAD + SHARED.replace("BARRIER", "") + STORE, "never written|races"),
        ("mad.wide.u32 %rd3, %r1, 4, %rd1;\nld.global.v2.b32 { %r10, %r11 }, [ %rd3 + 0 ];", "misaligned"),
        (LOAD + "st.global.b32 [ %rd4 + 4 ], { %r10 };", "out of bounds"),
        (LOAD + "st.global.b32 [ %rd2 + 0 ], { %r10 };", "two threads write"),
        (LOAD + "ld.global.b32 { %r11 }, [ %rd4 + 0 ];", "never written"),
        (LOAD + "shl.b32 %r11, %r1, 2;\nld.shared.b32 %r10, [%r11];", "never written"),
        (LOAD + "shl.b32 %r11, %r1, 2;\nst.shared.b32 [ %r11 + 4 ], %r10;", "outside"),
        (LOAD + "st.shared.b32 [ 0 ], %r10;", "unknown form"),
        (LOAD + "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $L_a;\nbar.sync 0;\n$L_a:\n" + STORE, "barrier"),
        (LOAD + "setp.lt.u32 %p1, %r1, 16;\n@%p1 shfl.sync.bfly.b32 %r11, %r10, 1, 31, -1;", "warp are missing"),
        (LOAD + "ex2.approx.ftz.f32 %r11, %r10;", "unknown instruction"),
        (LOAD + "add.s32 %r10, %r77, 1;", "never written"),
        (LOAD + "ld.global.b32 { %r11 }, [ %rd1 + 0 ];\nst.global.b32 [ %rd3 + 0 ], { %r11 };", "write races with a read"),
    ],
)
def test_faults(body, message):
    """Each of a kind that a GPU traps on, or does not notice."""
    source, target = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    if message is None:
        launched(body, source, target, threads=64, shared=256, written=False)
        return
    with pytest.raises(Fault, match=message):
        launched(body, source, target, threads=64, shared=256, written=False)


def test_races_between_blocks():
    """One block reads what another writes."""
    body = """
	mad.wide.u32 %rd3, %r2, 128, %rd2;
	mad.wide.u32 %rd3, %r1, 4, %rd3;
	ld.global.b32 { %r10 }, [ %rd2 + 0 ];
	st.global.b32 [ %rd3 + 0 ], { %r10 };"""
    with pytest.raises(Fault, match="write races with a read"):
        launched(body, np.zeros(1, np.int32), np.zeros(64, np.int32), grid=2)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices(count):
    """As stmatrix stores them, row by row where lanes say, and as ldmatrix gets them back."""
    registers = [f"%r{20 + m}" for m in range(count)]
    listed = "{" + ", ".join(registers) + "}"
    body = [f"mad.lo.s32 {register}, %r1, 1, {1000 * m};" for m, register in enumerate(registers)]
    body += ["xor.b32 %r10, %r1, 3;", "shl.b32 %r10, %r10, 4;"]  # the rows of each four the other way round
    body += [f"stmatrix.sync.aligned.m8n8.x{count}.shared.b16 [%r10], {listed};", "bar.sync 0;"]
    if count > 1:
        body += [f"ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {{%r30, %r31{', %r32, %r33' * (count == 4)}}}, [%r10];"]
        body += ["mad.wide.u32 %rd3, %r1, 4, %rd2;", "st.global.b32 [ %rd3 + 512 ], { %r31 };"]
    body += [f"setp.lt.u32 %p1, %r1, {8 * count};", "shl.b32 %r11, %r1, 4;", "mad.wide.u32 %rd4, %r1, 16, %rd2;"]
    body += ["@%p1 ld.shared.v4.b32 {%r40, %r41, %r42, %r43}, [%r11];", "@%p1 st.global.v4.b32 [ %rd4 + 0 ], {%r40, %r41, %r42, %r43};"]
    found = launched("\n".join(body), np.zeros(1, np.int32), np.zeros(256, np.int32), shared=512)
    matrices = (1000 * np.arange(count)[:, None] + np.arange(32)).reshape(8 * count, 4)
    assert np.array_equal(found[: 32 * count].reshape(-1, 4), matrices[np.arange(8 * count) ^ 3])
    assert count == 1 or np.array_equal(found[128:160], 1000 + np.arange(32))
