"""fusedrms inspect: what it reads in machine code, what it makes of it, and what it says of wrong arguments."""

import argparse
import io
import json

import pytest
from rich.console import Console

from fusedrms.kernels import lang
from fusedrms.tools import cpu_code, inspect, machine_code, roofline
from fusedrms.tools.errors import UserError
from fusedrms.tools.machine_code import Code, read_amdgcn, read_sass, target_of
from fusedrms.tools.variants import MODES, variant

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

needs_triton = pytest.mark.skipif(lang.triton is None, reason="Triton exists on Linux only")

USAGE = """
Resource usage:
 Function step_kernel:
  REG:32 STACK:8 SHARED:0 LOCAL:4 CONSTANT[0]:1000
"""
SASS = """
step_kernel:
.text.step_kernel:
        /*0000*/                   LDC R1, c[0x0][0x37c] ;
        /*0010*/                   LDG.E R4, desc[UR6][R2.64] ;
        /*0020*/              @!P3 BRA `(.L_x_0) ;
.L_x_1:
        /*0030*/                   LDG.E.128 R8, desc[UR6][R4.64] ;
        /*0040*/               @P0 LDG.E.64 R12, desc[UR6][R6.64] ;
        /*0050*/                   LDL R3, [R1] ;
        /*0060*/             @!UP0 FFMA.FTZ R8, R8, R9, R10 ;
        /*0070*/                   STG.E.U8 desc[UR6][R4.64], R8 ;
        /*0080*/                   STG.E desc[UR6][R6.64], R8 ;
        /*0090*/               @P2 BRA `(.L_x_1) ;
.L_x_0:
        /*00a0*/                   EXIT ;
.L_x_2:
        /*00b0*/                   BRA `(.L_x_2);
        /*00c0*/                   NOP;
.L_x_3:
"""
AMDGCN = """
step_kernel:                            ; @step_kernel
	s_load_dwordx4 s[4:7], s[0:1], 0x0
	s_cbranch_scc1 .LBB0_3
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
	global_load_dwordx4 v[2:5], v0, s[4:5]
	global_load_ushort v6, v0, s[6:7] offset:2
	s_waitcnt vmcnt(0)
	v_fma_f32 v2, v2, v3, v4 ; a comment
	ds_bpermute_b32 v9, v8, v7
	global_store_short_d16_hi v0, v2, s[6:7]
	global_store_byte v0, v2, s[6:7]
	s_cbranch_vccnz .LBB0_1
.LBB0_3:
	s_endpgm
amdhsa.kernels:
    .private_segment_fixed_size: 16
    .sgpr_spill_count: 1
    .vgpr_count:     57
    .vgpr_spill_count: 3
"""
# of float32 values a loop of vectors, what is left of them one by one, and around both the loop of chunks
X86 = """
_step:
.LBB0_1:
	movq	24(%rsp), %rax
.LBB0_2:
	vmovups	(%r13,%rdi,4), %ymm0
	vmulps	(%r12,%rdi,4), %ymm1, %ymm2
	vsqrtps	%ymm2, %ymm2
	vmovaps	-64(%rsp), %ymm3
	vmovups	%ymm0, (%r13,%rdi,4)
	vmovups	%ymm2, (%r12,%rdi,4)
	addq	$8, %rdi
	cmpq	%rdi, %r10
	jne	.LBB0_2
.LBB0_3:
	vmovss	(%r13,%rdi,4), %xmm0
	vmulss	(%r12,%rdi,4), %xmm1, %xmm2
	vmovss	%xmm0, (%r13,%rdi,4)
	vmovss	%xmm2, (%r12,%rdi,4)
	incq	%rdi
	jne	.LBB0_3
	decq	%rax
	jne	.LBB0_1
	retq
"""
ARM = """
_step:
.LBB0_2:
	ldp	q0, q1, [x8]
	fmul	v2.4s, v0.4s, v1.4s
	fsqrt	v2.4s, v2.4s
	ldr	q3, [sp, #16]
	stp	q0, q1, [x8], #32
	stp	q2, q3, [x9], #32
	subs	x10, x10, #8
	b.ne	.LBB0_2
	ret
"""


def arguments(text):
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    inspect.add_arguments(parser)
    return parser.parse_args(text.split())


