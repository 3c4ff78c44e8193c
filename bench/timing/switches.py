"""What can be switched off in a step of any commit: names are looked for, because modules have moved."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

PREPARE = ("prepare", "prepare_squares", "prepare_norms")


def _modules(package: str) -> dict[str, Any]:
    return {name: module for name, module in sys.modules.items() if name.startswith(f"{package}.")}


@contextlib.contextmanager
def _replaced(places: list[tuple[Any, str]], what: str, new: Callable) -> Iterator[None]:
    if not places:
        raise LookupError(f"this commit's fusedrms has no {what}")
    with contextlib.ExitStack() as stack:
        for module, name in places:
            stack.enter_context(mock.patch.object(module, name, new))
        yield


def without_launch() -> contextlib.AbstractContextManager[None]:
    """Leave of the steps of our optimizers, from their next plan on, what the host does."""
    places = [
        (module, name)
        for at, module in _modules("fusedrms").items()
        for name in PREPARE
        if not at.startswith("fusedrms.kernels.") and getattr(getattr(module, name, None), "__module__", "") == "fusedrms.kernels.launch"
    ]
    return _replaced(places, "launcher", lambda *args: lambda *args: None)


def without_gomp() -> contextlib.AbstractContextManager[None]:
    """Threads as macOS and Windows have them, where torch's OpenMP has no GOMP_parallel."""
    places = [(module, "_parallel") for module in _modules("fusedrms.kernels").values() if hasattr(module, "_parallel")]
    return _replaced(places, "_parallel()", lambda: 0)


SWITCHES: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "": contextlib.nullcontext,
    "launch": without_launch,
    "gomp": without_gomp,
}
