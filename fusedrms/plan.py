"""Which parameter is updated by which bucket, and whether that still holds."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import count, zip_longest

import numpy as np
import torch
from torch import Tensor

from .buckets import Bucket, Layout, Member
from .kernels import devices
from .kernels.addresses import Snapshot, Versions
from .kernels.launch import Config
from .norms import Scalars
from .options import check_placement, check_precision, check_state, check_tensors
from .recipe import Recipe
from .sharded import finish, first_element, local, locals_of, placed, sharded
from .storage import WIDE, Precision, dense_like, fit, is_lazy, obsolete, order, rows


def named_parameters(groups: list[dict]) -> Iterator[tuple[int, str, Tensor]]:
    """Parameter group, name and parameter, of all; errors call one without a name params[its number].

    Raises:
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


def _steps(state: dict) -> dict[Tensor, float]:
    """How many each parameter has had; of those counted on GPUs all are asked for at once."""
    counts = {param: values["step"] for param, values in state.items() if isinstance(values, dict) and "step" in values}
    there = {param: count for param, count in counts.items() if isinstance(count, Tensor) and devices.is_gpu(count.device)}
    home = next((count.device for count in there.values()), None)
    known = torch.stack([count.reshape(()).to(home, torch.float64) for count in there.values()]).tolist() if there else []
    return {param: float(count) for param, count in counts.items() if param not in there} | dict(zip(there, known, strict=True))


