"""FUSEDRMS_DEBUG=1: it says why tables are made anew, and finds wrong ones."""

import pytest
import torch

from fusedrms import FusedRMSProp
from fusedrms.engine import debug
from tools import parameters, random_grads, step_and_check


def test_debug_says_what_has_changed(monkeypatch, capsys):
    monkeypatch.setattr(debug, "ON", True)
    a, b = parameters([(3, 4), (5,)])
    optimizer = FusedRMSProp([("a", a), ("b", b)])

    def said():
        random_grads([a, b])
        step_and_check(optimizer)
        return capsys.readouterr().err.splitlines()

    assert said() == ["fusedrms: tables made for 2 parameters, where there were none"]
    assert said() == []
    a.data = a.data.t().contiguous().t()
    first, *others = said()
    assert first == "fusedrms: tables made for 2 parameters, since the old ones do not hold for these options, tensors or gradients"
    assert any("a: strides (4, 1) -> (1, 3), address" in line for line in others)
    optimizer.param_groups[0].update(momentum=0.9, lr=1e-3, mine=torch.ones(2))
    assert "fusedrms: parameter group 0: momentum 0 -> 0.9" in said()
    optimizer.param_groups[0]["lr"] = 1e-4
    assert said() == []
    random_grads([a, b])
    b.grad = torch.empty(6, device="cpu")[1:].copy_(b.grad)
    step_and_check(optimizer)
    assert "fusedrms: b.grad: address modulo 16 0 -> 4" in capsys.readouterr().err
    optimizer.state[b]["step"] = optimizer.state[b]["step"].double()
    assert any("the step of b: " in line and "dtype torch.float32 -> torch.float64" in line for line in said())
    optimizer.release()
    assert said() == ["fusedrms: tables made for 2 parameters, where there were none"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda bucket: bucket._host.addresses.__setitem__((1, 0), 4096), "0x1000, where this step has no tensor"),
        (lambda bucket: bucket._host.addresses.__setitem__((1, 0), bucket._host.addresses[1, 1]), "the table of a holds wrong addresses"),
        (lambda bucket: bucket._counters.addresses.__setitem__(0, 8), "0x8, where this step has no tensor"),
        (lambda bucket: bucket._host.hyper.__setitem__((0, 0), torch.nan), "is NaN"),
    ],
    ids=["no tensor", "another's", "counter", "NaN"],
)
def test_debug_finds_wrong_tables(what, message, monkeypatch):
    monkeypatch.setattr(debug, "ON", True)
    a, b = parameters([(3, 4), (12,)])
    optimizer = FusedRMSProp([("a", a), ("b", b)])
    random_grads([a, b])
    optimizer.step()
    before = a.detach().clone()
    what(optimizer._run.plan._buckets[0])
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()
    assert torch.equal(a, before)
