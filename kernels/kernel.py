"""A launch of a Triton kernel, as often as steps are made."""

import torch

from . import caches, devices, lang

OPTIONS = dict(enable_fp_fusion=False)  # contractions are written: a compiler's differ between lanes, blocks and versions


class Kernel:
    """A launch of a Triton kernel. What it takes is put together once, all but the tensor of a call.

    Args:
        kernel: of gpu/.
        n_programs: as many share out the work.
        constants: what it is compiled for, by the names of its arguments.
        args: the others, likewise, tensors and integers; the tensors may be written, not replaced.
        given: the name of the one that each call brings.

    Raises:
        TypeError: these are not the kernel's arguments.
    """

    def __init__(self, kernel, n_programs: int, constants: dict, args: dict, given: str):
        names = {*args, given, *constants} - OPTIONS.keys() - {"num_warps", "maxnreg"}
        if names != set(kernel.arg_names):
            raise TypeError(f"{kernel.__name__} differs in {sorted(names ^ set(kernel.arg_names))} from what is passed to it")
        self._kernel, self._grid, self._constants, self._args, self._given = kernel, (n_programs, 1, 1), constants, args, given
        self._device = next(arg.device for arg in args.values() if isinstance(arg, torch.Tensor))
        self._compiled = None

    def __call__(self, tensor: torch.Tensor) -> None:
        """Launch with this tensor as the argument that calls bring."""
        with devices.current(self._device):
            if self._compiled is not None:
                self._run(*self._before, tensor.data_ptr(), *self._after)
                return
            args = {**self._args, self._given: tensor}
            if not lang.interpreted():
                caches.loaded(self._kernel, lambda: self._load(args))
            self._compiled = self._kernel[self._grid](**args, **self._constants)
            if self._compiled is not None:  # the interpreter returns None
                self._run = self._compiled[self._grid]
                # addresses: of tensors Triton asks the driver whose memory they are
                known = {name: arg.data_ptr() if isinstance(arg, torch.Tensor) else arg for name, arg in self._args.items()}
                names, known = self._kernel.arg_names, known | self._constants
                index = names.index(self._given)
                self._before, self._after = (tuple(known[name] for name in part) for part in (names[:index], names[index + 1 :]))

    def _load(self, args: dict) -> None:
        """Compile what the launch will find in memory."""
        compiled = self._kernel.warmup(grid=self._grid, **args, **self._constants)
        if compiled is not None:  # a hook of the user's may say that there is nothing to compile
            compiled[self._grid]

    @property
    def spills(self) -> int:
        """Registers that the compiler keeps in memory; 0 before the first call."""
        return self._compiled.n_spills if self._compiled else 0
