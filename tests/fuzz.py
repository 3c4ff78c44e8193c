"""Everything that users do to an optimizer between steps, in any order; each step is held against torch.optim.RMSprop's.

``python tests/fuzz.py --steps 1000 --seed 3`` says on stderr what it does before it does it, so that a crash names its cause.
"""

import argparse
import contextlib
import copy
import faulthandler
import functools
import gc
import io
import itertools
import pickle
import random
import sys
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import Parameter

from cases import BF16, F32, F64, compute_error, storage_error
from fusedrms import FusedRMSProp
from reference import rmsprop
from tools import exact

SHAPES = [(), (0,), (1,), (7,), (5, 3), (130,)]
OPTIONS = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize")  # torch's
STATES = ("square_avg", "grad_avg", "momentum_buffer")
CHOICES = dict(
    lr=[1e-2, 0.1, 0.0],
    alpha=[0.5, 0.9, 0.99],
    eps=[1e-3, 1e-2, 0.1],
    weight_decay=[0.0, 0.1],
    momentum=[0.0, 0.5, 0.9],
    centered=[False, True],
    maximize=[False, True],
)
LEAST = 2.0**-134  # half the smallest step of bfloat16
KEPT = 16  # tensors that nobody may change

which = st.integers(0, 31)  # of those there are, counted round
layouts = st.sampled_from(["dense", "reversed", "offset", "gaps"])
options = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()})
kinds = st.tuples(st.sampled_from(SHAPES), st.sampled_from([F32, F32, BF16, F64]))


class Expected(NamedTuple):
    """Of one parameter after a step, by name: the values, and by how much the rounding of operations may change them."""

    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    step: float


def root_error(new: dict, sizes: dict, size: np.ndarray, error: float, eps: float) -> np.ndarray:
    """What rounding may change of gradient / (root of a centered variance + eps), however near 0 or clamped the variance is."""
    variance = new["square_avg"] - new["grad_avg"] ** 2
    error = error * (sizes["square_avg"] + 2 * sizes["grad_avg"] ** 2)
    least, most = (np.sqrt(np.maximum(bound, 0)) + eps for bound in (variance - error, variance + error))
    return size * (1 / least - 1 / most)


def laid_out(values: Tensor, layout: str) -> Tensor:
    """The same values in new memory."""
    values = values.detach()
    if layout == "reversed":
        order = tuple(reversed(range(values.dim())))
        return values.permute(order).clone(memory_format=torch.contiguous_format).permute(order)
    if layout == "offset":
        return torch.empty(values.numel() + 1, dtype=values.dtype)[1:].view(values.shape).copy_(values)
    if layout == "gaps":
        return torch.empty(*values.shape, 2, dtype=values.dtype)[..., 0].copy_(values)
    return values.clone(memory_format=torch.contiguous_format)


def _swap(param: Tensor, data: Tensor) -> None:
    other = Parameter(data, param.requires_grad)
    other.grad = param.grad
    torch.utils.swap_tensors(param, other)


def _data(tensor: Tensor, data: Tensor) -> None:
    tensor.data = data


def _grow(storage: torch.UntypedStorage) -> None:
    if storage.resizable() and not storage.is_shared():
        storage.resize_(storage.nbytes() + 4096)


# what gives a tensor other memory, or looks as if it did, and leaves its values as they are
MOVES: dict[str, Callable[[Tensor], Any]] = {
    "data = clone": lambda tensor: _data(tensor, tensor.data.clone()),
    "data = the same memory": lambda tensor: _data(tensor, tensor.data.view_as(tensor)),
    "data reversed": lambda tensor: _data(tensor, laid_out(tensor, "reversed")),
    "data at an offset": lambda tensor: _data(tensor, laid_out(tensor, "offset")),
    "data with gaps": lambda tensor: _data(tensor, laid_out(tensor, "gaps")),
    "set_": lambda tensor: tensor.set_(laid_out(tensor, "dense")),
    "storage grows": lambda tensor: _grow(tensor.untyped_storage()),
    "share_memory_": lambda tensor: tensor.share_memory_(),
    "sent to a process": ForkingPickler.dumps,
}
# torch swaps no tensor that C++ holds too, as it does a gradient
SWAPS: dict[str, Callable[[Tensor], Any]] = {
    "swap_tensors": lambda param: _swap(param, param.detach().clone()),
    "swap_tensors, same memory": lambda param: _swap(param, param.data),
}
moves, swaps = st.sampled_from(sorted(MOVES)), st.sampled_from(sorted(SWAPS))


