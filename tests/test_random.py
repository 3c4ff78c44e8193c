"""Random parameter lists against torch: dtypes, shapes, strides, groups, missing gradients."""

import inspect
import math
import random

import pytest
import torch

from cases import BF16, F16, F32, F64
from fusedrms import FusedRMSProp, FusedSMORMS3
from tools import STATES, parameter, step_and_check, twins

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SMORMS3_OPTIONS = ["params", *inspect.signature(FusedSMORMS3).parameters]

dtypes = st.sampled_from([F32, F32, BF16, F16, F64, torch.complex64])
shapes = st.lists(st.integers(0, 6), max_size=4).map(tuple) | st.sampled_from([(1023,), (1024,), (4097,), (2, 1, 700)])


hyper = st.fixed_dictionaries(
    dict(
        lr=st.sampled_from([0.0, 1e-3, 0.1]),
        alpha=st.sampled_from([0.5, 0.9, 0.99]),
        eps=st.sampled_from([1e-8, 1e-3]),
        weight_decay=st.sampled_from([0.0, 0.1]),
        momentum=st.sampled_from([0.0, 0.9]),
        centered=st.booleans(),
        maximize=st.booleans(),
    )
)
family = st.fixed_dictionaries(
    {},
    optional=dict(
        eps_placement=st.sampled_from(["outside", "inside", "both", "floor"]),
        lr_in_momentum=st.booleans(),
        nesterov=st.booleans(),
        decoupled_weight_decay=st.booleans(),
        initial_square_avg=st.sampled_from([0.0, 1.0]),
        bias_correction=st.booleans(),
        rescale_grad=st.sampled_from([0.25, 3.0]),
        clip_grad_value=st.sampled_from([None, 0.5]),
        clip_after_decay=st.booleans(),
        clip_grad_norm=st.sampled_from([None, 0.3, 100.0]),
        clip_norm_on=st.sampled_from(["gradient", "update"]),
        clip_norm_over=st.sampled_from(["optimizer", "parameter"]),
        clip_weights=st.sampled_from([None, 0.7]),
    ),
)
groups = st.lists(st.tuples(hyper, st.lists(st.tuples(shapes, dtypes), min_size=1, max_size=4)), min_size=1, max_size=3)


def tensor(choose: random.Random, shape, dtype):
    """A tensor whose memory may be permuted, shifted or have gaps."""
    permutation = choose.sample(range(len(shape)), len(shape))
    inverse = sorted(range(len(shape)), key=permutation.__getitem__)
    gap, offset = choose.choice([(1, 0), (1, 0), (1, 1), (2, 0), (3, 1)])
    sizes = [shape[d] for d in permutation]
    strides = [gap * math.prod(sizes[d + 1 :]) for d in range(len(sizes))]
    memory = torch.randn(gap * math.prod(sizes) + offset + 1, dtype=torch.complex128 if dtype.is_complex else F64).to(dtype)
    return memory.as_strided(sizes, strides, offset).permute(inverse)


@pytest.mark.exhaustive
@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(groups, st.integers(0, 2**32 - 1))
def test_random_parameter_lists(groups, seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    ours = FusedRMSProp(dict(params=[parameter(tensor(choose, *kind)) for kind in kinds], **options) for options, kinds in groups)
    theirs = torch.optim.RMSprop({**group, "params": twins(group["params"])} for group in ours.param_groups)
    pairs = [
        pair for a, b in zip(ours.param_groups, theirs.param_groups, strict=True) for pair in zip(a["params"], b["params"], strict=True)
    ]
    for _ in range(2):
        for p, q in pairs:
            p.grad = tensor(choose, p.shape, p.dtype) if choose.random() < 0.8 else None
            q.grad = None if p.grad is None else p.grad.clone()
        step_and_check(ours)
        theirs.step()
        for p, q in pairs:
            assert (p in ours.state) == (q in theirs.state)
            if p not in ours.state:
                assert torch.equal(p, q)
                continue
            assert ours.state[p].keys() == theirs.state[q].keys()
            assert ours.state[p]["step"].item() == theirs.state[q]["step"].item()
            if p.dtype not in (BF16, F16):  # torch keeps their states in 16 bits
                torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-3, atol=1e-3)
                for key in STATES:
                    if key in ours.state[p]:
                        torch.testing.assert_close(ours.state[p][key], theirs.state[q][key], rtol=1e-4, atol=2e-3)


family_groups = st.lists(st.tuples(hyper, family, st.lists(st.tuples(shapes, dtypes), min_size=1, max_size=3)), min_size=1, max_size=3)


@pytest.mark.exhaustive
@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(family_groups, st.integers(0, 2**32 - 1), st.booleans())
def test_random_members_of_the_family(groups, seed, smorms3):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    made = []
    for options, more, kinds in groups:
        group = {**options, **more, "params": [parameter(tensor(choose, *kind)) for kind in kinds]}
        group["nesterov"] = group.get("nesterov", False) and group["momentum"] > 0
        made.append({key: value for key, value in group.items() if not smorms3 or key in SMORMS3_OPTIONS})
    optimizer = FusedSMORMS3(made) if smorms3 else FusedRMSProp(made)
    for _ in range(3):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = tensor(choose, p.shape, p.dtype) if choose.random() < 0.8 else None
        step_and_check(optimizer)
