"""FusedOptimizer: what torch.optim.Optimizer promises, on top of a Plan."""

import gc
import inspect
import warnings
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from operator import is_not, itemgetter
from typing import Any
from weakref import WeakSet, WeakValueDictionary
from zlib import crc32

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy as is_uninitialized
from torch.optim.optimizer import Optimizer, ParamsT
from torch.utils.hooks import RemovableHandle

from ..kernels import devices
from . import debug
from .checkpoint import BEYOND, CARRIER, Copies, Group, only_makes_states, opened, settle, shielded, taken, unkept, written
from .groups import named_parameters
from .naming import Source, closest
from .options import (
    check_at_least_zero,
    check_choice,
    check_flags,
    check_limits,
    check_off,
    check_owners,
    check_positive,
    check_precision,
    check_precision_options,
    check_present,
    check_scheduled_lr,
    check_state,
    is_scheduled_lr,
    plain,
)
from .plan import Plan
from .recipe import Recipe
from .sharded import ProcessGroups, local, placed, placed_grads, process_groups, sharded
from .storage import Memory, counter, fit_in_place, fitted
from .ties import Ties

_FIXED = (int, float, str, type(None), torch.dtype, ProcessGroups)  # what cannot change in place


_UNMADE: tuple[tuple[Any, ...], int, Recipe | None] = (), 0, None
_alike: defaultdict[tuple, WeakValueDictionary[int, "FusedOptimizer"]] = defaultdict(WeakValueDictionary)  # those alive, numbered


@cache
def _collect() -> None:
    """Once: torch has a cycle that keeps the frames in which a process has made its first optimizer, and so that one."""
    gc.collect()


class Run:
    """What steps leave behind, in one object, so that whatever shares the optimizer's attributes has it too (Fabric's wrappers, say)."""

    def __init__(self, ties: Ties | None = None) -> None:
        self.plan: Plan | None = None
        self.skipped: Tensor | None = None
        self.options: Callable[[dict[str, Any]], tuple[Any, ...]] | None = None  # those of a parameter group, lr first
        self.captured: list[Plan] = []  # whose tables are read by CUDA graphs
        self.made: list[tuple[tuple[Any, ...], int, Recipe]] = []  # of each parameter group: options, number of keys, what they make
        self.ties = Ties() if ties is None else ties
        self.facts: debug.Facts | None = None  # of the last step, if it was watched
        self.parts: WeakSet[Run] = WeakSet()  # of the parameters that step by themselves, in a backward
        self.copies: Copies | None = None  # what the last state_dict holds

    def plans(self) -> list[Plan]:
        """What the last steps were made with."""
        return [run.plan for run in (self, *self.parts) if run.plan]

    def check_copies(self) -> None:
        """RuntimeError if someone has written into the last state_dict, and has not loaded it."""
        if self.copies:
            self.copies.check()
            self.copies = None

    def release(self) -> None:
        for run in (self, *self.parts):
            run.plan = None


