"""Launches through Triton's own C code, as on a machine with CUDA: what reaches CUDA's library, and what it costs the host."""

import ctypes

import pytest
import torch

from fusedrms.engine.tables.chunks import chunks
from fusedrms.kernels import lang, launch
from fusedrms.kernels.rules import Common, RMSPropNumbers
from fusedrms.kernels.tables import Tables
from fusedrms.tools.variants import variant

if lang.interpreted() or lang.triton is None:
    pytest.skip("the interpreter launches nothing", allow_module_level=True)

import cuda_library

if not cuda_library.compiler():
    pytest.skip("Triton needs a C compiler to launch", allow_module_level=True)


@pytest.fixture
def launched():
    """Launches as they come, on stream 77 of a device that nobody else has compiled for."""
    from triton import runtime

    found: list[tuple] = []
    cuda_library.on_launch(lambda asked: found.append((*asked[:5], arguments(asked.params))))
    runtime.driver.set_active(cuda_library.driver((9, 0), lambda: 99, lambda device: None, lambda device: 77))
    yield found
    runtime.driver.set_active(None)
    cuda_library.on_launch(None)


def arguments(params) -> list[int]:
    """The integers among them are of 32 bits."""
    sizes = [ctypes.c_int64] * len(Tables._fields) + [ctypes.c_int32] * 3 + [ctypes.c_int64]
    return [kind.from_address(params[k]).value for k, kind in enumerate(sizes)]


def tables(n_tensors: int, config: launch.GPUConfig) -> Tables:
    """Of tensors of 20,000 elements, which nobody reads."""
    numels = torch.full((n_tensors,), 20_000)
    chunk_tensor, chunk_start = map(torch.from_numpy, chunks(numels.numpy(), config.chunk))
    i32 = torch.zeros(n_tensors, dtype=torch.int32)
    zeros = torch.zeros(n_tensors, dtype=torch.int64)
    return Tables(
        addresses=torch.zeros(3, n_tensors, dtype=torch.int64),
        numels=numels,
        groups=i32,
        chunk_tensor=chunk_tensor,
        chunk_start=chunk_start,
        hyper=torch.zeros(1, len(Common._fields + RMSPropNumbers._fields)),
        norm_index=i32,
        random_key=torch.zeros(n_tensors, 3, dtype=torch.int32),
        shard_offset=zeros,
        boosts=torch.zeros(0, dtype=torch.float64),
        first_unit=torch.zeros(0, dtype=torch.int64),
        unit_sums=torch.zeros(0, 0),
    )


def test_first_and_later_launches(launched):
    """By tensors and by addresses the same arguments arrive, after the constants have been sorted out."""
    storage = variant("rmsprop", "float32").storage
    config = launch.gpu_config(storage)
    made = tables(5, config)
    run = launch.prepare("rmsprop", storage, True, made, config)
    scalars = torch.zeros(2, 3, dtype=torch.float64)
    for k in (0, 0, 1):
        run(scalars[k])
    first, second, third = launched
    assert first == second
    assert first[1:5] == ((len(made.chunk_tensor), 1, 1), config.threads, 0, 77)
    assert first[5] == [*(table.data_ptr() for table in made), 5, len(made.chunk_tensor), config.chunk, scalars.data_ptr()]
    assert third[5][:-1] == first[5][:-1]
    assert third[5][-1] == scalars[1].data_ptr()
    assert run.spills == 0


def test_arguments_that_are_not_the_kernels():
    from fusedrms.kernels.gpu.norm import norms_kernel

    one = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"^norms_kernel differs in \['offsets_ptr', 'spans_ptr'\] from what is passed to it$"):
        launch.Kernel(norms_kernel, 1, launch.norms_constants(), dict(offsets_ptr=one, norms_ptr=one), "sums_ptr")
