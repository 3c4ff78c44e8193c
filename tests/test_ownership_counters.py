"""Counters and states lie where the user, torch and other processes find them: all are updated in place."""

import io
import os
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from fusedrms import FusedRMSProp
from tools import natively, parameter, parameters, params_of, random_grads, step_and_check


def shared(optimizer):
    for values in optimizer.state.values():
        values["step"].share_memory_()


def cloned_in_place(optimizer):
    """As helpers do that offload states."""
    for values in optimizer.state.values():
        values["step"].data = values["step"].data.clone()


def sent(optimizer):
    """What a torch.multiprocessing.Queue does to each tensor, twice."""
    for _ in range(2):
        ForkingPickler.dumps(optimizer.state_dict())


def of_one_element(optimizer):
    """As pytorch-a3c makes them."""
    for values in optimizer.state.values():
        values["step"] = torch.full((1,), float(values["step"]))


def in_float64(optimizer):
    for values in optimizer.state.values():
        values["step"] = values["step"].double()


def as_integers(optimizer):
    for values, dtype in zip(optimizer.state.values(), (torch.int64, torch.int32, torch.float32), strict=True):
        values["step"] = values["step"].to(dtype)


@pytest.mark.parametrize(
    "change", [shared, cloned_in_place, sent, of_one_element, in_float64, as_integers], ids=lambda change: change.__name__
)
def test_counters_are_counted_where_they_lie(optimizer, change):
    params = params_of(optimizer)
    change(optimizer)
    counters = [optimizer.state[param]["step"] for param in params]
    for n in range(3, 6):
        random_grads(params)
        step_and_check(optimizer)
        assert all(optimizer.state[param]["step"] is counter for param, counter in zip(params, counters, strict=True))
        assert [counter.item() for counter in counters] == [n] * 3
        assert [values["step"].item() for values in optimizer.state_dict()["state"].values()] == [n] * 3


def test_a_kept_state_dict_goes_on_counting(optimizer):
    """As torch's, whose state_dict shares tensors with the state, also when tables are made anew."""
    kept = optimizer.state_dict()["state"]
    params_of(optimizer)[1].grad = None
    optimizer.step()
    random_grads(params_of(optimizer))
    optimizer.step()
    assert [kept[k]["step"].item() for k in range(3)] == [4, 3, 4]


def test_a_state_is_saved_alone():
    params = [parameter(torch.zeros(1)) for _ in range(2000)]
    optimizer = FusedRMSProp(params)
    random_grads(params)
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state[params[7]], file)
    assert len(file.getvalue()) < 3000


A3C = """
import os, torch, torch.multiprocessing as mp
from fusedrms import FusedRMSProp
def work(model, optimizer):
    for _ in range(3):
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
if __name__ == "__main__":
    model = torch.nn.Linear(3, 2).share_memory()
    optimizer = FusedRMSProp(model.parameters(), lr=0.1, bias_correction=True)
    {share}
    context = mp.get_context("{start}")
    for _ in range({workers}):
        process = context.Process(target=work, args=(model, optimizer))
        process.start(); process.join(); assert process.exitcode == 0
    print(*(int(values["step"]) for values in optimizer.state.values()))
    print(*(float(values["square_avg"].max()) for values in optimizer.state.values()))
    work(model, optimizer)
    print(*(int(values["step"]) for values in optimizer.state.values()))
"""


BY_HAND = "work(model, optimizer); [v.share_memory_() for values in optimizer.state.values() for v in values.values()]"


@pytest.mark.exhaustive
@natively
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("share", "workers"), [("optimizer.share_memory()", 2), (BY_HAND, 1)], ids=["share_memory", "by hand"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_share_an_optimizer(start, share, workers, tmp_path):
    """Workers count on in the parent's memory (A3C), however they are started."""
    script = tmp_path / "a3c.py"
    script.write_text(A3C.format(start=start, share=share, workers=workers))
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    counts, averages, counts_then = ([float(word) for word in line.split()] for line in result.stdout.splitlines())
    assert counts == [6, 6]
    assert averages == pytest.approx([1 - 0.99**6] * 2, rel=1e-5)
    assert counts_then == [9, 9]


def test_share_memory_of_all_states():
    """Also those of parameters that have had no gradient yet; what is shared is updated in place."""
    params = parameters([(5,), (3, 2)])
    optimizer = FusedRMSProp(params, centered=True, momentum=0.5, initial_square_avg=2.0).share_memory()
    tensors = [value for param in params for value in optimizer.state[param].values()]
    assert len(tensors) == 8
    assert all(tensor.is_shared() for tensor in tensors)
    random_grads(params)
    step_and_check(optimizer)
    assert all(value is tensor for value, tensor in zip((v for p in params for v in optimizer.state[p].values()), tensors, strict=True))
