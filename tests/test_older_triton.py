"""Triton before 3.7, in one thing that it does otherwise: what a jit function returns is a tensor there, even a constant.

And what our constexpr functions, which return constants to every Triton, may read.
"""

import inspect

import pytest
import triton
from triton._C.libtriton import ir
from triton.compiler.code_generator import CodeGenerator
from triton.compiler.compiler import make_backend

from fusedrms.kernels import lang
from fusedrms.tools.errors import UserError
from fusedrms.tools.machine_code import build, step_constants, target_of
from fusedrms.tools.variants import MODES, variant
from sample import exhaustive

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)
if not hasattr(CodeGenerator, "decide_return_type"):
    pytest.skip("this Triton is as old, or is not known", allow_module_level=True)

from fusedrms.kernels.gpu import memory
from fusedrms.kernels.gpu.step import step_kernel

SAMPLE = ("float32", "bfloat16+split+8bit", "bfloat16+split24+4bit")
CASES = [mode if mode in SAMPLE else exhaustive(mode) for mode in MODES]


def as_tensor(generator, kind):
    """The type of what is returned."""
    if isinstance(kind, triton.language.tuple_type):
        return triton.language.tuple_type([as_tensor(generator, each) for each in kind.types], kind.fields)
    constant = isinstance(kind, triton.language.core.constexpr_type) and kind.value is not None
    return generator.semantic.to_tensor_type(kind) if constant else kind


def parse(source, target, options):
    """As much of a compilation as knows of functions, without caches."""
    backend, context = make_backend(target), ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    parsed = backend.parse_options(options)
    return source.make_ir(target, parsed, backend.get_codegen_implementation(parsed), backend.get_module_map(), context)


@pytest.fixture(autouse=True)
def older(monkeypatch):
    decide = CodeGenerator.decide_return_type
    monkeypatch.setattr(CodeGenerator, "decide_return_type", lambda self: as_tensor(self, decide(self)))
    monkeypatch.setattr(triton, "compile", parse)


@pytest.mark.parametrize("mode", CASES)
def test_step(mode):
    storage, target = variant("rmsprop_centered_momentum", f"{mode}+stats+caution+ema").storage, target_of("sm_90")
    build(step_kernel, step_constants("rmsprop_centered_momentum", storage, True, target), target, storage.compute)


def test_cache_keys_know_what_is_read():
    """Of what a constexpr function reads, Triton's keys hold functions and constexprs; a table that had changed would leave old code."""
    functions = [each for each in vars(memory).values() if isinstance(each, triton.runtime.jit.ConstexprFunction)]
    assert len(functions) == 3
    for function in functions:
        names = inspect.getclosurevars(function.fn).globals
        assert all(isinstance(value, triton.language.constexpr | triton.runtime.jit.JITCallable) for value in names.values()), names


@triton.jit
def answer():
    return 42


@triton.jit
def constant_kernel(hyper_ptr):
    triton.language.static_assert(answer() == 42)


def test_it_is_as_old():
    with pytest.raises(UserError, match="constant_kernel"):
        build(constant_kernel, {}, target_of("sm_90"))
