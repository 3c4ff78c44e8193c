"""An optimizer's own launches: compiled as on a GPU, and run on the memory of its tensors."""

from collections.abc import Callable, Iterable

from torch import Tensor

from fusedrms.kernels import devices, launch
from fusedrms.tools.compile import warm
from fusedrms.tools.machine_code import target_of

from .machine import run
from .memory import Memory


def use(monkeypatch, tensors: Callable[[], Iterable[Tensor]], launched: list[str], target: str = "sm_90") -> None:
    """Let CPU tensors count as a GPU's, whose launches may touch nothing but their arguments and what tensors() gives.

    The names of their kernels are added to `launched`.
    """

    class Kernel:
        """In place of launch.Kernel."""

        spills = 0

        def __init__(self, kernel, n_programs, constants, args, given):
            self._kernel, self._n_programs, self._constants, self._args, self._given = kernel, n_programs, constants, args, given

        def __call__(self, tensor):
            args = {**self._args, self._given: tensor}
            binary = warm(self._kernel, self._constants, target_of(target), args)
            memory, values = Memory(), []
            for name in self._kernel.arg_names:
                if name in self._constants:
                    continue
                arg = args[name]
                if isinstance(arg, Tensor):
                    memory.add_real(name, arg.data_ptr(), arg.nbytes)
                values.append(arg.data_ptr() if isinstance(arg, Tensor) else arg)
            for number, tensor in enumerate(tensors()):
                memory.add_real(f"tensor {number}", tensor.data_ptr(), tensor.nbytes)
            run(binary.asm["ptx"], self._n_programs, values, memory, binary.metadata.shared)
            memory.write_back()
            launched.append(self._kernel.__name__)

    monkeypatch.setattr(launch, "Kernel", Kernel)
    monkeypatch.setattr(devices, "uses_triton", lambda device: True)
