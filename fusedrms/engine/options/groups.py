"""The parameters of parameter groups, and what errors call them."""

from collections.abc import Iterator, Sequence
from itertools import count, zip_longest
from typing import Any, NamedTuple

from torch import Tensor


class NamedParameter(NamedTuple):
    """A parameter as its group lists it."""

    group: int  # index of its parameter group
    name: str  # what errors call it
    param: Tensor


def named_parameters(groups: Sequence[dict[str, Any]]) -> Iterator[NamedParameter]:
    """All parameters; one without a name is called params[its number].

    Raises:
        TypeError: a group lists what is no tensor.
        ValueError: a group has names, but not as many as parameters.
    """
    number = count()
    for g, group in enumerate(groups):
        params, names = group["params"], group.get("param_names")
        if names is not None and len(names) != len(params):
            raise ValueError(
                f"parameter group {g} has {len(params)} params but {len(names)} param_names: change both lists alike, or delete "
                "'param_names' from every group"
            )
        for param, name in zip_longest(params, names or ()):
            if not isinstance(param, Tensor):
                raise TypeError(
                    f"parameter group {g} lists {param!r}, which is not a tensor: take it out of optimizer.param_groups[{g}]['params']"
                )
            yield NamedParameter(g, name or f"params[{next(number)}]", param)