def change(**draws):
    """A rule: what a user does, then a few steps. What the user has let go must be free before them."""

    def decorate(function):
        @functools.wraps(function)
        def run(self, steps, **drawn):
            self.log(function.__name__, drawn, steps)
            before = {storage._cdata: StorageWeakRef(storage) for storage in self.storages()}
            with torch.no_grad():
                function(self, **drawn)
            self.check_freed(before)
            for _ in range(steps):
                self.step()

        del run.__wrapped__  # hypothesis reads the signature
        return rule(steps=st.integers(0, 2), **draws)(run)

    return decorate


def same(a: Any, b: Any) -> bool:
    """Whether two values of a state are equal; of two dtypes, as float32 holds them: a state takes its parameter's with time."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(*(a, b) if a.dtype == b.dtype else (a.float(), b.float()))
    return float(a) == float(b)


def copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


class OptimizerMachine(RuleBasedStateMachine):
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

    # steps

    def expected(self) -> dict[Parameter, Expected]:
        """What torch.optim.RMSprop makes of the same values in float64, which has no rounding to speak of."""
        groups, states, found = [], {}, {}
        twins = {param: Parameter(param.detach().double().clone(), param.requires_grad) for param in self.listed()}
        for group in self.optimizer.param_groups:
            numbers = {key: float(value) if isinstance(value := group[key], Tensor) else value for key in OPTIONS}
            groups.append({**numbers, "lr": float(numbers["lr"]), "params": []})
            for param in group["params"]:
                twin, state = twins[param], self.state(param)
                groups[-1]["params"].append(twin)
                twin.grad = None if param.grad is None else param.grad.double()
                if state:  # what is missing of it begins like a new one, where torch has a KeyError
                    states[twin] = {key: copied(state[key]).double() if key in state else torch.zeros_like(twin) for key in STATES}
                    states[twin]["step"] = torch.tensor(float(state.get("step", 0)))
        theirs = torch.optim.RMSprop(groups)
        theirs.state.update(states)
        for group in groups:
            numbers = {key: group[key] for key in OPTIONS}
            for param, twin in twins.items():
                if any(twin is each for each in group["params"]) and twin.grad is not None:
                    state = {key: exact(states[twin][key]) if twin in states else np.zeros(twin.shape) for key in STATES}
                    new, sizes = rmsprop(exact(twin), exact(twin.grad), state, **numbers)
                    errors = {key: compute_error(param.dtype) * size for key, size in sizes.items()}
                    if numbers["centered"]:
                        size = np.abs(exact(twin.grad)) + numbers["weight_decay"] * np.abs(exact(twin))
                        error = root_error(new, sizes, size, compute_error(param.dtype), numbers["eps"])
                        errors["param"] = errors["param"] + numbers["lr"] * error
                        errors |= {key: errors[key] + error for key in errors if key == "momentum_buffer"}
                    found[param] = new, errors
        theirs.step()
        for param, (clamped, errors) in found.items():
            state = theirs.state[twins[param]]
            values = {key: exact(state[key] if key != "param" else twins[param]) for key in clamped}
            # torch's root of a variance that is negative by rounding, or by what a user has put there, is NaN
            values = {key: np.where(np.isnan(value), clamped[key], value) for key, value in values.items()}
            found[param] = Expected(values, errors, float(state["step"]))
        return found

    def step(self) -> None:
        with torch.no_grad():
            expected, before = self.expected(), self.visible()
            tensors = {
                (n, key): value
                for n, param in enumerate(self.params)
                for key, value in self.state(param).items()
                if isinstance(value, Tensor) and (key not in STATES or param not in expected or self.fits(param, value))
            }
            versions = [param._version for param in self.params]
        self.optimizer.step()
        type(self).total += bool(expected)
        with torch.no_grad():
            self.check_step(expected, before)
        self.check_owners(tensors)
        self.check_versions(expected, versions)
        for tensor, value in self.kept:
            assert torch.equal(tensor, value), "a step wrote a tensor that is no longer the optimizer's"

    def check_owners(self, tensors: dict[tuple[int, str], Tensor]) -> None:
        """The user's tensors are updated in place."""
        for (n, key), tensor in tensors.items():
            assert self.state(self.params[n]).get(key) is tensor, f"the {key} of parameter {n} is another tensor after the step"

    def check_versions(self, expected: dict[Parameter, Expected], before: list[int]) -> None:
        for n, param in enumerate(self.params):
            assert param not in expected or param._version > before[n], f"autograd does not know that parameter {n} has changed"

    @staticmethod
    def fits(param: Tensor, value: Tensor) -> bool:
        """Whether a step can update this state in place."""
        dtype = F32 if param.dtype == BF16 else param.dtype
        return value.dtype == dtype and value.stride() == torch.empty_like(param, memory_format=torch.preserve_format).stride()

    def check_step(self, expected: dict[Parameter, Expected], before: dict[tuple, Any], but: tuple = ()) -> None:
        now = self.visible()
        for n, param in enumerate(self.params):
            values, errors, step = expected.get(param, Expected({}, {}, 0))
            for key, value in values.items():
                tensor = param if key == "param" else self.state(param)[key]
                bound = storage_error(tensor.dtype, value) + errors[key] + LEAST
                worst = np.max(np.abs(exact(tensor) - value) - bound, initial=0)
                assert worst <= 0, f"{key} of parameter {n}, {param.dtype} {tuple(param.shape)}, is off by {worst} more than its bound"
            if param in expected:
                assert float(self.state(param)["step"]) == step, f"the step of parameter {n} is {self.state(param)['step']}, not {step}"
            written = {(n, "param" if key == "param" else "state", key) if key != "param" else (n, key) for key in values}
            written |= {(n, "state", "step")} if param in expected else set()
            mine = {key for key in {*before, *now} if key[0] == n and key != but} - written
            for key in mine:
                assert (key in before) == (key in now), f"{key} has come or gone"
                assert same(before[key], now[key]), f"{key} has changed"

    def refuse(self, must: bool = True, but: tuple = ()) -> None:
        """A step that cannot be made: an error, and all is as it was. One that need not be may be right, whatever becomes of `but`."""
        expected = {} if must else self.expected()
        before = self.visible()
        try:
            self.optimizer.step()
        except (RuntimeError, ValueError):
            self.check_visible(before)
            return
        assert not must, "a step that cannot be right has raised no error"
        self.check_step(expected, before, but)

    # gradients

    @change(to_none=st.booleans())
    def backward(self, to_none):
        self.optimizer.zero_grad(set_to_none=to_none)
        self.accumulate()

    @change()
    def accumulate_again(self):
        self.accumulate()

    def accumulate(self):
        for param in self.params:
            if param.grad is not None and 0 in param.grad.stride():  # into an expanded one nothing can be added
                param.grad = None
        with torch.enable_grad():
            losses = [(param * self.values(param.shape, param.dtype)).sum().float() for param in self.params if param.requires_grad]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout contract")
                if losses:
                    torch.stack(losses).sum().backward()

    @change()
    def new_grads(self):
        self.set_grads()

    @change(n=which, layout=layouts, keep=st.booleans())
    def new_grad(self, n, layout, keep):
        param = self.param(n)
        if param.grad is not None:
            self.let_go(param.grad, keep)
        param.grad = laid_out(self.values(param.shape, param.dtype), layout)

    @change(n=which)
    def expanded_grad(self, n):
        param = self.param(n)
        param.grad = self.values((1,) * param.dim(), param.dtype).expand(param.shape)

    @change(n=which)
    def no_grad(self, n):
        self.param(n).grad = None

    @change(to_none=st.booleans())
    def zero_grad(self, to_none):
        self.optimizer.zero_grad(set_to_none=to_none)

    @change()
    def write_grads(self):
        for param in self.params:
            if param.grad is not None and 0 not in param.grad.stride():
                param.grad.copy_(self.values(param.shape, param.dtype))

    @change(of=st.sampled_from(["grad", "param"]))
    def flat(self, of):
        """Views of one buffer for each dtype, as DDP and FSDP1 make them."""
        with self.unchanged():
            for dtype in (F32, BF16, F64):
                mine = [param for param in self.params if param.dtype == dtype and (of == "param" or param.grad is not None)]
                buffer, start = torch.empty(sum(param.numel() for param in mine), dtype=dtype), 0
                for param in mine:
                    view = buffer[start : start + param.numel()].view(param.shape).copy_(param if of == "param" else param.grad)
                    start += param.numel()
                    if of == "param":
                        param.data = view
                    else:
                        param.grad = view

    # memory

    @change(n=which, how=moves)
    def move_param(self, n, how):
        with self.unchanged():
            MOVES[how](self.param(n))

    @change(n=which, how=swaps)
    def swap_same_values(self, n, how):
        with self.unchanged():
            SWAPS[how](self.param(n))

    @change(n=which, how=moves)
    def move_grad(self, n, how):
        grad = self.param(n).grad
        if grad is not None and 0 not in grad.stride():
            with self.unchanged():
                MOVES[how](grad)

    @change(n=which, how=moves)
    def move_state(self, n, how):
        if found := self.a_state(n):
            with self.unchanged():
                MOVES[how](found[0][found[1]])

    @change(n=which, how=moves)
    def move_counter(self, n, how):
        if found := self.a_state(n, counters=True):
            with self.unchanged():
                MOVES[how](found[0][found[1]])

    @change(how=moves)
    def move_states(self, how):
        """All, counters too, as code does that offloads them."""
        with self.unchanged():
            for state in self.optimizer.state.values():
                for value in state.values():
                    if isinstance(value, Tensor):
                        MOVES[how](value)

    @change(n=which, layout=layouts, keep=st.booleans())
    def new_data(self, n, layout, keep):
        param = self.param(n)
        self.let_go(param.data, keep)
        param.data = laid_out(self.values(param.shape, param.dtype), layout)

    @change(n=which)
    def write_param(self, n):
        self.param(n).copy_(self.values(self.param(n).shape, self.param(n).dtype))

    @change(n=which, keep=st.booleans())
    def swap_param(self, n, keep):
        param, other = self.param(n), Parameter(self.values(self.param(n).shape, self.param(n).dtype), self.param(n).requires_grad)
        other.grad = self.values(param.shape, param.dtype)
        torch.utils.swap_tensors(param, other)
        self.let_go(other.detach(), keep)  # not its gradient

    @change(n=which, dtype=st.sampled_from([F32, BF16, F64]))
    def change_dtype(self, n, dtype):
        param = self.param(n)
        param.grad = None
        param.data = param.data.to(dtype)
        param.grad = self.values(param.shape, dtype)

    @change(n=which, shape=st.sampled_from(SHAPES))
    def reshape(self, n, shape):
        """States of another shape are an error until they are gone."""
        param = self.param(n)
        has_state = any(key in self.state(param) for key in STATES)
        if shape != tuple(param.shape):
            param.grad = None
            param.data = self.values(shape, param.dtype)
            param.grad = self.values(shape, param.dtype)
            if has_state and any(param is each for each in self.listed()):
                self.refuse()
            self.optimizer.state.pop(param, None)

    @change()
    def collect(self):
        gc.collect()

    # states

    @change(n=which, layout=layouts, double=st.booleans(), keep=st.booleans())
    def new_state(self, n, layout, double, keep):
        if found := self.a_state(n):
            state, key = found
            self.let_go(state[key], keep)
            values = self.values(state[key].shape, F32).to(F64 if double else state[key].dtype)
            state[key] = laid_out(1 + values.abs() if key == "square_avg" else values, layout)

    @change(n=which)
    def write_state(self, n):
        if found := self.a_state(n):
            found[0][found[1]].mul_(0.5)

    @change(keep=st.booleans())
    def clear_state(self, keep):
        for state in self.optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    self.let_go(value, keep)
        self.optimizer.state.clear()

    @change(n=which)
    def pop_state(self, n):
        self.optimizer.state.pop(self.param(n), None)

    @change(n=which, counters=st.booleans())
    def delete_state(self, n, counters):
        if found := self.a_state(n, counters):
            del found[0][found[1]]

    @change()
    def new_state_dicts(self):
        self.optimizer.state = defaultdict(dict, {param: dict(state) for param, state in self.optimizer.state.items()})

    @change(n=which)
    def own_state(self, n):
        """A user's, which is none of the optimizer's."""
        if state := self.state(self.param(n)):
            state["ema"] = self.param(n).detach().clone()

    @change(n=which, number=st.integers(0, 5), how=st.sampled_from(["in place", "int", "float", "float32", "float64", "int64", "view"]))
    def set_counter(self, n, number, how):
        if state := self.state(self.param(n)):
            if how == "in place":
                state["step"] = copied(state.get("step", 0)) if not isinstance(state.get("step"), Tensor) else state["step"].fill_(number)
            elif how == "view":
                state["step"] = torch.full((2,), float(number))[1]
            else:
                state["step"] = {"int": int, "float": float}.get(how, lambda value: torch.tensor(value, dtype=getattr(torch, how)))(number)

    # parameters and groups

    @change(n=which, on=st.booleans())
    def freeze(self, n, on):
        self.param(n).requires_grad_(not on)
        if on:
            self.param(n).grad = None

    @change(new=st.lists(kinds, min_size=1, max_size=2), chosen=options)
    def add_group(self, new, chosen):
        if len(self.params) < 8:
            added = [Parameter(self.values(shape, dtype)) for shape, dtype in new]
            for param in added:
                param.grad = self.values(param.shape, param.dtype)
            self.params += added
            self.optimizer.add_param_group(dict(params=added, **chosen))

    @change(n=which)
    def remove_param(self, n):
        group = self.group(n)
        if group["params"]:
            del group["params"][n % len(group["params"])]

    @change(n=which)
    def put_param(self, n):
        """One that the optimizer does not have, though maybe it had."""
        missing = [param for param in self.params if not any(param is each for each in self.listed())]
        if missing:
            self.group(n)["params"].append(missing[n % len(missing)])

    @change(n=which)
    def forget_param(self, n):
        """One that the optimizer no longer has; what it kept of it is the user's to drop, as with torch's."""
        missing = [param for param in self.params if not any(param is each for each in self.listed())]
        if missing and len(self.params) > 1:
            gone = missing[n % len(missing)]
            self.params = [param for param in self.params if param is not gone]
            self.optimizer.state.pop(gone, None)

    @change(n=which)
    def remove_group(self, n):
        if len(self.optimizer.param_groups) > 1:
            del self.optimizer.param_groups[n % len(self.optimizer.param_groups)]

    @change(n=which, of=st.sampled_from(["groups", "params"]))
    def reorder(self, n, of):
        listed = self.optimizer.param_groups if of == "groups" else self.group(n)["params"]
        listed.append(listed.pop(0)) if len(listed) > 2 else listed.reverse()

    @change(n=which, of=st.sampled_from(["params", "group", "groups"]))
    def new_container(self, n, of):
        if of == "params":
            self.group(n)["params"] = list(self.group(n)["params"])
        elif of == "group":
            self.optimizer.param_groups[n % len(self.optimizer.param_groups)] = dict(self.group(n))
        else:
            self.optimizer.param_groups = list(self.optimizer.param_groups)

    @change(n=which, names=st.sampled_from([("alpha", "eps"), ("lr", "weight_decay"), ("momentum", "alpha"), ("centered", "maximize")]))
    def trade(self, n, names):
        """The same objects in the same order under other names, as a group that is made anew may have them."""
        other = dict(zip(names, reversed(names), strict=True))
        group = {other.get(key, key): value for key, value in self.group(n).items()}
        if group["eps"]:  # without it a gradient of 0 beside an average of 0 has no step
            self.optimizer.param_groups[n % len(self.optimizer.param_groups)] = group

    @change(n=which, name=st.sampled_from(OPTIONS), choice=which)
    def set_option(self, n, name, choice):
        self.group(n)[name] = CHOICES[name][choice % len(CHOICES[name])]

    @change(n=which, lr=st.sampled_from(CHOICES["lr"]))
    def lr_in_a_tensor(self, n, lr):
        group = self.group(n)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = torch.tensor(lr)

    # checkpoints and copies

    def forget_states(self) -> None:
        """Of parameters that the optimizer no longer has, with which torch makes no state_dict."""
        for param in [param for param in self.optimizer.state if not any(param is each for each in self.listed())]:
            del self.optimizer.state[param]

    def load(self, state_dict: dict, complete: bool) -> None:
        """A state that lacks what its options ask for is refused."""
        try:
            self.optimizer.load_state_dict(state_dict)
        except ValueError:
            assert not complete

    def complete(self) -> bool:
        """Whether there is no state without one that its options ask for."""
        return all(key in self.state(param) for param in self.listed() if self.state(param) for key in ("step", *self.used(param)))

    @change(how=st.sampled_from(["direct", "deepcopy", "torch.save"]))
    def reload(self, how):
        self.forget_states()
        with self.unchanged():
            state_dict = self.optimizer.state_dict()
            if how == "deepcopy":
                state_dict = copy.deepcopy(state_dict)
            elif how == "torch.save":
                file = io.BytesIO()
                torch.save(state_dict, file)
                state_dict = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            self.load(state_dict, self.complete())

    @change()
    def remember(self):
        """A state_dict shares the states with the optimizer, as torch's does."""
        self.forget_states()
        state_dict = self.optimizer.state_dict()
        for n, param in enumerate(self.listed()):
            for key, value in state_dict["state"].get(n, {}).items():
                assert key not in ("step", *STATES) or not isinstance(value, Tensor) or value is self.state(param).get(key, value), (
                    f"{key} is a copy"
                )
        listed = [n for each in self.listed() for n, param in enumerate(self.params) if param is each]
        visible = self.visible()
        seen = {(place, *key[1:]): value for place, n in enumerate(listed) for key, value in visible.items() if key[0] == n}
        shapes = [(tuple(param.shape), param.dtype) for param in self.listed()]
        self.earlier = [*self.earlier, (copy.deepcopy(state_dict), dict(seen=seen, shapes=shapes, complete=self.complete()))][-4:]

    @change(n=which)
    def load_earlier(self, n):
        if not self.earlier:
            return
        state_dict, was = self.earlier[n % len(self.earlier)]
        sizes = [len(group["params"]) for group in self.optimizer.param_groups]
        fits = sizes == [len(group["params"]) for group in state_dict["param_groups"]] and was["complete"]
        if fits and was["shapes"] == [(tuple(param.shape), param.dtype) for param in self.listed()]:
            self.optimizer.load_state_dict(state_dict)
            for place, param in enumerate(self.listed()):
                for key, value in self.state(param).items():
                    expected = was["seen"].get((place, "state", key), 0.0 if key == "step" else None)
                    assert same(expected, value), f"the {key} of parameter {place} is not what was loaded"
        else:
            before = self.visible()
            try:
                self.optimizer.load_state_dict(state_dict)
            except ValueError:
                self.check_visible(before)

    @change()
    def by_way_of_torch(self):
        """Into torch's optimizer and back."""
        self.forget_states()
        if not self.complete():
            return
        groups = []
        for group in self.optimizer.param_groups:
            twins = [Parameter(param.float() if param.dtype == BF16 else param.detach().clone()) for param in group["params"]]
            groups.append(dict(params=twins))
        if any(group["params"] for group in groups):
            theirs = torch.optim.RMSprop(groups)
            theirs.load_state_dict(self.optimizer.state_dict())
            for param, twin in zip(self.listed(), (twin for group in groups for twin in group["params"]), strict=True):
                state = self.state(param)
                assert all(same(value, theirs.state[twin][key]) for key, value in state.items())
            with self.unchanged():
                self.load(theirs.state_dict(), True)

    @change(how=st.sampled_from(["deepcopy", "pickle", "torch.save"]), keep=st.booleans())
    def copy(self, how, keep):
        """Of model and optimizer together; torch copies no gradients of parameters."""
        together = self.params, self.optimizer
        with self.unchanged("grad"):
            if how == "deepcopy":
                self.params, self.optimizer = copy.deepcopy(together)
            elif how == "pickle":
                self.params, self.optimizer = pickle.loads(pickle.dumps(together))
            else:
                file = io.BytesIO()
                torch.save(together, file)
                self.params, self.optimizer = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
        if keep:
            for param in together[0]:
                self.let_go(param.detach(), keep)
        self.set_grads()

    @change()
    def send(self):
        """To another process, which sees the next step."""
        self.forget_states()
        with self.unchanged():
            received = pickle.loads(ForkingPickler.dumps(self.optimizer.state_dict()))
        listed = self.listed()
        self.step()
        for n, param in enumerate(listed):
            for key, value in received["state"].get(n, {}).items():
                if isinstance(value, Tensor) and (key not in STATES or self.fits(param, value)):
                    assert same(value, self.state(param)[key]), f"the {key} that was sent does not follow"

    # threads

    @contextlib.contextmanager
    def beside(self, act: Callable[[], Any]) -> Iterator[None]:
        """While two other threads do something all the time."""
        stop, errors = threading.Event(), []

        def run():
            try:
                while not stop.is_set():
                    act()
            except Exception as error:
                errors.append(error)

        threads, interval = [threading.Thread(target=run) for _ in range(2)], sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)
        if errors:
            raise errors[0]

    @change(n_steps=st.integers(1, 50))
    def grads_from_a_thread(self, n_steps):
        """Which gradients a step takes is nobody's to say, but they are gradients."""

        def set_grads():
            for param in self.params:
                param.grad = torch.ones_like(param)

        set_grads()
        with self.beside(set_grads):
            for _ in range(n_steps):
                with contextlib.suppress(RuntimeError):  # that says that another thread writes them
                    self.optimizer.step()
        self.set_grads()
        for key, value in self.visible().items():
            assert not isinstance(value, Tensor) or (value.abs() < 1e6).all(), f"{key} is {value}"

    @change()
    def state_dict_from_a_thread(self):
        self.forget_states()
        self.step()  # else states are added while the thread reads them, which torch does not allow either
        with self.beside(self.optimizer.state_dict):
            for _ in range(3):
                self.step()

    # what no step can do

    def pair(self, n: int, alike: Callable[[Parameter], Any], params: list[Parameter]) -> tuple[Parameter, Parameter] | None:
        """Two of some parameters that are alike."""
        pairs = [(a, b) for a, b in itertools.permutations(params, 2) if alike(a) == alike(b)]
        return pairs[n % len(pairs)] if pairs else None

    def active(self) -> list[Parameter]:
        return [param for param in self.listed() if param.grad is not None and param.numel()]

    @change(n=which)
    def tie(self, n):
        """Two parameters over the same memory, all of the one and the end of the other."""
        if pair := self.pair(n, lambda param: param.dtype, self.active()):
            first, second = sorted(pair, key=Tensor.numel)
            before, second.data = first.data, laid_out(second, "dense")
            first.data = second.data.view(-1)[second.numel() - first.numel() :].view(first.shape)
            self.refuse()
            first.data = before

    @change(n=which, key=st.sampled_from(STATES))
    def tie_states(self, n, key):
        params = [param for param in self.active() if key in self.used(param) and key in self.state(param)]
        params = [param for param in params if self.fits(param, self.state(param)[key])]
        if pair := self.pair(n, lambda param: (param.shape, param.dtype, param.stride()), params):
            a, b = map(self.state, pair)
            before, b[key] = b[key], a[key]
            self.refuse()
            b[key] = before

    def used(self, param: Parameter) -> tuple[str, ...]:
        group = next(group for group in self.optimizer.param_groups if any(param is each for each in group["params"]))
        return STATES[:1] + STATES[1:2] * bool(group["centered"]) + STATES[2:] * (group["momentum"] > 0)

    @change(n=which)
    def grad_is_param(self, n):
        param = self.param(n)
        before, param.grad = param.grad, None
        param.grad = param.data
        self.refuse(must=False, but=(n % len(self.params), "grad"))
        param.grad = before

    @change(n=which)
    def shared_grad(self, n):
        """Read twice, which does no harm."""
        if pair := self.pair(n, lambda param: (param.shape, param.dtype), self.active()):
            first, second = pair
            second.grad = first.grad
            self.refuse(must=False)
            second.grad = first.grad.clone()

    @change(n=which, m=which)
    def list_twice(self, n, m):
        if (listed := self.listed()) and (param := listed[n % len(listed)]).grad is not None:
            self.group(m)["params"].append(param)
            before = self.visible()
            try:
                self.optimizer.step()
            except (RuntimeError, ValueError):
                self.check_visible(before)
            else:
                raise AssertionError("a parameter is listed twice")
            self.group(m)["params"].pop()

    @change(n=which)
    def expanded_param(self, n):
        param = self.param(n)
        if param.numel() > 1 and param.grad is not None and any(param is each for each in self.listed()):
            before = param.data
            param.data = self.values((1,) * param.dim(), param.dtype).expand(param.shape)
            self.refuse()
            param.data = before

    @change(n=which, of=st.sampled_from(["param", "grad", "square_avg"]))
    def free_memory(self, n, of):
        """As FSDP1 frees parameters: the tensor is there, its memory is not."""
        param = self.param(n)
        tensor = param.data if of == "param" else param.grad if of == "grad" else self.state(param).get(of)
        active = param.grad is not None and any(param is each for each in self.listed())
        if tensor is None or not tensor.numel() or not active or not tensor.is_contiguous():
            return
        storage, size = tensor.untyped_storage(), tensor.untyped_storage().nbytes()
        shared = [each for each in self.storages() if each._cdata == storage._cdata]
        if len(shared) > 1 or storage.is_shared() or not storage.resizable():
            return
        values, shape, start = tensor.clone(), tensor.shape, tensor.storage_offset()
        before = {key: value for key, value in self.visible().items() if key not in ((n % len(self.params), of),)}
        storage.resize_(0)
        try:
            self.optimizer.step()
        except RuntimeError:
            pass
        else:
            raise AssertionError("memory that was freed is updated")
        finally:
            storage.resize_(size)
            tensor.as_strided(shape, tensor.stride(), start).copy_(values)
        self.check_visible(before)


def run(seed: int, steps: int, *, verbose: bool = False, machine: type[OptimizerMachine] = OptimizerMachine) -> int:
    """At least so many steps, in as many machines as it takes; how many there were. The same seed makes the same steps."""
    settings = hypothesis.settings(
        max_examples=10,
        stateful_step_count=40,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    made = 0
    gc.freeze()  # what is imported, through which a collection would go each time
    try:
        while made < steps:
            each = hypothesis.seed(seed)(type("Machine", (machine,), dict(total=0, verbose=verbose)))
            run_state_machine_as_test(each, settings=settings)
            made += each.total
            seed += 1_000_003
    finally:
        gc.unfreeze()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same steps")
    arguments = parser.parse_args()
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    faulthandler.enable()
    torch.set_num_threads(1)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    print(run(seed, arguments.steps, verbose=True), "steps")


if __name__ == "__main__":
    main()