class Plan:
    """The buckets of an optimizer, for as long as its parameters, gradients and states look as they did.

    Args:
        name: the optimizer's, for errors.
        groups: its parameter groups.
        recipes: one for each.
        state: the optimizer's, which gets what is missing.
        elsewhere: placed_grads() of all parameters.
        count_on_device: steps of parameters on GPUs are counted there.
        first_number: of the parameters, by which their random bits differ.

    Raises:
        RuntimeError: a parameter or gradient that cannot be updated; nothing has changed then.
        ValueError: a state of another shape than its parameter's; likewise.
    """

    def __init__(
        self,
        name: str,
        groups: list[dict],
        recipes: list[Recipe],
        state: defaultdict,
        elsewhere: dict[Tensor, Tensor],
        count_on_device: bool = False,
        first_number: int = 0,
    ):
        self.counts_on_device = count_on_device
        everything = list(named_parameters(groups))
        params = [param for _, _, param in everything]
        finish(params)
        self._replaced, self.sharded = frozenset(elsewhere), sharded(params)
        steps = _steps(state)
        active = []  # (its number, parameter group, parameter, gradient, steps it has had), where there is a gradient
        idle = []
        alone = count(1)
        # of all parameters, so that processes agree in what they add up, whichever have gradients
        norms = {param: next(alone) if recipes[g].norm_over == "parameter" else 0 for g, _, param in everything}
        for n, (g, parameter, param) in enumerate(everything, first_number):
            if param.grad is None:
                idle.append(param)
                continue
            check_placement(parameter, param, param.grad)
            grad = elsewhere[param] if param in elsewhere else local(param.grad)
            check_tensors(name, parameter, local(param), grad)
            check_precision(parameter, local(param), recipes[g].precision)
            check_state(parameter, local(param), locals_of(state.get(param, {})), recipes[g].states)
            active.append((n, g, param, grad, steps.get(param, 0.0)))
        if len({param for _, _, param, _, _ in active}) != len(active):
            raise RuntimeError(f"a parameter is listed twice; {name} would update it twice at once: list it once")

        members: dict[tuple[str, Layout], list[Member]] = defaultdict(list)
        kept = []  # what a step writes beside the parameters, as (a value of `state`, the name in it)
        for index, (n, g, param, grad, step) in enumerate(active):
            values = state.setdefault(param, {})
            tensors = fit(local(param), locals_of(values), recipes[g].states, recipes[g].precision)
            for key in obsolete(values, recipes[g].states, tensors):
                del values[key]
            values.update((key, placed(param, tensor)) for key, tensor in tensors.items() if tensor is not local(values.get(key)))
            assert all(local(values[key]) is tensor for key, tensor in tensors.items())  # else nobody would keep its memory
            kept += [(values, key) for key in tensors]
            member = self._member(index, n, g, param, grad, step, norms[param], recipes[g], tensors, param in elsewhere)
            members[recipes[g].rule, member.layout()].append(member)
        n_args = {recipe.rule: len(recipe.args) for recipe in recipes}
        self._buckets = [Bucket(rule, n_args[rule], layout, group, count_on_device) for (rule, layout), group in members.items()]
        for bucket in self._buckets:
            for param, step in zip(bucket.owners, bucket.steps.unbind(), strict=True):
                state[param]["step"] = step

        limits, skips = any(recipe.norm_over for recipe in recipes), any(recipe.skip_nonfinite for recipe in recipes)
        self._scalars = Scalars(self._buckets, norms, limits, skips)
        self._kinds = [recipe.kind for recipe in recipes]
        self._active = [param for _, _, param, _, _ in active]
        # a dense tensor of several real numbers is no lazy view (short of torch's private functions), a single or complex one may be
        read = [member for group in members.values() for member in group if not member.stage_grad]
        self._may_be_lazy = [member.owner for member in read if member.param.is_complex() or member.param.numel() == 1]
        self._complex = [tensor for group in members.values() for m in group if m.param.is_complex() for tensor in (m.param, *m.kept)]
        counters = [(state[param], "step") for param in self._active]
        self._snapshot = Snapshot(self._active, idle, _lists(groups), state, kept, counters, local)
        self._note_versions()

    def _note_versions(self) -> None:
        here = (local(param) for param in self._active)  # of a DTensor also what is here
        self._versions = Versions([*self._active, *(part for part, param in zip(here, self._active, strict=True) if part is not param)])
        self._addresses = self._snapshot.address[0].copy()

    @staticmethod
    def _member(
        index: int,
        number: int,
        group: int,
        owner: Tensor,
        grad: Tensor,
        step: float,
        norm: int,
        recipe: Recipe,
        tensors: dict[str, Tensor],
        elsewhere: bool = False,
    ) -> Member:
        beside, states = rows(tensors)
        param = local(owner)
        dense = order(dense_like(param, device="meta"))
        return Member(
            index,
            group,
            owner,
            param,
            grad,
            beside,
            states,
            "variance" in tensors,
            recipe.precision.stochastic_rounding and param.dtype in WIDE,
            _noise(recipe.precision, number),
            first_element(owner) * (1 + owner.is_complex()),
            step,
            norm,
            step if recipe.bias_decay else None,
            order(param) != dense,
            is_lazy(grad) or order(grad) != dense or elsewhere,
        )

    def holds(self, groups: list[dict], recipes: list[Recipe], state: defaultdict, elsewhere: dict[Tensor, Tensor]) -> bool:
        """Whether the tables can be used for this step; reads all addresses; elsewhere as for a Plan."""
        if elsewhere.keys() != self._replaced or [recipe.kind for recipe in recipes] != self._kinds:
            return False
        if not self._snapshot.same(_lists(groups), state):
            return False
        if any(is_lazy(local(param.grad)) for param in self._may_be_lazy) or any(is_lazy(tensor) for tensor in self._complex):
            return False
        if not all(bucket.counts_hold() for bucket in self._buckets):
            return False
        moved = self._snapshot.moved()
        if moved and not np.array_equal(self._snapshot.address[0], self._addresses):  # perhaps other tensors, with counters of their own
            self._note_versions()
        params, grads = self._snapshot.address
        return all(bucket.point_at(params, grads, elsewhere) for bucket in self._buckets if moved or bucket.uses_copies)

    def _send(self, recipes: list[Recipe], capturing: bool = False) -> None:
        for bucket in self._buckets:
            bucket.set_hyper(recipes)
        for bucket in self._buckets:
            bucket.send(capturing)

    def launches(self, recipes: list[Recipe], config: Config) -> list[partial]:
        """The launch of each bucket by itself, configured thus, to be timed; `holds` must have been true just before."""
        self._send(recipes)
        for bucket in self._buckets:
            bucket.use(config)
        return [partial(bucket.launch, self._scalars.on[bucket.layout.device]) for bucket in self._buckets]

    def step(
        self, recipes: list[Recipe], grad_scale: Tensor | None = None, found_inf: Tensor | None = None, capturing: bool = False
    ) -> Tensor | None:
        """Update every parameter that has a gradient; `holds` must have been true just before.

        Args:
            recipes: one for each parameter group.
            grad_scale, found_inf: as for Scalars.compute().
            capturing: it is recorded in a graph.

        Returns:
            0-d: not 0 if nothing has changed; None if that cannot be.
        """
        self._send(recipes, capturing)
        self._scalars.compute(grad_scale, found_inf)
        for bucket in self._buckets:
            bucket.step(self._scalars.on[bucket.layout.device])
        # the kernels write behind autograd's back; it must know that saved values are gone
        self._versions.increment()
        return self._scalars.skipped()

    def table_bytes(self) -> int:
        """Bytes of what the launches read."""
        return sum(bucket.table_bytes for bucket in self._buckets) + self._scalars.table_bytes

    def grad_norm(self) -> Tensor | None:
        """L2 norm of all gradients at the last step; None if no recipe limits one."""
        return self._scalars.total()
