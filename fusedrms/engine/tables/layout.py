"""From a parameter to the Layout by which it shares a launch, and what that launch must know of it."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...kernels.storage import Storage
from ..options.recipe import Recipe
from ..sharded import local, rank_in, shard_offset
from ..state.full_precision import variance_of
from ..state.precision import PARAM_EMA, WIDE, Precision
from ..state.quantized import code_of
from ..state.storage import rows
from ..state.strides import dense_like, is_conj_or_neg, order
from ..state.tensor_checks import STORED
from .active import Active

DTYPES = {**STORED, torch.int8: "int8", torch.int16: "int16"}  # codes aside
ALIGNMENT = 16  # bytes of a vector access


class Layout(NamedTuple):
    """What a launch is compiled for: parameters share one exactly when rule and Layout agree."""

    device: torch.device
    storage: Storage
    aligned: bool  # every address is a multiple of ALIGNMENT


class Member(NamedTuple):
    """One parameter of a bucket; of a DTensor the local shard."""

    active_index: int  # among the parameters that have a gradient
    group: int  # index of its parameter group
    param: Tensor
    states: list[Tensor]  # all that is updated with the parameter, in the order of its rows: master or remainder, states, scales
    counter: Tensor  # of its steps
    layout: Layout
    random_key: tuple[int, int]
    shard_offset: int  # of the shard's first number in the whole parameter; two numbers make a complex element
    norm: int  # which norm limits its gradient
    counts_from: float | None  # its numbers depend on how many steps it makes, with this many behind it
    state_names: tuple[str, ...]  # of its rule's states
    stats: bool  # its statistics are asked for
    copies_param: bool  # it has gaps: updated through a copy
    copies_grad: bool  # its strides are not the parameter's: read through a copy

    @property
    def numel(self) -> int:
        """Of the numbers to update, two of which make a complex element."""
        return _numel(self.param)


def _numel(param: Tensor) -> int:
    return param.numel() * (1 + param.is_complex())


def storage_of(param: Tensor, grad: Tensor, tensors: dict[str, Tensor], recipe: Recipe) -> Storage:
    """How the values of a parameter are stored.

    Args:
        param, grad: local tensors.
        tensors: what storage.fit() gives for them.
        recipe: of its group.
    """
    master, states = rows(tensors)
    values = [(DTYPES[grad.dtype],), tuple(DTYPES[tensor.dtype] for tensor in (param, *master))]
    for key, (state, *scale) in states.items():
        values.append((code_of(recipe.kinds, key, state.dtype) or DTYPES[state.dtype], *(DTYPES[tensor.dtype] for tensor in scale)))
    return Storage(
        dtypes=tuple(values),
        stochastic=recipe.precision.stochastic_rounding and param.dtype in WIDE,
        variance=variance_of(recipe.kinds, tensors) is not None,
        average=PARAM_EMA in tensors,
        cautious=recipe.cautious,
    )


def _random_key(precision: Precision, number: int, rank: int) -> tuple[int, int]:
    """Two words that no other parameter of the optimizer, no other seed and no other rank has; 0 where nothing is random."""
    if not precision.is_stochastic:
        return 0, 0
    low, high = precision.seed & 0xFFFFFFFF, precision.seed >> 32
    first, second = np.random.SeedSequence((low, high, number, rank)).generate_state(2)
    return int(first), int(second)


def member_of(
    active: Active,
    recipe: Recipe,
    tensors: dict[str, Tensor],
    *,
    active_index: int,
    counter: Tensor,
    steps: float,
    norm: int,
    first_number: int,
    redistributed: bool,
) -> Member:
    """What a launch must know of a parameter.

    Args:
        active: the parameter.
        recipe: of its group.
        tensors: what fit_in_place() gives for it.
        active_index: among the parameters that have a gradient.
        counter: of its steps.
        steps: how many it has had.
        norm: which norm limits its gradient.
        first_number: of the optimizer's parameters, by which their random bits differ.
        redistributed: its gradient is not the one that it has, but made for this step.
    """
    param, grad = local(active.param), active.grad
    master, states = rows(tensors)
    updated = [*master, *(tensor for state in states.values() for tensor in state)]
    dense = order(dense_like(param, device="meta"))
    copies_param = order(param) != dense
    copies_grad = is_conj_or_neg(grad) or order(grad) != dense or redistributed
    first = shard_offset(active.param) * (1 + param.is_complex())
    storage = storage_of(param, grad, tensors, recipe)
    low = first % 2**32
    if storage.random and (first % 4 or (low and low + _numel(param) > 2**32)):
        storage = storage._replace(straddles=True)
    in_place = [*updated, *([] if copies_param else [param]), *([] if copies_grad else [grad])]
    aligned = not any(tensor.data_ptr() % ALIGNMENT for tensor in in_place)
    return Member(
        active_index=active_index,
        group=active.group,
        param=param,
        states=updated,
        counter=counter,
        layout=Layout(device=param.device, storage=storage, aligned=aligned),
        random_key=_random_key(recipe.precision, first_number + active.number, rank_in(recipe.model_parallel)),
        shard_offset=first,
        norm=norm,
        counts_from=steps if recipe.counts_steps else None,
        state_names=tuple(name for name in recipe.states if name != PARAM_EMA),
        stats=recipe.stats > 0,
        copies_param=copies_param,
        copies_grad=copies_grad,
    )
