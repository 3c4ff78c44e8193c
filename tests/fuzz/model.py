"""A user's model and the optimizer: what there is, and what a user sees of it."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import Parameter

from fusedrms import FusedRMSProp

from .draws import STATES, copied, kinds, options, same

KEPT = 16  # tensors that nobody may change


class Model(RuleBasedStateMachine):
    """A user's model, and FusedRMSProp.

    Attributes:
        params: the model's, some of which the optimizer may not have.
        kept: tensors that were the model's, and their values.
        earlier: state_dicts as torch.save would have written them, and what was visible then.
    """

    total = 0  # steps of all machines that changed something
    verbose = False

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)
        self.params: list[Parameter] = []
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.earlier: list[tuple[dict, dict]] = []

    def log(self, name: str, drawn: dict, steps: int = 0) -> None:
        if self.verbose:
            print(f"  {name}({', '.join(f'{key}={value!r}' for key, value in drawn.items())}), {steps} steps", file=sys.stderr, flush=True)

    @initialize(shapes=st.lists(kinds, min_size=1, max_size=5), groups=st.integers(1, 2), each=st.tuples(options, options))
    def begin(self, shapes, groups, each):
        if self.verbose:
            print("a new optimizer", file=sys.stderr)
        self.log("begin", dict(shapes=shapes, groups=groups, each=each))
        self.params = [Parameter(self.values(shape, dtype)) for shape, dtype in shapes]
        parts = [self.params[:1], self.params[1:]] if groups == 2 and len(self.params) > 1 else [self.params]
        self.optimizer = FusedRMSProp([dict(params=part, **chosen) for part, chosen in zip(parts, each, strict=False)])
        self.set_grads()

    # what there is

    def values(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return (2 * torch.rand(shape, generator=self.generator) - 1).to(dtype)

    def param(self, n: int) -> Parameter:
        return self.params[n % len(self.params)]

    def group(self, n: int) -> dict:
        return self.optimizer.param_groups[n % len(self.optimizer.param_groups)]

    def listed(self) -> list[Parameter]:
        return [param for group in self.optimizer.param_groups for param in group["params"]]

    def state(self, param: Tensor) -> dict:
        return self.optimizer.state.get(param, {})

    def a_state(self, n: int, counters: bool = False) -> tuple[dict, str] | None:
        """One of the tensors in the optimizer's state, as (the dict, its name in it)."""
        found = [
            (state, key)
            for state in map(self.state, self.params)
            for key, value in state.items()
            if isinstance(value, Tensor) and (key == "step") == counters
        ]
        return found[n % len(found)] if found else None

    def visible(self) -> dict[tuple, Any]:
        """Copies of all that a user sees."""
        found: dict[tuple, Any] = {}
        for n, param in enumerate(self.params):
            found[n, "param"] = param.detach().clone()
            if param.grad is not None:
                found[n, "grad"] = param.grad.clone()
            found.update(((n, "state", key), copied(value)) for key, value in self.state(param).items())
        return found

    def check_visible(self, before: dict[tuple, Any], but: tuple[str, ...] = ()) -> None:
        """What was there before is there; a step that was not counted may be a step of 0 now."""
        now = self.visible()
        for key, value in before.items():
            if key[1] not in but:
                assert key in now, f"{key} has gone"
                assert same(value, now[key]), f"{key} has changed: {value}, {now[key]}"

    @contextlib.contextmanager
    def unchanged(self, *but: str) -> Iterator[None]:
        before = self.visible()
        yield
        self.check_visible(before, but)

    def storages(self) -> list[torch.UntypedStorage]:
        tensors = [*self.params, *(param.grad for param in self.params if param.grad is not None), *(tensor for tensor, _ in self.kept)]
        tensors += [value for state in self.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        tensors += [tensor._base for tensor in tensors if tensor._base is not None]  # which a view keeps, whatever its data are
        return [tensor.untyped_storage() for tensor in tensors]

    def check_freed(self, before: dict[int, StorageWeakRef]) -> None:
        """Whatever storage only the optimizer could still hold is gone."""
        gone = before.keys() - {storage._cdata for storage in self.storages()}
        if not all(before[key].expired() for key in gone):
            gc.collect()
        held = sum(not before[key].expired() for key in gone)
        assert not held, f"the optimizer keeps {held} storages alive that the user has let go"

    def let_go(self, tensor: Tensor, keep: bool) -> None:
        """A tensor that the model loses; kept, it shows whether a later step writes it."""
        if keep:
            self.kept = [*self.kept, (tensor, tensor.detach().clone())][-KEPT:]

    def set_grads(self) -> None:
        for param in self.params:
            param.grad = self.values(param.shape, param.dtype)

    def used(self, param: Parameter) -> tuple[str, ...]:
        group = next(group for group in self.optimizer.param_groups if any(param is each for each in group["params"]))
        return STATES[:1] + STATES[1:2] * bool(group["centered"]) + STATES[2:] * (group["momentum"] > 0)