def console():
    return Console(file=io.StringIO(), width=160)


def test_sass():
    code = read_sass(USAGE, SASS, shared=64)
    assert (code.registers, code.spilled, code.shared) == (32, 8 + 4 + 1, 64)
    assert code.loop == ["LDG.E.128", "LDG.E.64", "LDL", "FFMA.FTZ", "STG.E.U8", "STG.E", "BRA"]
    assert code.accesses == [16, 8, 1, 4]


def test_amdgcn():
    code = read_amdgcn(AMDGCN, shared=0)
    assert (code.registers, code.spilled) == (57, 16 + 1 + 3)
    assert len(code.loop) == 8
    assert code.accesses == [16, 2, 2, 1]
    assert roofline.multiprocessor("gfx942").issued(code) == 1


def test_no_loop():
    with pytest.raises(UserError, match="no loop"):
        read_sass(USAGE, SASS.partition(".L_x_1:")[0], shared=0)


def test_cpu_loops():
    storage = variant("rmsprop", "float32").storage
    assert cpu_code.read(X86, storage) == cpu_code.CPUCode(32, 9 / 8, 1)
    assert cpu_code.read(ARM, storage) == cpu_code.CPUCode(16, 8 / 8, 1)
    assert cpu_code.read(X86.replace("vmulps", "vmulss").replace("vsqrtps", "vsqrtss"), storage).width == 0
    # what it does not understand, it does not count
    assert cpu_code.read(X86.replace("vmovups	%ymm2", "vscatterdps	%ymm2"), storage) == cpu_code.CPUCode(32, None, None)
    assert cpu_code.read(ARM.replace("v2.4s", "z2.s"), storage) == cpu_code.CPUCode(None, None, None)


def test_this_cpu():
    """What goes through several loops, codes do, is not counted: the count of one of them would be too small."""
    plain, coded = inspect.rows(["rmsprop"], ["float32", "float32+8bit"], ["cpu"])
    assert plain.n_bytes == 20
    assert plain.vectorised
    assert not plain.problems
    assert coded.vectorised
    assert coded.instructions is None
    if plain.instructions is not None:
        assert 0.5 < plain.instructions < 50  # of 4 to 16 parameters at a time


@pytest.mark.parametrize(
    ("target", "registers", "threads", "shared", "warps"),
    [
        ("sm_90", 32, 256, 0, 64),
        ("sm_90", 33, 256, 0, 48),  # 40 registers each: 12 warps of a scheduler, and 6 programs of 8
        ("sm_90", 80, 256, 64, 24),
        ("sm_80", 32, 32, 0, 32),  # no more programs
        ("sm_80", 32, 256, 40000, 32),  # no more shared memory
        ("gfx942", 64, 256, 0, 32),
        ("gfx942", 100, 256, 64, 16),
    ],
)
def test_resident_warps(target, registers, threads, shared, warps):
    assert roofline.multiprocessor(target).resident(Code(registers, 0, shared, [], []), threads) == warps


def test_limit():
    gpu = roofline.GPU("X", "sm_90", memory=1e10, bandwidth=1e12, multiprocessors=100, clock=1e9)
    assert roofline.limit(gpu, 10, 64) == roofline.Limit("X", 128, "memory", 0.01, 1)
    assert roofline.limit(gpu, 10, 256) == roofline.Limit("X", 128, "arithmetic", 0.02, 0.5)


def test_every_number_has_a_source():
    data = roofline._data()
    for what in [*data["gpus"], *data["multiprocessors"].values()]:
        assert what["sources"]
        assert all(title and url.startswith("https://") for title, url in what["sources"])
    assert {gpu["target"] for gpu in data["gpus"]} == set(data["multiprocessors"]) == set(machine_code.TARGETS)


UNKNOWN = "is unknown: it must be cpu"


@pytest.mark.parametrize(("name", "said"), [("sm_9x", UNKNOWN), ("h100", UNKNOWN), ("gfx999", UNKNOWN), ("sm_99", "sm_90, sm_100")])
def test_wrong_target(name, said):
    if name == "sm_99" and lang.triton is None:
        pytest.skip("Triton says which exist")
    with pytest.raises(UserError, match=said):
        target_of(name)


