"""Tensors that share memory: an error where one would write what another reads, and none for neighbours."""

import pytest
import torch

from fusedrms import FusedRMSProp
from tools import parameter, parameters, params_of, random_grads, step_and_check


def tied(a, b):
    b.data = a.data


def within(a, b):
    memory = torch.zeros(1500)
    a.data, b.data = memory[:1000], memory[500:]


OVERLAPS = {
    "tied": (tied, r"weights\.0 and weights\.1 share memory"),
    "within": (within, r"weights\.0 and weights\.1 share memory"),
    "gradient": (
        lambda a, b: setattr(b, "grad", a.detach()),
        r"weights\.0 and weights\.1\.grad share memory|weights\.1\.grad and weights\.0 ",
    ),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_shared_memory_is_refused(case, reading):
    share, message = OVERLAPS[case]
    a, b = parameters([(1000,), (1000,)])
    optimizer = FusedRMSProp([("weights.0", a), ("weights.1", b)])
    random_grads([a, b])
    share(a, b)
    before = a.detach().clone()
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()
    assert torch.equal(a, before)
    assert not optimizer.state


def test_shared_states_are_refused(optimizer):
    params = params_of(optimizer)
    optimizer.state[params[0]]["square_avg"] = optimizer.state[params[2]]["square_avg"][10:43]
    with pytest.raises(RuntimeError, match=r"the square_avg of params\[\d\] and the square_avg of params\[\d\] share memory"):
        optimizer.step()


MOVES = {
    "gradient to a parameter": lambda ours, theirs, state: setattr(ours, "grad", theirs.data),
    "data of a gradient": lambda ours, theirs, state: setattr(ours.grad, "data", theirs.data),
    "gradient to a state": lambda ours, theirs, state: setattr(ours, "grad", state[theirs]["square_avg"]),
    "gradient to its own state": lambda ours, theirs, state: setattr(ours, "grad", state[ours]["square_avg"]),
    "counter to a counter": lambda ours, theirs, state: setattr(state[ours]["step"], "data", state[theirs]["step"].data),
    "counter to a parameter": lambda ours, theirs, state: setattr(state[ours]["step"], "data", theirs.data[3]),
}


@pytest.mark.parametrize("move", MOVES)
def test_what_moves_onto_memory_that_is_written(reading, move):
    """After tables were made: the same error as before."""
    params = parameters([(8,), (8,)])
    optimizer = FusedRMSProp(params)
    for _ in range(3):
        random_grads(params)
        step_and_check(optimizer)
    MOVES[move](*params, optimizer.state)
    before = [tensor.clone() for tensor in (*params, *(value for values in optimizer.state.values() for value in values.values()))]
    with pytest.raises(RuntimeError, match=r"params\[\d\].* and .*params\[\d\].* share memory"):
        optimizer.step()
    after = [*params, *(value for values in optimizer.state.values() for value in values.values())]
    assert all(map(torch.equal, before, after))


def test_neighbours_are_no_overlap(reading):
    """Rows and columns of one matrix, bytes between each other's, gradients that share all."""
    matrix, flat = torch.randn(40, 30), torch.randn(200)
    parts = [matrix[:, k::3] for k in range(3)] + [flat[:100], flat[100:]]
    params = [parameter(part) for part in parts]
    assert params[0].data_ptr() == matrix.data_ptr()
    optimizer = FusedRMSProp(params)
    for _ in range(2):
        whole = torch.randn(40, 10)
        for param in params[:3]:
            param.grad = whole
        random_grads(params[3:])
        step_and_check(optimizer)


def test_columns_that_share_an_element():
    matrix = torch.randn(40, 30)
    optimizer = FusedRMSProp([parameter(matrix[:, :16]), parameter(matrix[:, 15:])])
    random_grads(params_of(optimizer))
    with pytest.raises(RuntimeError, match=r"params\[0\] and params\[1\] share memory"):
        optimizer.step()


def test_overlaps_are_found_fast():
    """Among 20,000 tensors, columns of one matrix too."""
    from fusedrms.engine.ownership.memory import Named, check_apart

    matrix = torch.zeros(4, 20000)
    check_apart([Named(str(k), matrix[:, k]) for k in range(20000)])
