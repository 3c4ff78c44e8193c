"""The launch that counts elements whose updates agree with their gradients, run as PTX and by the CPU driver."""

import numpy as np

from fusedrms.kernels import launch
from fusedrms.kernels.cpu import step as cpu
from fusedrms.kernels.gpu.agreement import agreement_kernel
from fusedrms.kernels.tables import AgreementTables
from fusedrms.tools.machine_code import build, target_of

from .launches import Launch
from .machine import run
from .memory import Memory


def _tables(made: Launch, addresses: np.ndarray, chunk: int) -> AgreementTables:
    known = made.tables(addresses, chunk)._asdict() | dict(scalars=made.scalars)
    return AgreementTables(**{name: known[name] for name in AgreementTables._fields})


def _of_tensors(made: Launch, tables: AgreementTables, agreed: np.ndarray) -> list[float]:
    return np.bincount(tables.chunk_tensor, agreed, len(made.numels)).tolist()


def on_cpu(made: Launch, chunk: int = cpu.CHUNK) -> list[float]:
    """Of each tensor how many agree."""
    addresses = np.array([[array.ctypes.data for array in row] for row in made.memory], np.int64)
    tables = _tables(made, addresses, chunk)
    agreed = np.full(len(tables.chunk_tensor), np.nan)
    with np.errstate(all="ignore"):
        launch.prepare_agreement(made.rule, made.storage, False, tables, launch.CPUConfig(chunk, 1 << 40))(agreed)
    return _of_tensors(made, tables, agreed)


def on_gpu(made: Launch, config: launch.GPUConfig | None = None, aligned: bool = True, target: str = "sm_90") -> list[float]:
    """The same by the PTX; AssertionError if anything but a count was written, or one was not."""
    config = config or made.default()
    constants = launch.agreement_constants(made.rule, made.storage, aligned, config, 32)
    binary = build(agreement_kernel, constants, target_of(target), made.storage.compute)
    memory = Memory()
    tables = _tables(made, made.place(memory, aligned), config.chunk)
    args = [memory.add(name, table, 16) for name, table in tables._asdict().items()]
    args += [len(made.numels), config.chunk, memory.add("agreed", np.zeros(len(tables.chunk_tensor)), written=False)]
    run(binary.asm["ptx"], len(tables.chunk_tensor), args, memory, binary.metadata.shared)
    assert memory.stored("agreed").all(), "a count was not written"
    for name in (*tables._fields, *(f"{row.name} of tensor {t}" for row in made.rows for t in range(len(made.numels)))):
        assert not memory.stored(name).any(), f"{name} was written"
    return _of_tensors(made, tables, memory.get("agreed"))
