"""Which parameter is updated by which bucket, and whether that still holds."""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..kernels import devices
from ..kernels.launch import Config
from .addresses import Owned, Snapshot, Versions
from .buckets import Bucket, Layout, Member
from .groups import NamedParameter, named_parameters
from .memory import Named, check_apart, check_memory
from .norms import Scalars
from .options import check_placement, check_precision, check_state, check_steps, check_tensors
from .recipe import Recipe
from .sharded import finish, first_element, is_sharded, local, locals_of, place_in
from .storage import WIDE, Precision, counter, dense_like, fit_in_place, is_lazy, is_variance, order, rows, stored


def _lists(groups: list[dict]) -> list[list[Tensor]]:
    return [group["params"] if isinstance(group["params"], list) else list(group["params"]) for group in groups]


def _noise(precision: Precision, number: int, place: int) -> tuple[int, int]:
    """Two words that no other parameter of the optimizer, no other seed and no process at another place has; 0 where nothing is random."""
    if not precision.is_noisy:
        return 0, 0
    low, high = precision.seed & 0xFFFFFFFF, precision.seed >> 32
    first, second = np.random.SeedSequence((low, high, number, place)).generate_state(2)
    return int(first), int(second)


def steps_of(params: list[Tensor], state: Mapping) -> dict[Tensor, float]:
    """How many each parameter has had; of those counted on GPUs all are asked for at once."""
    counts = {param: state[param]["step"] for param in params if "step" in state.get(param, ())}
    there = {param: count for param, count in counts.items() if isinstance(count, Tensor) and devices.is_gpu(count.device)}
    home = next((count.device for count in there.values()), None)
    known = torch.stack([count.reshape(()).to(home, torch.float64) for count in there.values()]).tolist() if there else []
    return {param: float(count) for param, count in counts.items() if param not in there} | dict(zip(there, known, strict=True))


class _Active(NamedTuple):
    """A parameter that has a gradient."""

    place: int  # among all
    group: int
    name: str
    param: Tensor
    given: Tensor  # its grad
    grad: Tensor  # what is here of that


def _checked(
    optimizer: str, everything: list[NamedParameter], recipes: list[Recipe], state: dict, elsewhere: dict[Tensor, Tensor]
) -> list[_Active]:
    """What a step would update; an error if it cannot."""
    active: list[_Active] = []
    touched: list[Named] = []
    for place, (g, name, param) in enumerate(everything):
        given = param.grad  # read once: another thread may set it
        if given is None:
            continue
        check_placement(name, param, given)
        here, recipe, values = local(param), recipes[g], state.get(param, {})
        grad = elsewhere[param] if param in elsewhere else local(given)
        check_tensors(optimizer, name, here, grad)
        check_precision(name, here, recipe.precision)
        check_state(name, here, values, recipe.states)
        active.append(_Active(place, g, name, param, given, grad))
        values = locals_of(values)
        written = [key for key in (*stored(here, recipe.states, recipe.precision), "step") if isinstance(values.get(key), Tensor)]
        touched += [Named(name, here), Named(f"{name}.grad", grad, written=False)]
        touched += [Named(f"the {key} of {name}", values[key]) for key in written]
    if len({each.param for each in active}) != len(active):
        raise RuntimeError(f"a parameter is listed twice; {optimizer} would update it twice at once: list it once")
    check_memory(touched)
    check_apart(touched)
    return active


