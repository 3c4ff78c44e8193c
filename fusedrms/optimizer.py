"""FusedOptimizer: what torch.optim.Optimizer promises, on top of a Plan."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from .buckets import step_dtype
from .kernels import devices
from .options import (
    check_at_least_zero,
    check_choice,
    check_codes,
    check_complete,
    check_flags,
    check_limits,
    check_off,
    check_positive,
    check_precision,
    check_precision_options,
    check_shards,
    check_state,
)
from .plan import Plan, named_parameters
from .recipe import Recipe
from .sharded import local, locals_of, placed, placed_grads, sharded
from .storage import Memory, fit, fitted, obsolete, whole
from .ties import Ties

# how a step runs and how values are stored, not what it computes: never taken from a checkpoint
_HOW = ("capturable", "foreach", "differentiable", "stochastic_rounding", "master_weights", "state_dtype")
_FIXED = (int, float, str, type(None), torch.dtype)  # what cannot change in place


class _Kept:
    """Carries a state through torch's load_state_dict, which would cast it to the parameter's dtype."""

    def __init__(self, value: Tensor):
        self.value = value


class FusedOptimizer(Optimizer):
    """The part that all rules share. A subclass adds its options and turns a parameter group into a Recipe.

    Args:
        params: what the subclass was given.
        arguments: all arguments of its __init__, by name.
    """

    # torch.amp.GradScaler leaves the loss scale and what it has found to step(), in attributes that it deletes afterwards
    _step_supports_amp_scaling = True
    _plan: Plan | None = None
    _skipped: Tensor | None = None
    _parts: dict[Tensor, Any]  # of apply_in_backward(), by parameter
    _first_number = 0  # of its parameters, among those that it is a part of
    _captured: tuple[Plan, ...] = ()  # whose tables are read by CUDA graphs
    _made: tuple[tuple[list[Any], Recipe], ...] = ()  # by parameter group: the options that a recipe was made of, and the recipe

    def __init__(self, params: ParamsT, arguments: dict[str, Any]):
        defaults = {name: value for name, value in arguments.items() if name not in ("self", "params", "__class__")}
        self.check_group(defaults)
        self._ties = Ties()
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError or TypeError for a wrong option; a subclass checks its own as well."""
        check_at_least_zero(group, lr="learning rate", weight_decay="weight_decay value")
        check_positive(group, "rescale_grad")
        check_limits(group, "clip_grad_value", "clip_grad_norm", "clip_weights")
        check_flags(group, "capturable", "maximize", "decoupled_weight_decay", "clip_after_decay", "skip_nonfinite")
        check_choice(group, "clip_norm_over", ("optimizer", "parameter"))
        check_precision_options(group)
        if group["skip_nonfinite"] and None not in (group["clip_grad_norm"], group["clip_grad_value"]):
            raise ValueError(
                f"skip_nonfinite=True with clip_grad_norm={group['clip_grad_norm']} and clip_grad_value={group['clip_grad_value']} is not "
                "supported: that norm is of clipped gradients, in which an infinity does not show; leave one of the three out"
            )
        check_off(
            group,
            differentiable="a fused step has no gradient; use torch.optim.RMSprop",
        )

    @abstractmethod
    def recipe(self, group: dict[str, Any]) -> Recipe:
        """What the options of a parameter group, which check_group has passed, ask for."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):
            self.check_group({**self.defaults, **param_group})
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*duplicate parameters")
            try:
                super().add_param_group(param_group)
            except UserWarning:  # two updates of one parameter in one launch would race
                raise ValueError("a parameter group lists the same parameter twice; list it once") from None

    @property
    def last_grad_norm(self) -> Tensor | None:
        """L2 norm of all gradients at the last step, as clip_grad_norm found it: 0-d float64, on the gradients' device, without a sync.

        That of all together even if each parameter is limited by its own; of rescaled and, unless the update is limited, clipped
        values. None if no parameter group has a clip_grad_norm, before the first step of this object, load or copy, and after a
        step without gradients. Unlike that of torch's clip_grad_norm_, the factor limit / norm has no 1e-6 in its denominator.
        """
        return self._plan and self._plan.grad_norm()

    @property
    def skipped_steps(self) -> Tensor:
        """How many steps of this object left everything as it was, because a gradient was not finite: 0-d int64, without a sync.

        On the gradients' device, for each step that a ``torch.amp.GradScaler`` or skip_nonfinite watched; not part of a checkpoint.
        """
        return torch.zeros((), dtype=torch.int64, device="cpu") if self._skipped is None else self._skipped.clone()

    # torch.compile ends a graph before it and begins another after it: nothing in it can be traced
    @torch._disable_dynamo  # pyright: ignore[reportPrivateImportUsage]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: a parameter or gradient that cannot be updated; no parameter has changed then.
        """
        try:
            return self._step(closure)
        except BaseException:  # else a later step would take what a GradScaler has left for this one
            for name in ("grad_scale", "found_inf"):
                self.__dict__.pop(name, None)
            raise

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if closure is not None:
            if getattr(self, "found_inf", None) is not None:
                raise RuntimeError("a GradScaler looks for infinities before step() calls the closure: call it before scaler.step()")
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            capturing = devices.capturing()
            capturable = any(group["capturable"] for group in self.param_groups)
            if capturing and not capturable:
                raise RuntimeError("step() is captured in a CUDA graph, but capturable=False: make the optimizer with capturable=True")
            recipes = self._recipes()
            if self._ties and not capturing:
                self._ties.settle(self._params(), self.state)
            plan, self._plan = self._plan, None  # a step that fails leaves no tables behind
            grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
            shards = sharded(self._params()) if plan is None else plan.sharded
            elsewhere = placed_grads(shards)
            on_device = capturable or found_inf is not None or any(recipe.skip_nonfinite for recipe in recipes)  # it alone knows of a step
            if plan is None or plan.counts_on_device < on_device or not plan.holds(self.param_groups, recipes, self.state, elsewhere):
                if capturing:
                    self._plan = plan
                    raise RuntimeError(
                        "step() is captured in a CUDA graph, but must make its tables first: make a step before, with the same parameters, "
                        "options and attributes (grad_scale, found_inf), and gradients of the same shapes and strides"
                    )
                plan = None  # free the old tables first
                known = set(shards)
                elsewhere |= placed_grads([param for param in sharded(self._params()) if param not in known])
                plan = Plan(type(self).__name__, self.param_groups, recipes, self.state, elsewhere, on_device, self._first_number)
                if not plan.holds(self.param_groups, recipes, self.state, elsewhere):
                    raise RuntimeError("parameters or gradients changed while step() read them: another thread may be writing them")
            skipped = plan.step(recipes, grad_scale, found_inf, capturing)
            if skipped is not None:
                if self._skipped is None or self._skipped.device != skipped.device:
                    self._skipped = self.skipped_steps.to(skipped.device)
                self._skipped += skipped != 0
            self._plan = plan
            if capturing:
                self._captured = *self._captured, plan
        return loss

    def _params(self) -> Iterator[Tensor]:
        return (param for group in self.param_groups for param in group["params"])

    def _recipes(self) -> list[Recipe]:
        """One for each parameter group, made anew where an option is another object than it was, or one that may have changed."""
        made = []
        for g, group in enumerate(self.param_groups):
            values = list(group.values())
            before, recipe = self._made[g] if g < len(self._made) else ([], None)
            if recipe is None or len(values) != len(before) or not all(map(is_, values, before)):
                # not lr: a schedule may end a rounding error below 0, and a tensor may be on a device
                self.check_group({**group, "lr": 0.0})
                recipe = self.recipe(group)
                if not all(isinstance(group[key], (*_FIXED, Tensor) if key == "lr" else _FIXED) for key in self.defaults):
                    values = []
            made.append((values, recipe))
        self._made = tuple(made)
        return [recipe for _, recipe in made]

    def memory(self) -> Memory:
        """How many bytes parameters, gradients, states and tables take up now, in total and a parameter."""
        return Memory.of(self, self._plan.table_bytes() if self._plan else 0)

    def state_dict(self) -> dict[str, Any]:
        """The state in full precision, with torch's names, however it is stored, so that any optimizer of the same rule can load it.

        Returns:
            What torch's has. 8-bit and bfloat16 states are float32; a ``square_avg`` that is stored as a variance is float64;
            ``master_param`` is the float32 master of a parameter, in whichever form it is stored. The optimizer that loads it
            stores it as its own options say; one with the same options goes on bit for bit. What is stored in another form is
            copied, on its device.
        """
        widen = self.register_state_dict_post_hook(FusedOptimizer._widen, prepend=True)
        try:
            return super().state_dict()
        finally:
            widen.remove()

    def _widen(self: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        params = list(self._params())
        for _, name, param in named_parameters(self.param_groups):
            if isinstance(values := self.state.get(param), dict):
                check_codes(name, local(param), locals_of(values))
        state = {
            index: whole(params[index], values, self._ties) if isinstance(index, int) and isinstance(values, dict) else values
            for index, values in state_dict["state"].items()
        }
        # what torch.distributed.checkpoint refuses in a full state_dict, and no load takes
        groups = [
            {key: value for key, value in group.items() if not isinstance(value, torch.dtype)} for group in state_dict["param_groups"]
        ]
        return {**state_dict, "state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of an optimizer of this class or, where it has the same states, of torch's.

        Args:
            state_dict: what state_dict() returned. Its tensors are copied: the two optimizers share none. However states are
                stored in the checkpoint, they come to be stored as the options of this optimizer say, on the parameter's device.

        Raises:
            ValueError: other groups, a missing state or one of another shape; nothing has changed then.
        """
        shield = self.register_load_state_dict_pre_hook(FusedOptimizer._shield)  # registered last, so it runs after the user's
        try:
            super().load_state_dict(state_dict)
        finally:
            shield.remove()

    def _shield(self: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        for g, (mine, saved) in enumerate(zip(self.param_groups, state_dict["param_groups"], strict=False)):
            if mine.get("lr_in_momentum") and "lr_in_momentum" not in saved and float(saved.get("momentum", 0)) > 0:
                raise ValueError(
                    f"parameter group {g} has lr_in_momentum=True, but the checkpoint, of another class, holds a momentum_buffer without "
                    "lr: load it with lr_in_momentum=False, or set the momentum of its param_groups to 0 to start with a new buffer"
                )
        groups = [
            {**{key: value for key, value in mine.items() if key != "params"}, **saved, **{key: mine[key] for key in _HOW if key in mine}}
            for mine, saved in zip(self.param_groups, state_dict["param_groups"], strict=False)
        ] + state_dict["param_groups"][len(self.param_groups) :]  # torch's error for a wrong number of groups
        keep = {
            index: {key: _Kept(value) if isinstance(value, Tensor) else value for key, value in state.items()}
            if isinstance(state, dict)
            else state
            for index, state in state_dict["state"].items()
        }
        return {**state_dict, "state": keep, "param_groups": groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what load_state_dict, pickle or deepcopy brings, with states as the kernels read them."""
        groups, states = state["param_groups"], state["state"]
        for group in groups:
            self.check_group(group)
        recipes = [self.recipe(group) for group in groups]
        new = {}
        for key, values in states.items():
            if isinstance(values, dict):
                new[key] = {name: value.value.clone() if isinstance(value, _Kept) else value for name, value in values.items()}
        for g, name, param in named_parameters(groups):
            if values := new.get(param):
                initial, precision = recipes[g].states, recipes[g].precision
                owner, param, values = param, local(param), locals_of(values)
                check_precision(name, param, precision)
                if any(isinstance(value, _Kept) for value in states[owner].values()):
                    check_shards(name, owner, new[owner], initial)
                    check_complete(type(self).__name__, name, values, initial)
                check_state(name, param, values, initial)
                kept = fit(param, values, initial, precision, loading=True)
                values = {key: value for key, value in values.items() if key not in obsolete(values, initial, kept)}
                others = {
                    key: fitted(param, value)
                    for key, value in values.items()
                    if isinstance(value, Tensor) and value.shape == param.shape and value.dtype.itemsize > 1 and key not in kept
                }
                values |= {**others, "step": torch.tensor(float(values.get("step", 0)), dtype=step_dtype(), device="cpu"), **kept}
                new[owner] = {key: placed(owner, value) for key, value in values.items()}
        states.update(new)
        super().__setstate__(state)
        self.__dict__.setdefault("_ties", Ties()).clear()
        self._plan = None
