"""Which parameter is updated by which bucket, and whether that still holds."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple
from weakref import ref

from torch import Tensor
from torch.nn.parameter import is_lazy as is_uninitialized

from ...kernels.launch import Config
from ..options.groups import NamedParameter, named_parameters
from ..options.recipe import Recipe
from ..ownership.facts import LOOKED_UP, MAY_OVERLAP, MOVED, Owned
from ..ownership.memory import Named, check_apart
from ..ownership.snapshot import Snapshot, StateTensor, held_in
from ..sharded import is_sharded, local, wait_for_grads
from ..state.storage import counter, fit_in_place
from .active import Active, find_active, steps_before
from .buckets import Bucket
from .caution import Caution
from .layout import Layout, Member, member_of
from .lazy_views import LazyViews
from .measured import Measured
from .norms import Scalars, number_norms
from .spikes import Spikes


def _lists(groups: list[dict]) -> list[list[Tensor]]:
    return [group["params"] if isinstance(group["params"], list) else list(group["params"]) for group in groups]


def _indices(params: list[Tensor], found: dict[Tensor, Tensor]) -> list[int]:
    """Indices of those that are found."""
    return [k for k, param in enumerate(params) if param in found]


class _State(NamedTuple):
    """The state of a parameter that has a gradient."""

    tensors: dict[str, Tensor]  # the local ones that a step writes, but for the counter
    held: list[StateTensor]  # the same as the optimizer holds them
    counter: StateTensor
    steps: float  # before this one


class Plan:
    """The buckets of an optimizer, for as long as its parameters, gradients and states look as they did; keeps none of these alive.

    Args:
        name: the optimizer's, for errors.
        groups: its parameter groups.
        recipes: one for each.
        state: the optimizer's, which gets what is missing.
        redistributed: placed_grads() of all parameters.
        count_on_device: steps of parameters on GPUs are counted there.
        first_number: of the parameters, by which their random bits differ.
        spikes: as for Scalars.

    Attributes:
        other_grads: it has not held since other parameters have gradients; it may again.

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
        redistributed: dict[Tensor, Tensor],
        count_on_device: bool = False,
        first_number: int = 0,
        spikes: Spikes | None = None,
    ):
        self.counts_on_device, self.other_grads, self._is_stale = count_on_device, False, False
        named = list(named_parameters(groups))
        params = [each.param for each in named]
        wait_for_grads(params)
        self._kinds, self._recipes = [recipe.kind for recipe in recipes], None
        self._redistributed = _indices(params, redistributed)
        self._sharded = [k for k, param in enumerate(params) if is_sharded(param)]

        active = find_active(name, named, recipes, state, redistributed)
        self._active, self.names = [each.number for each in active], [each.name for each in active]
        self._measured = [ref(each.param) for each in active] if any(recipe.stats for recipe in recipes) else []
        states = self._make_states(active, recipes, state)
        norms = number_norms(named, recipes)
        members = [
            member_of(
                each,
                recipes[each.group],
                its.tensors,
                active_index=k,
                counter=its.counter.tensor,
                steps=its.steps,
                norm=norms[each.param],
                first_number=first_number,
                redistributed=each.param in redistributed,
            )
            for k, (each, its) in enumerate(zip(active, states, strict=True))
        ]
        self._buckets = self._make_buckets(members, recipes)
        self._uses_copies = any(bucket.uses_copies for bucket in self._buckets)
        self._counting = [bucket for bucket in self._buckets if bucket.depends_on_counts]
        self._on_gpus = [bucket for bucket in self._buckets if bucket.is_on_gpu]
        self._scalars = self._make_scalars(named, recipes, norms, spikes)
        # what must be done before the launches
        self._first = [partial(b.count_on_device, self._scalars.on[b.layout.device]) for b in self._buckets if b.counts_on_device]
        cautious = [each.param for each in named if recipes[each.group].cautious and not is_uninitialized(each.param)]
        if cautious:
            self._first.append(partial(Caution(self._buckets, [params[k] for k in self._active], cautious, self._scalars).compute))
        self._record(named, active, states, state, members)

    def _make_states(self, active: list[Active], recipes: list[Recipe], state: defaultdict) -> list[_State]:
        """Let the optimizer's state hold all that a step writes, as the kernels read it."""
        made = []
        for each, steps in zip(active, steps_before(active, state), strict=True):
            recipe, values = recipes[each.group], state.setdefault(each.param, {})
            tensors = fit_in_place(each.param, values, recipe.states, recipe.precision, recipe.kinds)
            device = local(each.param).device if self.counts_on_device else None
            values["step"] = counted = counter(values.get("step"), steps, device)
            # at once, since another thread may replace them: the snapshot must be of what the tables point at
            held, own = held_in(values, tensors), StateTensor(values=values, key="step", tensor=counted)
            made.append(_State(tensors=tensors, held=held, counter=own, steps=steps))
        return made

    def _make_buckets(self, members: list[Member], recipes: list[Recipe]) -> list[Bucket]:
        """One for each rule and Layout."""
        alike: dict[tuple[str, Layout], list[Member]] = defaultdict(list)
        for member in members:
            alike[recipes[member.group].rule, member.layout].append(member)
        return [
            Bucket(rule=rule, layout=layout, members=group, count_on_device=self.counts_on_device)
            for (rule, layout), group in alike.items()
        ]

    def _make_scalars(self, named: list[NamedParameter], recipes: list[Recipe], norms: dict[Tensor, int], spikes: Spikes | None) -> Scalars:
        return Scalars(
            buckets=self._buckets,
            active=[named[k].param for k in self._active],
            norms=norms,
            limits=any(recipe.norm_over for recipe in recipes),
            skips=any(recipe.skip_nonfinite for recipe in recipes),
            spikes=spikes,
            model_parallel={each.param: recipes[each.group].model_parallel for each in named},
            all_model_parallel=[recipe.model_parallel for recipe in recipes if recipe.model_parallel],  # also of groups without parameters
        )

    def _record(
        self, named: list[NamedParameter], active: list[Active], states: list[_State], state: defaultdict, members: list[Member]
    ) -> None:
        """Take down how everything looks that the tables are made from."""
        held, counters = [one for its in states for one in its.held], [its.counter for its in states]
        self._state_names = [f"the {key} of {each.name}" for each, its in zip(active, states, strict=True) for key in its.tensors]
        self._lazy_views = LazyViews(self._active, members, held)
        lists: list[list[Tensor]] = [[] for _ in self._kinds]
        for each in named:
            lists[each.group].append(each.param)
        grads = [each.own_grad for each in active]
        self._snapshot = Snapshot(lists=lists, active=self._active, grads=grads, state=state, held=[*held, *counters])

    def sharded(self, groups: list[dict]) -> list[Tensor]:
        """The DTensors among the parameters, if they are those that they were."""
        if not self._sharded:
            return []
        params = [param for group in groups for param in group["params"]]
        return [params[k] for k in self._sharded if k < len(params) and is_sharded(params[k])]

    def holds(self, groups: list[dict], recipes: list[Recipe], state: defaultdict, redistributed: dict[Tensor, Tensor]) -> Owned | None:
        """References to all that a step reads and writes, to be held until it has ended, if the tables can be used for it, else None.

        Reads all addresses; redistributed as for a Plan. RuntimeError if parameters that have moved share memory now. Once they cannot be
        used, but for other_grads, they never are again: they may not say where all lies now.
        """
        self.other_grads = False
        if self._is_stale:
            return None
        self._is_stale = True
        owned = self._own(groups, recipes, state, redistributed)
        self._is_stale = owned is None and not self.other_grads
        return owned

    def _own(self, groups: list[dict], recipes: list[Recipe], state: defaultdict, redistributed: dict[Tensor, Tensor]) -> Owned | None:
        if recipes is not self._recipes and [recipe.kind for recipe in recipes] != self._kinds:
            return None
        snapshot = self._snapshot
        owned = snapshot.own(_lists(groups), state)
        self.other_grads = snapshot.other_grads
        if owned is None or (snapshot.flags & LOOKED_UP and self._lazy_views.appeared(owned)):
            return None
        if (redistributed or self._redistributed) and _indices(owned.params, redistributed) != self._redistributed:
            return None
        if snapshot.flags & MAY_OVERLAP and snapshot.overlaps():
            check_apart(self.touched(owned))
        moved = bool(snapshot.flags & MOVED)
        if (moved or self._uses_copies) and not self._point(owned, redistributed, moved):
            return None
        return owned if all(map(Bucket.counts_hold, self._counting)) else None

    def _point(self, owned: Owned, redistributed: dict[Tensor, Tensor], moved: bool) -> bool:
        """Let the tables say where all lies now; False if they cannot."""
        params: list[Tensor] = []
        grads: list[Tensor] = []
        if self._uses_copies:
            whole = [owned.params[k] for k in self._active]
            params = [local(param) for param in whole]
            grads = [redistributed[k] if k in redistributed else local(grad) for k, grad in zip(whole, owned.grads, strict=True)]
        addresses, counters = self._snapshot.address, self._snapshot.counter_address
        return all(bucket.point_at(addresses, counters, params, grads) for bucket in self._buckets if moved or bucket.uses_copies)

    def _send(self, recipes: list[Recipe], capturing: bool = False) -> None:
        if recipes is not self._recipes:
            self._recipes, self._changing = recipes, self._buckets
        if self._changing:
            for bucket in self._changing:
                bucket.set_hyper(recipes)
            self._changing = [bucket for bucket in self._changing if not bucket.is_constant]
        for bucket in self._on_gpus:
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
        least_norm: Tensor | float | None = None,
        capturing: bool = False,
        measures: bool = False,
    ) -> Tensor | None:
        """Update every parameter that has a gradient.

        Args:
            recipes: one for each parameter group.
            owned: what `holds` has returned just before.
            grad_scale, found_inf, least_norm: as for Scalars.compute().
            capturing: it is recorded in a graph.
            measures: take statistics of the parameters whose groups ask for them.

        Returns:
            0-d: as tables.SKIP, not 0 if nothing has changed; None if that cannot be.
        """
        self._send(recipes, capturing)
        self._scalars.compute(grad_scale, found_inf, least_norm)
        # the kernels write behind autograd's back; it must know that saved values are gone, also where an interrupt comes in between
        self._snapshot.count_versions(owned)
        params = [local(owned.params[k]) for k in self._active] if self._uses_copies else []
        for do in self._first:
            do()
        for bucket in self._buckets:
            bucket.step(self._scalars.on[bucket.layout.device], params, measures)
        return self._scalars.skipped()

    def touched(self, owned: Owned) -> list[Named]:
        """The local tensors that a step reads and writes: parameters, then gradients, states and counters."""
        params = [owned.params[k] for k in self._active]
        names = [*self._state_names, *(f"the step of {name}" for name in self.names)]
        return [
            *(Named(name, local(param)) for name, param in zip(self.names, params, strict=True)),
            *(Named(f"{name}.grad", local(grad), written=False) for name, grad in zip(self.names, owned.grads, strict=True)),
            *(Named(name, local(tensor)) for name, tensor in zip(names, owned.states, strict=True)),
        ]

    @property
    def is_measured(self) -> bool:
        """Whether every launch that may take statistics has."""
        return all(bucket.measured or not bucket.asks for bucket in self._buckets)

    def measured(self) -> Iterator[tuple[list[Tensor | None], Measured]]:
        """Of each bucket that has been measured: its parameters, if they still exist, and what it has written."""
        for bucket in self._buckets:
            if bucket.measured:
                yield [self._measured[k]() for k in bucket.active_index], bucket.measured

    def verify(self, touched: list[Named]) -> None:
        """RuntimeError unless the tables say where all lies that touched() has told, and no number in them is NaN."""
        for bucket in self._buckets:
            bucket.verify(touched, len(self._active))

    def table_bytes(self) -> int:
        """Bytes of what the launches read."""
        return sum(bucket.table_bytes for bucket in self._buckets) + self._scalars.table_bytes

    def grad_norm(self) -> Tensor | None:
        """L2 norm of all gradients at the last step; None if no recipe limits one, or leaves steps out by it."""
        return self._scalars.total()
