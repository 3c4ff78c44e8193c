"""Which parameter is updated by which bucket, and whether that still holds."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import count, zip_longest

import numpy as np
import torch
from torch import Tensor

from .buckets import Bucket, Layout, Member
from .kernels.addresses import Snapshot, Versions
from .kernels.launch import Config
from .norms import Norms
from .options import check_precision, check_state, check_tensors
from .recipe import Recipe
from .storage import WIDE, Precision, dense_like, fit, is_lazy, obsolete, order, rows


def named_parameters(groups: list[dict]) -> Iterator[tuple[int, str, Tensor]]:
    """Parameter group, name and parameter, of all; errors call one without a name params[its number]."""
    number = count()
    for g, group in enumerate(groups):
        for param, name in zip_longest(group["params"], group.get("param_names", ())):
            yield g, name or f"params[{next(number)}]", param


def _lists(groups: list[dict]) -> list[list[Tensor]]:
    return [group["params"] if isinstance(group["params"], list) else list(group["params"]) for group in groups]


def _noise(precision: Precision, number: int) -> tuple[int, int]:
    """Two words that no other parameter of the optimizer, and no other seed, has; 0 where nothing is random."""
    if not precision.stochastic_rounding and precision.state_dtype == torch.float32:
        return 0, 0
    low, high = precision.seed & 0xFFFFFFFF, precision.seed >> 32
    first, second = np.random.SeedSequence((low, high, number)).generate_state(2)
    return int(first), int(second)


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
        active = []  # (its number, parameter group, parameter, gradient, steps it has had), where there is a gradient
        idle = []
        for n, (g, parameter, param) in enumerate(named_parameters(groups)):
            if param.grad is None:
                idle.append(param)
                continue
            check_tensors(name, parameter, param, param.grad)
            check_precision(parameter, param, recipes[g].precision)
            check_state(parameter, param, state.get(param, {}), recipes[g].states)
            active.append((n, g, param, param.grad, float(state.get(param, {}).get("step", 0))))
        if len({param for _, _, param, _, _ in active}) != len(active):
            raise RuntimeError(f"a parameter is listed twice; {name} would update it twice at once: list it once")

        members: dict[tuple[str, Layout], list[Member]] = defaultdict(list)
        alone = count(1)
        kept = []  # what a step writes beside the parameters, as (a value of `state`, the name in it)
        for index, (n, g, param, grad, step) in enumerate(active):
            norm = next(alone) if recipes[g].norm_over == "parameter" else 0
            values = state.setdefault(param, {})
            tensors = fit(param, values, recipes[g].states, recipes[g].precision)
            for key in obsolete(values, recipes[g].states, tensors):
                del values[key]
            values.update(tensors)
            kept += [(values, key) for key in tensors]
            member = self._member(index, n, g, param, grad, step, norm, recipes[g], tensors)
            members[recipes[g].rule, member.layout()].append(member)
        n_args = {recipe.rule: len(recipe.args) for recipe in recipes}
        self._buckets = [Bucket(rule, n_args[rule], layout, group) for (rule, layout), group in members.items()]
        for bucket in self._buckets:
            for param, step in zip(bucket.params, bucket.steps.unbind(), strict=True):
                state[param]["step"] = step

        self._norms = Norms(self._buckets, any(recipe.norm_over for recipe in recipes))
        self._kinds = [recipe.kind for recipe in recipes]
        self._active = [param for _, _, param, _, _ in active]
        # a dense tensor of several real numbers is no lazy view (short of torch's private functions), a single or complex one may be
        read = [member for group in members.values() for member in group if not member.stage_grad]
        self._may_be_lazy = [member.param for member in read if member.param.is_complex() or member.param.numel() == 1]
        self._complex = [tensor for group in members.values() for m in group if m.param.is_complex() for tensor in (m.param, *m.kept)]
        counters = [(state[param], "step") for param in self._active]
        self._snapshot = Snapshot(self._active, idle, _lists(groups), state, kept, counters)
        self._versions, self._addresses = Versions(self._active), self._snapshot.address[0].copy()

    @staticmethod
    def _member(
        index: int, number: int, group: int, param: Tensor, grad: Tensor, step: float, norm: int, recipe: Recipe, tensors: dict[str, Tensor]
    ) -> Member:
        beside, states = rows(tensors)
        dense = order(dense_like(param, device="meta"))
        return Member(
            index,
            group,
            param,
            grad,
            beside,
            states,
            "variance" in tensors,
            recipe.precision.stochastic_rounding and param.dtype in WIDE,
            _noise(recipe.precision, number),
            step,
            norm,
            step if recipe.bias_decay else None,
            order(param) != dense,
            is_lazy(grad) or order(grad) != dense,
        )

    def holds(self, groups: list[dict], recipes: list[Recipe], state: defaultdict) -> bool:
        """Whether the tables can be used for this step; reads all addresses."""
        if [recipe.kind for recipe in recipes] != self._kinds or not self._snapshot.same(_lists(groups), state):
            return False
        if any(is_lazy(param.grad) for param in self._may_be_lazy) or any(is_lazy(tensor) for tensor in self._complex):
            return False
        if not all(bucket.counts_hold() for bucket in self._buckets):
            return False
        moved = self._snapshot.moved()
        if moved and not np.array_equal(self._snapshot.address[0], self._addresses):  # perhaps other tensors, with counters of their own
            self._versions, self._addresses = Versions(self._active), self._snapshot.address[0].copy()
        return all(bucket.point_at(*self._snapshot.address) for bucket in self._buckets if moved or bucket.uses_copies)

    def _send(self, recipes: list[Recipe]) -> None:
        for bucket in self._buckets:
            bucket.set_hyper(recipes)
        for bucket in self._buckets:
            bucket.send()

    def launches(self, recipes: list[Recipe], config: Config) -> list[partial]:
        """The launch of each bucket by itself, configured thus, to be timed; `holds` must have been true just before."""
        self._send(recipes)
        for bucket in self._buckets:
            bucket.use(config)
        return [partial(bucket.launch, self._norms.on[bucket.layout.device]) for bucket in self._buckets]

    def step(self, recipes: list[Recipe]) -> None:
        """Update every parameter that has a gradient; `holds` must have been true just before."""
        self._send(recipes)
        self._norms.compute()
        for bucket in self._buckets:
            bucket.step(self._norms.on[bucket.layout.device])
        # the kernels write behind autograd's back; it must know that saved values are gone
        self._versions.increment()

    def table_bytes(self) -> int:
        """Bytes of what the launches read."""
        return sum(bucket.table_bytes for bucket in self._buckets) + self._norms.table_bytes

    def grad_norm(self) -> Tensor | None:
        """L2 norm of all gradients at the last step; None if no recipe limits one."""
        return self._norms.total()
