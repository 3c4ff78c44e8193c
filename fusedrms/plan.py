"""Which parameter is updated by which bucket, and whether that still holds."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import count, zip_longest

import torch
from torch import Tensor

from .buckets import Bucket, Layout, Member, dense_like, is_lazy, order
from .kernels.addresses import Snapshot
from .norms import Norms
from .options import check_state, check_tensors
from .recipe import Recipe

_STATE_DTYPE = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.complex32: torch.complex64}


def named_parameters(groups: list[dict]) -> Iterator[tuple[int, str, Tensor]]:
    """Parameter group, name and parameter, of all; errors call one without a name params[its number]."""
    number = count()
    for g, group in enumerate(groups):
        for param, name in zip_longest(group["params"], group.get("param_names", ())):
            yield g, name or f"params[{next(number)}]", param


def _lists(groups: list[dict]) -> list[list[Tensor]]:
    return [group["params"] if isinstance(group["params"], list) else list(group["params"]) for group in groups]


def fit_state(param: Tensor, value: Tensor | None, initial: float = 0.0) -> Tensor:
    """A state as the kernels read it: param's device and order of memory, float32 for 16-bit parameters; `initial` for None."""
    like = dense_like(param, dtype=_STATE_DTYPE.get(param.dtype, param.dtype))
    if value is None:
        (torch.view_as_real(like) if like.is_complex() else like).fill_(initial)
        return like
    fits = (value.device, value.dtype, order(value)) == (like.device, like.dtype, order(like)) and not is_lazy(value)
    return value if fits else like.copy_(value)


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
        active = []  # (parameter group, parameter, gradient, steps it has had), where there is a gradient
        idle = []
        for g, parameter, param in named_parameters(groups):
            if param.grad is None:
                idle.append(param)
                continue
            check_tensors(name, parameter, param, param.grad)
            check_state(parameter, param, state.get(param, {}), recipes[g].states)
            active.append((g, param, param.grad, float(state.get(param, {}).get("step", 0))))
        if len({param for _, param, _, _ in active}) != len(active):
            raise RuntimeError(f"a parameter is listed twice; {name} would update it twice at once: list it once")

        members: dict[tuple[str, Layout], list[Member]] = defaultdict(list)
        alone = count(1)
        for index, (g, param, grad, step) in enumerate(active):
            norm = next(alone) if recipes[g].norm_over == "parameter" else 0
            member = self._member(index, g, param, grad, step, norm, recipes[g], state.setdefault(param, {}))
            members[recipes[g].rule, member.layout()].append(member)
        n_args = {recipe.rule: len(recipe.args) for recipe in recipes}
        self._buckets = [Bucket(rule, n_args[rule], layout, group) for (rule, layout), group in members.items()]
        for bucket in self._buckets:
            for param, step in zip(bucket.params, bucket.steps.unbind(), strict=True):
                state[param]["step"] = step

        self._norms = Norms(self._buckets, any(recipe.norm_over for recipe in recipes))
        self._kinds = [recipe.kind for recipe in recipes]
        self._active = [param for _, param, _, _ in active]
        # a dense tensor of several real numbers is no lazy view (short of torch's private functions), a single or complex one may be
        read = [member for group in members.values() for member in group if not member.stage_grad]
        self._may_be_lazy = [member.param for member in read if member.param.is_complex() or member.param.numel() == 1]
        self._complex = [tensor for group in members.values() for m in group if m.param.is_complex() for tensor in (m.param, *m.states)]
        states = [(state[param], key) for g, param, _, _ in active for key in recipes[g].states]
        counters = [(state[param], "step") for param in self._active]
        self._snapshot = Snapshot(self._active, idle, _lists(groups), state, states, counters)

    @staticmethod
    def _member(index: int, group: int, param: Tensor, grad: Tensor, step: float, norm: int, recipe: Recipe, state: dict) -> Member:
        for key, initial in recipe.states.items():
            state[key] = fit_state(param, state.get(key), initial)
        states = tuple(state[key] for key in recipe.states)
        dense = order(states[0])
        corrected_from = step if recipe.bias_decay else None
        stage = order(param) != dense, is_lazy(grad) or order(grad) != dense
        return Member(index, group, param, grad, states, step, norm, corrected_from, *stage)

    def holds(self, groups: list[dict], recipes: list[Recipe], state: defaultdict) -> bool:
        """Whether the tables can be used for this step; reads all addresses."""
        if [recipe.kind for recipe in recipes] != self._kinds or not self._snapshot.same(_lists(groups), state):
            return False
        if any(is_lazy(param.grad) for param in self._may_be_lazy) or any(is_lazy(tensor) for tensor in self._complex):
            return False
        if not all(bucket.counts_hold() for bucket in self._buckets):
            return False
        moved = self._snapshot.moved()
        return all(bucket.point_at(*self._snapshot.address) for bucket in self._buckets if moved or bucket.uses_copies)

    def step(self, recipes: list[Recipe]) -> None:
        """Update every parameter that has a gradient; `holds` must have been true just before."""
        for bucket in self._buckets:
            bucket.set_hyper(recipes)
        for bucket in self._buckets:
            bucket.send()
        self._norms.compute()
        for bucket in self._buckets:
            bucket.step(self._norms.on[bucket.layout.device])
        # the kernels write behind autograd's back; it must know that saved values are gone
        torch.autograd.graph.increment_version(self._active)

    def grad_norm(self) -> Tensor | None:
        """L2 norm of all gradients at the last step; None if no recipe limits one."""
        return self._norms.total()
