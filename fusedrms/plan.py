"""Which parameter is updated by which bucket, and whether that still holds."""

from collections import defaultdict
from itertools import chain
from operator import attrgetter, itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from .buckets import Bucket, Layout, Member, dense_like, is_lazy, order
from .kernels.addresses import Snapshot
from .options import check_state, check_tensors

_STATE_DTYPE = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.complex32: torch.complex64}
_grad = attrgetter("grad")


class Recipe(NamedTuple):
    """What a parameter group asks for."""

    rule: str  # a function of kernels/rules.py
    states: tuple[str, ...]  # the names of its states, in its order
    common: tuple[float | Tensor, ...]  # rules.COMMON: lr, which may be a tensor, gradient scale, weight decay
    args: tuple[float, ...]  # the rule's own


def parameter_name(groups: list[dict], group: int, index: int) -> str:
    """How errors call a parameter: by its name, if the optimizer was given names."""
    names = groups[group].get("param_names")
    return names[index] if names else f"params[{sum(len(g['params']) for g in groups[:group]) + index}]"


def fit_state(param: Tensor, value: Tensor | None, copy: bool = False) -> Tensor:
    """A state as the kernels read it: param's device and order of memory, float32 for 16-bit parameters; zeros for None."""
    like = dense_like(param, dtype=_STATE_DTYPE.get(param.dtype, param.dtype))
    if value is None:
        return like.zero_()
    fits = (value.device, value.dtype, order(value)) == (like.device, like.dtype, order(like)) and not is_lazy(value)
    return value if fits and not copy else like.copy_(value)


def new_step(value: float = 0.0) -> Tensor:
    """A step counter, as torch makes them: 0-d on the CPU."""
    return torch.tensor(value, dtype=torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32)


class Plan:
    """The buckets of an optimizer, for as long as its parameters, gradients and states look as they did.

    Args:
        name: the optimizer's, for errors.
        groups: its parameter groups.
        recipes: one for each.
        state: the optimizer's, which gets what is missing.

    Raises:
        RuntimeError: a parameter or gradient that cannot be updated; nothing has changed then.
        ValueError: a state of another shape than its parameter's; likewise.
    """

    def __init__(self, name: str, groups: list[dict], recipes: list[Recipe], state: defaultdict):
        active = []  # (parameter group, parameter), those that have a gradient
        self._idle = []
        for g, group in enumerate(groups):
            for index, param in enumerate(group["params"]):
                if param.grad is None:
                    self._idle.append(param)
                    continue
                parameter = parameter_name(groups, g, index)
                check_tensors(name, parameter, param, param.grad)
                check_state(parameter, param, state.get(param, {}), recipes[g].states)
                active.append((g, param))

        members: dict[tuple[str, Layout], list[Member]] = defaultdict(list)
        for index, (g, param) in enumerate(active):
            member = self._member(index, g, param, recipes[g], state[param])
            members[recipes[g].rule, member.layout()].append(member)
        n_args = {recipe.rule: len(recipe.args) for recipe in recipes}
        self._buckets = [Bucket(rule, n_args[rule], layout, group) for (rule, layout), group in members.items()]
        for bucket in self._buckets:
            for param, step in zip(bucket.params, bucket.steps.unbind(), strict=True):
                state[param]["step"] = step

        self._kinds = [recipe[:2] for recipe in recipes]
        self._active = [param for _, param in active]
        self._holders: dict[str, list[dict]] = defaultdict(list)  # state name -> the dicts that must go on holding it
        for g, param in active:
            for key in recipes[g].states:
                self._holders[key].append(state[param])
        self._sizes, self._n_state = [len(group["params"]) for group in groups], len(state)
        self._snapshot = Snapshot([*self._active, *map(_grad, self._active)], list(self._identities(groups, state)))

    @staticmethod
    def _member(index: int, group: int, param: Tensor, recipe: Recipe, state: dict) -> Member:
        state.setdefault("step", new_step())
        for key in recipe.states:
            state[key] = fit_state(param, state.get(key))
        states = tuple(state[key] for key in recipe.states)
        dense = order(states[0])
        stage_grad = is_lazy(param.grad) or order(param.grad) != dense
        return Member(index, group, param, param.grad, states, state["step"], order(param) != dense, stage_grad)

    def _identities(self, groups: list[dict], state: defaultdict):
        """What must stay the object it is: the parameters, the absent gradients, the states and their dicts."""
        params = map(itemgetter("params"), groups)
        states = [map(itemgetter(key), holders) for key, holders in self._holders.items()]
        return chain(*params, map(_grad, self._idle), state.values(), *states)

    def holds(self, groups: list[dict], recipes: list[Recipe], state: defaultdict) -> bool:
        """Whether the tables can be used for this step; reads all addresses."""
        n = len(self._active)
        if (
            [recipe[:2] for recipe in recipes] != self._kinds
            or [len(group["params"]) for group in groups] != self._sizes
            or len(state) != self._n_state
        ):
            return False
        try:
            same = self._snapshot.same(chain(self._active, map(_grad, self._active)), self._identities(groups, state))
        except KeyError:  # a state was deleted
            return False
        addresses = self._snapshot.address
        return same and all([bucket.point_at(addresses[:n], addresses[n:]) for bucket in self._buckets])

    def step(self, recipes: list[Recipe]) -> None:
        """Update every parameter that has a gradient; `holds` must have been true just before."""
        hyper = [recipe.common + recipe.args for recipe in recipes]
        for bucket in self._buckets:
            bucket.step(hyper)
        # the kernels write behind autograd's back; it must know that saved values are gone
        torch.autograd.graph.increment_version(self._active)
