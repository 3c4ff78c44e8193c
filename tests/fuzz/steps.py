"""A step, held against torch.optim.RMSprop's."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from cases import BF16, F32, compute_error, storage_error
from reference import rmsprop
from tools import exact

from .draws import OPTIONS, STATES, copied, same
from .model import Model

LEAST = 2.0**-134  # half the smallest step of bfloat16


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


class Steps(Model):
    """Every step is checked: the values, whose tensors hold them, what autograd knows."""

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