class FusedOptimizer(Optimizer):
    """The part that all rules share. A subclass adds its options and turns a parameter group into a Recipe.

    Args:
        params: what the subclass was given.
        arguments: all arguments of its __init__, by name.
    """

    _first_number = 0  # of its parameters, among those that it is a part of
    _source: Source | None = None  # the preset that has made it
    _seen: frozenset[str] = frozenset({"params", "param_names"})  # keys of groups that are no options, as _check_names has found

    def __init__(self, params: ParamsT, arguments: dict[str, Any]):
        defaults = {name: plain(value) for name, value in arguments.items() if name not in ("self", "params", "__class__")}
        self._check_new(defaults)
        defaults[BEYOND] = process_groups(defaults[BEYOND]) or None
        self._run = Run()
        super().__init__(params, defaults)
        self._seed()
        self._hook()

    def _seed(self) -> None:
        """Where no seed is given: by the parameters' shapes and dtypes, and the first number that no other such optimizer has."""
        if self.defaults.get("seed", 0) is not None:
            return
        alike = tuple(None if is_uninitialized(param) else (tuple(param.shape), param.dtype) for param in self._params())
        if others := _alike[alike]:
            _collect()
        number = next(n for n in count() if n not in others)
        others[number] = self
        self.defaults["seed"] = (crc32(repr(alike).encode()) + (number << 32)) % 2**64
        for group in self.param_groups:
            if group["seed"] is None:
                group["seed"] = self.defaults["seed"]

    @classmethod
    @cache
    def _class_defaults(cls, rule: bool = False) -> dict[str, Any]:
        """Every option with its default: of the first class with a constructor, the rule's, as the classes made from it change them."""
        found: dict[str, Any] = {}
        classes = cls.__mro__[: cls.__mro__.index(FusedOptimizer)]
        for base in classes[-1:] if rule else reversed(classes):
            own = dict(vars(base).get("_fixed", {}))
            if "__init__" in vars(base):
                parameters = inspect.signature(base.__init__).parameters.values()
                own |= {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
            found |= {name: value for name, value in own.items() if not found or name in found}
        return found

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether torch.amp.GradScaler leaves the loss scale and what it has found to step(), in attributes that it deletes afterwards.

        Not where accelerate has put its own step in place: it takes a step that is called for one that is made, so GradScaler, which waits
        for the device then, must leave out those that are not made.
        """
        return getattr(self.__dict__.get("step"), "__module__", None) != "accelerate.optimizer"

    def _check_new(self, options: dict[str, Any]) -> None:
        check_at_least_zero(options, lr="learning rate")
        self.check_group({**options, "seed": 0} if options["seed"] is None else options)

    def _check_names(self, g: int, group: dict[str, Any]) -> None:
        """Warn of each new key that looks like an option but is none."""
        new = group.keys() - self._seen - self.defaults.keys()
        if not new:
            return
        self._seen |= new
        foreign = self._source.names.difference(self.defaults) if self._source else frozenset()
        for key in sorted(key for key in new if isinstance(key, str)):
            if key in foreign:
                hint = f": set an option of it; only groups that are passed or added may have the arguments of {self._source}"
            elif name := closest(key, foreign.union(self.defaults)):
                hint = f": did you mean {name!r}?"
            else:
                continue
            warnings.warn(f"parameter group {g} has {key!r}, which is no option of {type(self).__name__}{hint}", stacklevel=3)

    def _check_changed(self, g: int, group: dict[str, Any]) -> None:
        """Raise ValueError or TypeError for what is wrong in a group that anybody may have changed, or made by hand."""
        check_present(g, group, self.defaults)
        if isinstance(group[BEYOND], set):
            raise ValueError(
                f"parameter group {g} lost its {BEYOND} in a pickle: set optimizer.param_groups[{g}][{BEYOND!r}] again, to process groups "
                "or to None"
            )
        self._check_names(g, group)
        self._check_values(g, group)

    def _check_values(self, g: int, group: dict[str, Any]) -> None:
        try:
            self.check_group(group)
        except (TypeError, ValueError) as error:
            raise type(error)(f"parameter group {g}: {error}") from None

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError or TypeError for a wrong option; a subclass checks its own as well."""
        check_scheduled_lr(group["lr"])
        check_at_least_zero(group, weight_decay="weight_decay value")
        check_positive(group, "rescale_grad")
        check_limits(group, "clip_grad_value", "clip_grad_norm", "clip_weights")
        check_flags(group, "capturable", "maximize", "decoupled_weight_decay", "clip_after_decay", "skip_nonfinite")
        check_choice(group, "clip_norm_over", ("optimizer", "parameter"))
        check_precision_options(group)
        process_groups(group[BEYOND])
        if isinstance(group[CARRIER], str):
            raise ValueError(
                f"{CARRIER}={group[CARRIER]!r} is not supported: it is what a checkpoint has of options that torch lacks; pass the "
                "checkpoint to load_state_dict(), or the options by their names"
            )
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
            if self._source:
                param_group = self._source.translate(param_group)
            param_group = opened(len(self.param_groups), param_group, self.defaults)
            options = {key: plain(value) for key, value in param_group.items() if key in self.defaults}
            self._check_new({**self.defaults, **param_group, **options})
            self._check_names(len(self.param_groups), param_group)
            param_group.update(options)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*duplicate parameters")
            try:
                super().add_param_group(param_group)
            except UserWarning:  # two updates of one parameter in one launch would race
                raise ValueError("a parameter group lists the same parameter twice; list it once") from None
        group = self.param_groups[-1] = Group(self.param_groups[-1], self.defaults)
        settle(len(self.param_groups) - 1, group, self.defaults)
        if group["seed"] is None:
            group["seed"] = self.defaults["seed"]

    def _settled(self) -> list[dict[str, Any]]:
        """The parameter groups, which anybody may have changed."""
        for g, group in enumerate(self.param_groups):
            settle(g, group, self.defaults)
        return self.param_groups

    @property
    def last_grad_norm(self) -> Tensor | None:
        """L2 norm of all gradients at the last step, as clip_grad_norm found it: 0-d float64, on the gradients' device, without a sync.

        That of all together even if each parameter is limited by its own; of rescaled and, unless the update is limited, clipped
        values. Of DTensors, and with a model_parallel_group, it is that of all processes, on each of them, with gradients or without.
        None if no parameter group has a clip_grad_norm, before the first step of this object, load or copy, and else after a
        step without gradients. Unlike that of torch's clip_grad_norm_, the factor limit / norm has no 1e-6 in its denominator.
        With apply_in_backward it is made up of each parameter's last step.
        """
        norms = [norm for plan in self._run.plans() if (norm := plan.grad_norm()) is not None]
        if len(norms) < 2:
            return norms[0] if norms else None
        return torch.stack([norm.to(norms[0].device) for norm in norms]).sort().values.norm()  # the same bits in any order

    @property
    def skipped_steps(self) -> Tensor:
        """How many steps of this object left everything as it was, because a gradient was not finite: 0-d int64, without a sync.

        On the gradients' device, for each step that a ``torch.amp.GradScaler`` or skip_nonfinite watched; not part of a checkpoint.
        """
        skipped = self._run.skipped
        return torch.zeros((), dtype=torch.int64, device="cpu") if skipped is None else skipped.clone()

    # torch.compile ends a graph before it and begins another after it: nothing in it can be traced
    @torch._disable_dynamo  # pyright: ignore[reportPrivateImportUsage]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: a parameter or gradient that cannot be updated; no parameter has changed then, here and below.
            TypeError, ValueError: an option or state that is wrong.
            KeyError: another thread took a state away.
        """
        try:
            return self._step(closure)
        except BaseException:  # else a later step would take what a GradScaler has left for this one
            for name in ("grad_scale", "found_inf"):
                self.__dict__.pop(name, None)
            self._run.ties.end(made=False)
            raise

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if closure is not None:
            if getattr(self, "found_inf", None) is not None:
                raise RuntimeError("a GradScaler looks for infinities before step() calls the closure: call it before scaler.step()")
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            if not self.state and only_makes_states():
                self._make([param for param in self._params() if param.grad is not None])
                return loss
            self._run.check_copies()
            recipes = self._recipes()
            capturing = devices.capturing()
            capturable = any(group["capturable"] for group in self.param_groups)
            if capturing and not capturable:
                raise RuntimeError("step() is captured in a CUDA graph, but capturable=False: make the optimizer with capturable=True")
            run = self._run
            if not capturing:
                run.ties.settle(self._params(), self.state)
            plan, run.plan = run.plan, None  # a step that fails leaves no tables behind
            why = "where there were none" if plan is None else None
            grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
            shards = sharded(self._params()) if plan is None else plan.sharded(self.param_groups)
            elsewhere = placed_grads(shards)
            on_device = capturable or found_inf is not None or any(recipe.skip_nonfinite for recipe in recipes)  # it alone knows of a step
            owned = None  # what the launch reads; nobody, another thread say, can give it away meanwhile
            if plan is not None and plan.counts_on_device >= on_device:
                owned = plan.holds(self.param_groups, recipes, self.state, elsewhere)
            if plan is None or owned is None:
                if capturing:
                    run.plan = plan
                    raise RuntimeError(
                        "step() is captured in a CUDA graph, but must make its tables first: make a step before, with the same parameters, "
                        "options and attributes (grad_scale, found_inf), and gradients of the same shapes and strides"
                    )
                why = why or "since the old ones do not hold for these options, tensors or gradients"
                plan = None  # free the old tables first
                known = set(shards)
                elsewhere |= placed_grads([param for param in sharded(self._params()) if param not in known])
                plan = Plan(type(self).__name__, self.param_groups, recipes, self.state, elsewhere, on_device, self._first_number)
                owned = plan.holds(self.param_groups, recipes, self.state, elsewhere)
                if owned is None:
                    raise RuntimeError("parameters or gradients changed while step() read them: another thread may be writing them")
            if debug.ON:
                run.facts = debug.watch(self.param_groups, plan, owned, run.facts, why)
            skipped = plan.step(recipes, owned, grad_scale, found_inf, capturing)
            if skipped is not None:
                if run.skipped is None or run.skipped.device != skipped.device:
                    run.skipped = self.skipped_steps.to(skipped.device)
                run.skipped += skipped != 0
            run.ties.end(made=skipped is None or skipped.device.type != "cpu" or not skipped)
            run.plan = plan
            if capturing:
                run.captured.append(plan)
        return loss

    def _params(self) -> Iterator[Tensor]:
        return (param for group in self.param_groups for param in group["params"])

    def _recipes(self) -> list[Recipe]:
        """One for each parameter group, made anew where an option is another object than it was, or one that may have changed."""
        made, run = [], self._run
        if run.options is None:
            run.options = itemgetter("lr", *(name for name in self.defaults if name != "lr"))
        for g, group in enumerate(self.param_groups):
            try:
                values = run.options(group)
            except KeyError:
                check_present(g, group, self.defaults)
                raise
            before, n_keys, recipe = run.made[g] if g < len(run.made) else _UNMADE
            changed = sum(map(is_not, values, before)) if len(before) == len(values) and n_keys == len(group) else -1
            # a schedule sets lr at each step, and nothing else
            if recipe is not None and changed == 1 and values[0] is not before[0] and is_scheduled_lr(values[0]):
                recipe = recipe._replace(common=(values[0], *recipe.common[1:]))
            elif recipe is None or changed:
                settle(g, group, self.defaults)
                self._check_changed(g, group)
                recipe, values = self.recipe(group), run.options(group)
                if not all(isinstance(group[key], (*_FIXED, Tensor) if key == "lr" else _FIXED) for key in self.defaults):
                    values = ()
            made.append((values, len(group), recipe))
        run.made = made
        return [recipe for *_, recipe in made]

    def memory(self) -> Memory:
        """How many bytes parameters, gradients, states and tables take up now, in total and a parameter."""
        return Memory.of(self, sum(plan.table_bytes() for plan in self._run.plans()))

    def release(self) -> None:
        """Free the tables of the steps so far, on the device too; the next step makes them anew.

        Between steps they keep no parameter, gradient or state alive; they are about 120 bytes a parameter tensor and 12 for each 1,024
        of its elements.
        """
        self._run.release()

    def share_memory(self) -> "FusedOptimizer":
        """Move states and counters to shared memory, those of every parameter, so that processes update the same (Hogwild, A3C).

        States that are not there yet are made, of parameters without a gradient too. The model needs its own share_memory(). On a GPU
        nothing is moved: its memory is shared as it is. Processes that update at once may lose steps of each other, as with torch's.

        Returns:
            The optimizer.
        """
        self.prepare()
        for values in self.state.values():
            for value in values.values() if isinstance(values, dict) else ():
                if isinstance(value, Tensor):
                    local(value).share_memory_()
        return self

    @torch.no_grad()
    def prepare(self) -> None:
        """Make the states of all parameters now, which else come with a parameter's first step, as those of lazy ones do in any case.

        Raises:
            RuntimeError, ValueError: as step(), before any state was made.
        """
        self._make([param for param in self._params() if not is_uninitialized(param)])

    def _make(self, params: list[Tensor]) -> None:
        """What prepare() does, for some parameters."""
        recipes, wanted = self._recipes(), set(params)
        finished = [(each.param, each.name, recipes[each.group]) for each in named_parameters(self.param_groups) if each.param in wanted]
        for param, name, recipe in finished:
            check_precision(name, local(param), recipe.precision)
            check_state(name, local(param), self.state.get(param, {}), recipe.states)
        for param, _, recipe in finished:
            values = self.state[param]
            fit_in_place(param, values, recipe.states, recipe.precision)
            if not isinstance(step := values.get("step", 0.0), Tensor):
                values["step"] = counter(None, float(step))

    @torch.inference_mode(False)
    @torch.no_grad()  # the first alone would turn gradients on
    def state_dict(self) -> dict[str, Any]:
        """The state in full precision, with torch's names, however it is stored, so that any optimizer of the same rule can load it.

        Returns:
            What torch's has, and no other key; options that torch's lacks stand in that of foreach, if they differ from their defaults.
            8-bit and bfloat16 states are float32; a ``square_avg`` that is stored as a variance is float64;
            ``master_param`` is the float32 master of a parameter, in whichever form it is stored. The optimizer that loads it
            stores it as its own options say; one with the same options goes on bit for bit. What is stored in another form is
            copied, on its device.

        Raises:
            ValueError: a group has more or fewer names than parameters, or a state is of no parameter.
        """
        groups = self._settled()
        named = list(named_parameters(groups))
        check_owners([each.param for each in named], self.state)
        states = cache(lambda g: self.recipe(groups[g]).states)
        for each in named:
            values = self.state.get(each.param)
            if isinstance(values, dict) and "step" in values:  # what was switched on since, and the next step begins, it lacks as yet
                for key, first in states(each.group).items():
                    if key not in values:
                        values[key] = placed(each.param, fitted(local(each.param), first))
        return super().state_dict()

    def _hook(self) -> None:
        """Once, since threads may save at the same time: widen what is saved before others see it, shield what is loaded after them."""
        self._ours = (
            super().register_state_dict_post_hook(FusedOptimizer._widen, prepend=True),
            super().register_load_state_dict_pre_hook(FusedOptimizer._shield),
        )

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        handle = super().register_state_dict_post_hook(hook, prepend)
        self._optimizer_state_dict_post_hooks.move_to_end(self._ours[0].id, last=False)
        return handle

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        handle = super().register_load_state_dict_pre_hook(hook, prepend)
        self._optimizer_load_state_dict_pre_hooks.move_to_end(self._ours[1].id)
        return handle

    def _widen(self: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        run, defaults = self._run, self._class_defaults(rule=True)
        saved, copies = written(state_dict, self.param_groups, self.state, run.ties, defaults)
        run.copies = Copies(copies, run.copies)
        return saved

    @torch.inference_mode(False)
    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of an optimizer of this class or, where it has the same states, of torch's.

        Args:
            state_dict: what state_dict() returned. Its tensors are copied: the two optimizers share none. However states are
                stored in the checkpoint, they come to be stored as the options of this optimizer say, on the parameter's device.
                Options of which it says nothing stay as they are.

        Raises:
            ValueError: other groups, a missing state or one of another shape or unit; nothing has changed then, here and below.
            RuntimeError: a parameter that cannot be stored as the options of this optimizer say.
        """
        super().load_state_dict(state_dict)

    def _shield(self: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        return shielded(state_dict, self._settled(), self.defaults.keys(), self._source)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **({"_source": self._source} if self._source else {})}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what load_state_dict, pickle or deepcopy brings, with states as the kernels read them."""
        groups, states = state["param_groups"], state["state"]
        source = state.get("_source", self._source)
        defaults = self._class_defaults() | (source.options() if source else {}) | state.get("defaults", self.__dict__.get("defaults", {}))
        saved = "defaults" not in state  # load_state_dict brings none
        if not saved:
            state = {**state, "defaults": {name: plain(value) for name, value in defaults.items()}}
        defaults["seed"] = defaults.get("seed") or 0  # what an old pickle lacks
        for g, group in enumerate(groups):
            groups[g] = group = Group(group, defaults)
            settle(g, group, defaults)
            group.update({name: plain(group.get(name, default)) for name, default in defaults.items()})
            self._check_values(g, group)
        recipes = [self.recipe(group) for group in groups]
        named = {each.param: (each.name, recipes[each.group]) for each in named_parameters(groups)}
        new = {
            key: taken(type(self).__name__, key, values, *named[key], saved) if key in named and values else unkept(values)
            for key, values in states.items()
            if isinstance(values, dict)
        }
        states.update(new)
        super().__setstate__(state)
        if "_run" not in self.__dict__:
            self._run = Run()
            self._hook()
        self.release()
        self._run.copies = None
        self._run.ties.clear()
