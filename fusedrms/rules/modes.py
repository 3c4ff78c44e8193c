"""What is different in torch while a user's function is called."""

from typing import Any

import torch
from torch import Tensor

from . import host, words
from .errors import Rule

MOST_INT = 2**63 - 1  # of torch's


class NothingRandom(torch.overrides.TorchFunctionMode):
    """While a rule is traced, torch's random functions are errors, which would give a literal."""

    def __init__(self, rule: Rule):
        super().__init__()
        self.rule = rule

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name.rstrip("_") in words.RANDOM:
            raise self.rule.error(words.unknown(name.rstrip("_")))
        return function(*args, **(kwargs or {}))


class OneDtype(torch.overrides.TorchFunctionMode):
    """While a rule runs on float64 tensors, all that it makes is float64, as a rule computes in one dtype.

    Of comparisons and Python's numbers torch would make its default dtype, and .float() says another one.
    """

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name: str = getattr(function, "__name__", "")
        kwargs = kwargs or dict[str, Any]()
        says = [one for one in (*args[1:], *kwargs.values()) if isinstance(one, torch.dtype)]
        if name in words.FLOATS or (name in ("to", "type") and any(dtype.is_floating_point for dtype in says)):
            return args[0].double()
        tensors = [one for one in args if isinstance(one, Tensor)]
        if tensors and not any(map(torch.is_floating_point, tensors)):
            kinds = (float, int) if name == "where" or "div" in name else float
            args = tuple(host.tensor(one) if isinstance(one, kinds) else one for one in args)
        elif tensors:
            args = tuple(host.tensor(one) if isinstance(one, int) and abs(one) > MOST_INT else one for one in args)
        return function(*args, **kwargs)
