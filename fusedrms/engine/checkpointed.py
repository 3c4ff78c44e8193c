"""state_dict, load_state_dict, pickles and copies of an optimizer."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch.optim.optimizer import ParamsT
from torch.utils.hooks import RemovableHandle

from .checkpoints.carrier import ACCEPTED, pack_norm, unpack_norm
from .checkpoints.copies import Copies
from .checkpoints.dcp import Group
from .checkpoints.groups import mend
from .checkpoints.states import from_checkpoint, restore_states, to_checkpoint
from .grouped import GroupedOptimizer
from .locks import Held
from .options.checks import check_infinities_show, plain
from .options.groups import named_parameters
from .options.skip_above import agreed
from .run import Run
from .state.state_checks import check_owners
from .states import begin_missing


class CheckpointedOptimizer(GroupedOptimizer):
    """An optimizer whose checkpoints are those of torch's, however its states are stored."""

    _lock: Held | None = None  # of steps that processes share

    def __init__(self, params: ParamsT, arguments: dict[str, Any]):
        super().__init__(params, arguments)
        self._hook()

    @torch.inference_mode(False)
    @torch.no_grad()  # the first alone would turn gradients on
    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizer in full precision, with torch's names and keys.

        Any optimizer of the same rule can load it, torch's too. States of 8 bits, 4 bits and bfloat16 are float32 here. A `square_avg` that
        is stored as a variance is float64. `master_param` is the float32 master, in whichever form it is stored. What is stored in another
        form is copied, on its device. The optimizer that loads it stores it as its own options say; one with the same options goes on bit
        for bit.

        Returns:
            A dict with the keys of torch's `state_dict()`. Options that torch does not have stand in the value of `foreach`, if they differ
                from their defaults.

        Raises:
            ValueError: A group has more or fewer names than parameters, or a state belongs to no parameter.
            RuntimeError: Within `averaged()`.
        """
        self._run.check_not_averaged("state_dict()")
        groups = self._mended()
        named = list(named_parameters(groups))
        check_owners([each.param for each in named], self.state)

        def initial(g: int) -> dict[str, float | None]:
            return self.recipe(groups[g]).states

        begin_missing(named, self.state, cache(initial), self.kinds)
        return super().state_dict()

    @torch.inference_mode(False)
    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of an optimizer of this class or, if it has the same states, of torch's.

        Args:
            state_dict: What `state_dict()` returned. Its tensors are copied, to the parameters' device and in the form that the options of
                this optimizer say. Options that it does not have stay as they are.

        Raises:
            ValueError: No checkpoint of an optimizer, other groups, a missing state, or a state of another shape or unit. Here and below,
                nothing has changed then.
            RuntimeError: A parameter cannot be stored as the options of this optimizer say; or within `averaged()`.
            TypeError: It is no dict.

        Examples:
            >>> model = torch.nn.Linear(4, 2)
            >>> theirs = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9)
            >>> model(torch.ones(8, 4)).sum().backward()
            >>> theirs.step()
            >>> optimizer = FusedRMSProp(model.parameters())
            >>> optimizer.load_state_dict(theirs.state_dict())
            >>> optimizer.param_groups[0]["momentum"]
            0.9
        """
        self._run.check_not_averaged("load_state_dict()")
        if not isinstance(state_dict, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - what users pass
            raise TypeError(
                f"load_state_dict() takes what state_dict() has returned, not {state_dict!r:.80}: read a file with torch.load()"
            )
        super().load_state_dict(state_dict)

    def _hook(self) -> None:
        """Once, since threads may save at the same time: convert what is saved before others see it, and what is loaded after them."""
        self._ours = (
            super().register_state_dict_post_hook(CheckpointedOptimizer._to_checkpoint, prepend=True),
            super().register_load_state_dict_pre_hook(CheckpointedOptimizer._from_checkpoint),
        )

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """As torch's; the hook gets the checkpoint in full precision.

        Args:
            hook: `hook(optimizer, state_dict)`, which returns None or another dict.
            prepend: Call it before the hooks that were registered earlier. Default False.

        Returns:
            A handle whose `remove()` removes the hook.
        """
        handle = super().register_state_dict_post_hook(hook, prepend)
        self._optimizer_state_dict_post_hooks.move_to_end(self._ours[0].id, last=False)
        return handle

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """As torch's; the hook gets the checkpoint as it was passed to `load_state_dict()`.

        Args:
            hook: `hook(optimizer, state_dict)`, which returns None or another dict.
            prepend: Call it before the hooks that were registered earlier. Default False.

        Returns:
            A handle whose `remove()` removes the hook.
        """
        handle = super().register_load_state_dict_pre_hook(hook, prepend)
        self._optimizer_load_state_dict_pre_hooks.move_to_end(self._ours[1].id)
        return handle

    def _to_checkpoint(self: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        run, defaults = self._run, self._class_defaults(rule=True)
        saved, copies = to_checkpoint(
            state_dict, self.param_groups, self.state, ties=run.ties, defaults=defaults, accepted=run.accepted(), kinds=self.kinds
        )
        if run.backwards and (norm := run.backwards.following()) is not None:
            pack_norm(saved["param_groups"], float(norm))
        run.copies = Copies(copies, run.copies)
        return saved

    def _from_checkpoint(self: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        if missing := [key for key in ("state", "param_groups") if key not in state_dict]:
            raise ValueError(
                f"the state_dict has no {missing[0]!r}, but {', '.join(map(repr, state_dict)) or 'nothing'!s:.200}: "
                "pass what state_dict() of an optimizer has returned"
            )
        loadable = from_checkpoint(state_dict, self._mended(), self.defaults.keys(), self.kinds, self._source)
        if self._run.backwards:
            self._run.backwards.loaded = unpack_norm(state_dict["param_groups"])
        return loadable

    def __getstate__(self) -> dict[str, Any]:
        self._run.check_not_averaged("a copy or a pickle")
        own = {"_source": self._source, "_lock": self._lock, ACCEPTED: self._run.accepted()}
        return {**super().__getstate__(), **{key: value for key, value in own.items() if value}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what load_state_dict, pickle or deepcopy brings, with states as the kernels read them."""
        groups, states = state["param_groups"], state["state"]
        source = state.get("_source", self._source)
        defaults = self._class_defaults() | (source.options() if source else {}) | state.get("defaults", self.__dict__.get("defaults", {}))
        saved = "defaults" not in state  # load_state_dict brings none
        if not saved:
            state = {**state, "defaults": {name: plain(value) for name, value in defaults.items()}}
        defaults["seed"] = defaults.get("seed") or 0  # what an old pickle lacks
        carried: list[list[float] | None] = [each.pop(ACCEPTED, None) for each in (state, *groups)]
        accepted = next((norms for norms in carried if norms), list[float]())
        for g, group in enumerate(groups):
            groups[g] = group = Group(group, defaults)
            mend(g, group, defaults)
            group.update({name: plain(group.get(name, default)) for name, default in defaults.items()})
            self._check_values(g, group)
        recipes = [self.recipe(group) for group in groups]
        option = agreed(recipe.skip_above for recipe in recipes)
        check_infinities_show(groups)
        states.update(restore_states(type(self).__name__, groups, recipes, states, saved))
        super().__setstate__(state)
        if "_run" not in self.__dict__:
            self._run = Run()
            self._hook()
        self._run.restart(option, accepted)
