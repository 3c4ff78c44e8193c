"""A GPU that needs none: a device of torch, written in Python, whose memory is the host's and whose work waits to be waited for."""

from typing import Any

import torch

from fusedrms.kernels import devices, lang

NAME = "simulated"
_kept: list[Any] = []


def available() -> bool:
    """Whether torch knows devices that are written in Python, and Triton compiles."""
    known = hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend")
    return known and lang.triton is not None and not lang.interpreted()


def install() -> Any:
    """Register the device, once a process; torch.simulated."""
    from . import module, operators, triton_driver

    if not _kept:
        torch.utils.backend_registration._setup_privateuseone_for_python_backend(NAME, module, module.Hooks(), module.Guard())
        _kept.append(operators.register())
        module.patch()
        triton_driver.install()
        devices.KINDS[NAME] = devices.Kind("simulated", "multi_processor_count", lambda device: "sm_90", lambda: None, None)
    return module


if available():
    from .memory import Fault, memory
    from .streams import finish, reset, state

    __all__ = ["NAME", "Fault", "available", "finish", "install", "memory", "reset", "state"]