def test_without_triton(monkeypatch):
    monkeypatch.setattr(lang, "triton", None)
    with pytest.raises(UserError, match="Linux"):
        target_of("sm_90")


def test_interpreter(monkeypatch):
    monkeypatch.setattr(lang, "interpreted", lambda: True)
    for target in ("sm_90", "cpu"):
        with pytest.raises(UserError, match="TRITON_INTERPRET"):
            next(inspect.rows(["rmsprop"], ["float32"], [target]))


@needs_triton
def test_missing_tool(monkeypatch):
    monkeypatch.setattr("triton.knobs.NvidiaTool.from_path", lambda path: None)
    with pytest.raises(UserError, match=r"nvdisasm is missing.*TRITON_NVDISASM_PATH"):
        machine_code._tool("nvdisasm")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--rule adam", "'adam'"),
        ("--mode float8", "'float8'"),
        ("--mode float64+8bit", "float64"),
        ("--rule ,", "at least"),
        ("--target ,", "at least"),
    ],
)
def test_wrong_arguments(text, said):
    with pytest.raises(UserError, match=said):
        inspect.run(arguments(text), console())


@needs_triton
def test_json(capsys):
    assert inspect.run(arguments("--target sm_90 --target gfx942 --rule rmsprop --mode float32 --json"), console()) == 0
    hopper, amd = json.loads(capsys.readouterr().out)
    assert [hopper["target"], amd["target"]] == ["sm_90", "gfx942"]
    assert [limit["gpu"] for limit in hopper["limits"]] == ["H100 SXM", "H200"]
    assert hopper["n_bytes"] == 20
    assert hopper["widths"] == [16]
    assert hopper["occupancy"] == 1
    assert hopper["limits"][1]["ns"] == pytest.approx(20 / 4.8e12 * 1e9)
    assert hopper["problems"] == amd["problems"] == []


@needs_triton
def test_text_and_files(tmp_path):
    shown = console()
    assert inspect.run(arguments(f"--target sm_90,cpu --rule rmsprop --mode float32 --unaligned --asm {tmp_path}/asm"), shown) == 0
    text = shown.file.getvalue()
    assert "sm_90, unaligned" in text
    assert "memory" in text
    found = {path.name: path.read_text() for path in (tmp_path / "asm").iterdir()}
    assert set(found) == {f"rmsprop.float32.sm_90.unaligned.{kind}" for kind in ("ll", "ttgir", "ptx", "sass")} | {
        "rmsprop.float32.cpu.ll",
        "rmsprop.float32.cpu.s",
    }
    assert "LDG.E" in found["rmsprop.float32.sm_90.unaligned.sass"]
    with pytest.raises(UserError, match="--asm"):
        inspect.dump("rmsprop", "float32", "sm_90", tmp_path / "asm" / next(iter(found)))


@needs_triton
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (Code(32, 8, 0, ["LDG.E.128"] * 3 + ["STG.E.128"] * 2, [16] * 5), "spills 8"),
        (Code(32, 0, 0, ["LDG.E"] * 12 + ["STG.E"] * 8, [4] * 20), "4"),
        (Code(32, 0, 0, ["LDG.E.128"] * 4 + ["STG.E.128"] * 2, [16] * 6), "accesses"),
    ],
)
def test_what_fails(code, said, monkeypatch):
    monkeypatch.setattr(machine_code, "read", lambda binary: code)
    shown = console()
    assert inspect.run(arguments("--target sm_90 --rule rmsprop --mode float32"), shown) == 1
    assert said in shown.file.getvalue()


@needs_triton
def test_several_processes(monkeypatch):
    monkeypatch.setattr(inspect, "FEW", 1)
    alone = inspect.row(variant("rmsprop", "float32"), "sm_90", True)
    found = list(inspect.rows(["rmsprop", "rmsprop_momentum"], ["float32"], ["sm_90"]))
    assert found[0] == alone
    assert [one.rule for one in found] == ["rmsprop", "rmsprop_momentum"]


def test_all_modes(monkeypatch):
    asked = []
    monkeypatch.setattr(inspect, "rows", lambda rules, modes, targets, aligned: asked.append((rules, modes, targets)) or iter(()))
    assert inspect.run(arguments("--mode all --rule smorms3"), console()) == 0
    assert asked == [(["smorms3"], MODES, machine_code.TARGETS)]