class Plan:
    """The buckets of an optimizer, for as long as its parameters, gradients and states look as they did; keeps none of these alive.

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
        ValueError: a state of another shape than its parameter's, or a step that is no number of steps; likewise.
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
        lists: list[list[Tensor]] = [[] for _ in groups]
        for each in everything:
            lists[each.group].append(each.param)
        params = [each.param for each in everything]
        finish(params)
        self._replaced = [k for k, param in enumerate(params) if param in elsewhere]
        self._sharded = [k for k, param in enumerate(params) if is_sharded(param)]
        active = _checked(name, everything, recipes, state, elsewhere)
        alone = count(1)
        # of all parameters, so that processes agree in what they add up, whichever have gradients
        norms = {each.param: next(alone) if recipes[each.group].norm_over == "parameter" else 0 for each in everything}
        steps = steps_of([each.param for each in active], state)
        for each in active:
            check_steps(each.name, steps.get(each.param, 0.0))

        members: dict[tuple[str, Layout], list[Member]] = defaultdict(list)
        kept = []  # what a step writes beside the parameters, as (a value of `state`, the name in it, the tensor)
        counters = []  # likewise
        self._kept_names = []
        for index, (n, g, parameter, param, _, grad) in enumerate(active):
            recipe, values = recipes[g], state.setdefault(param, {})
            tensors = fit_in_place(param, values, recipe.states, recipe.precision)
            kept += [(values, key, values[key]) for key in tensors]
            self._kept_names += [f"the {key} of {parameter}" for key in tensors]
            step = steps.get(param, 0.0)
            values["step"] = own = counter(values.get("step"), step, local(param).device if count_on_device else None)
            counters.append((values, "step", own))
            mine = param, grad, own, step, norms[param], recipe, tensors, param in elsewhere
            member = self._member(index, first_number + n, g, *mine)
            members[recipe.rule, member.layout()].append(member)
        n_args = {recipe.rule: len(recipe.args) for recipe in recipes}
        self._buckets = [Bucket(rule, n_args[rule], layout, group, count_on_device) for (rule, layout), group in members.items()]

        limits, skips = any(recipe.norm_over for recipe in recipes), any(recipe.skip_nonfinite for recipe in recipes)
        self._active, self.names = [each.place for each in active], [each.name for each in active]
        beyond = {each.param: recipes[each.group].beyond for each in everything}
        everywhere = [recipe.beyond for recipe in recipes if recipe.beyond]  # also of groups without parameters
        self._scalars = Scalars(self._buckets, [params[k] for k in self._active], norms, limits, skips, beyond, everywhere)
        self._kinds = [recipe.kind for recipe in recipes]
        # a dense tensor of several real numbers is no lazy view (short of torch's private functions), a single or complex one may be
        everyone = [member for group in members.values() for member in group]
        self._may_be_lazy = [m.number for m in everyone if not m.stage_grad and (m.param.is_complex() or m.param.numel() == 1)]
        self._complex = [m.number for m in everyone if m.param.is_complex()]
        self._complex_states = [k for k, (*_, tensor) in enumerate(kept) if tensor.is_complex()]
        self._snapshot = Snapshot(lists, self._active, [each.given for each in active], state, [*kept, *counters], local)
        self._uses_copies = any(bucket.uses_copies for bucket in self._buckets)

    @staticmethod
    def _member(
        index: int,
        number: int,
        group: int,
        owner: Tensor,
        grad: Tensor,
        counter: Tensor,
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
            param,
            grad,
            beside,
            states,
            is_variance(tensors),
            recipe.precision.stochastic_rounding and param.dtype in WIDE,
            _noise(recipe.precision, number, place_in(recipe.beyond)),
            first_element(owner) * (1 + owner.is_complex()),
            counter,
            norm,
            step if recipe.bias_decay else None,
            order(param) != dense,
            is_lazy(grad) or order(grad) != dense or elsewhere,
        )

    def sharded(self, groups: list[dict]) -> list[Tensor]:
        """The DTensors among the parameters, if they are those that they were."""
        if not self._sharded:
            return []
        params = [param for group in groups for param in group["params"]]
        return [params[k] for k in self._sharded if k < len(params) and is_sharded(params[k])]

    def holds(self, groups: list[dict], recipes: list[Recipe], state: defaultdict, elsewhere: dict[Tensor, Tensor]) -> Owned | None:
        """References to all that a step reads and writes, to be held until it has ended, if the tables can be used for it, else None.

        Reads all addresses; elsewhere as for a Plan. RuntimeError if parameters that have moved share memory now.
        """
        if [recipe.kind for recipe in recipes] != self._kinds:
            return None
        owned = self._snapshot.own(_lists(groups), state)
        if owned is None:
            return None
        if (elsewhere or self._replaced) and [k for k, param in enumerate(owned.params) if param in elsewhere] != self._replaced:
            return None
        if any(is_lazy(local(owned.grads[n])) for n in self._may_be_lazy):
            return None
        if any(is_lazy(local(owned.params[self._active[n]])) for n in self._complex):
            return None
        if any(is_lazy(local(owned.held[k])) for k in self._complex_states):
            return None
        if self._snapshot.may_overlap():
            check_apart(self.touched(owned))
        moved = self._snapshot.moved()
        if self._snapshot.recounted():
            self._versions = Versions(self._bumped(owned))
        params, grads = [], []
        if self._uses_copies:
            params = [local(owned.params[k]) for k in self._active]
            grads = [local(grad) for grad in owned.grads]
            for n, k in enumerate(self._active):
                if owned.params[k] in elsewhere:
                    grads[n] = elsewhere[owned.params[k]]
        addresses, counters = self._snapshot.address, self._snapshot.counter_address
        for bucket in self._buckets:
            if (moved or bucket.uses_copies) and not bucket.point_at(addresses, counters, params, grads):
                return None
        return owned if all(bucket.counts_hold() for bucket in self._buckets) else None

    def _bumped(self, owned: Owned) -> list[Tensor]:
        """What autograd must know to have changed: parameters, and what is here of a DTensor."""
        params = [owned.params[k] for k in self._active]
        return [*params, *(local(param) for param in params if is_sharded(param))]

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
        self,
        recipes: list[Recipe],
        owned: Owned,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
        capturing: bool = False,
    ) -> Tensor | None:
        """Update every parameter that has a gradient.

        Args:
            recipes: one for each parameter group.
            owned: what `holds` has returned just before.
            grad_scale, found_inf: as for Scalars.compute().
            capturing: it is recorded in a graph.

        Returns:
            0-d: not 0 if nothing has changed; None if that cannot be.
        """
        self._send(recipes, capturing)
        self._scalars.compute(grad_scale, found_inf)
        # the kernels write behind autograd's back; it must know that saved values are gone, also where an interrupt comes in between
        self._versions.increment(lambda: self._bumped(owned))
        params = [local(owned.params[k]) for k in self._active] if self._uses_copies else []
        for bucket in self._buckets:
            bucket.step(self._scalars.on[bucket.layout.device], params)
        return self._scalars.skipped()

    def touched(self, owned: Owned) -> list[Named]:
        """What is here of all that a step reads and writes: parameters, then gradients, states and counters."""
        params = [owned.params[k] for k in self._active]
        kept = [*self._kept_names, *(f"the step of {name}" for name in self.names)]
        return [
            *(Named(name, local(param)) for name, param in zip(self.names, params, strict=True)),
            *(Named(f"{name}.grad", local(grad), False) for name, grad in zip(self.names, owned.grads, strict=True)),
            *(Named(name, local(tensor)) for name, tensor in zip(kept, owned.held, strict=True)),
        ]

    def verify(self, touched: list[Named]) -> None:
        """RuntimeError unless the tables say where all lies that touched() has told, and no number in them is NaN."""
        for bucket in self._buckets:
            bucket.verify(touched, len(self._active))

    def table_bytes(self) -> int:
        """Bytes of what the launches read."""
        return sum(bucket.table_bytes for bucket in self._buckets) + self._scalars.table_bytes

    def grad_norm(self) -> Tensor | None:
        """L2 norm of all gradients at the last step; None if no recipe limits one."""
        return self._scalars.total()
