"""Threads and interrupts: another thread replaces what a step reads, a step ends halfway, and no address is read that is gone."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

from fusedrms import FusedRMSProp
from fusedrms.engine import states
from fusedrms.engine.tables import plan
from sample import exhaustive
from tools import natively, parameter, params_of, random_grads


def run(code: str, **env: str) -> str:
    """In a process of its own, which may not crash."""
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


THREADS = """
import threading, time, torch
from fusedrms import FusedRMSProp
torch.set_num_threads({threads})
params = [torch.nn.Parameter(torch.ones(200_000)) for _ in range(8)]
optimizer = FusedRMSProp(params)
gradients = [[torch.full((200_000,), 1.0 + k) for k in range(2)] for _ in params]
for param in params:
    param.grad = torch.ones_like(param)
stop = False
def change():
    n = 0
    while not stop:
        n += 1
        time.sleep(1e-3 * {pause})
        for param in params:
            {what}
thread = threading.Thread(target=change, daemon=True)
thread.start()
for _ in range(100):
    try:
        optimizer.step()
    except (RuntimeError, KeyError):  # torch's may not find them either; but nothing is read that is gone
        assert {may_fail}
stop = True
thread.join()
assert all(bool(param.isfinite().all()) for param in params)
"""


# what the thread does, and how many milliseconds it waits in between
WHAT = {
    "gradients": (0, "param.grad = torch.full((200_000,), 1.0 + n % 3)"),
    "states": (5, "optimizer.state.clear()"),
    "state tensors": (3, "optimizer.state.get(param, {})['square_avg'] = torch.ones(200_000)"),
    "parameters": (5, "optimizer.param_groups[0]['params'] = [torch.nn.Parameter(param.detach().clone()) for param in params]"),
}


@natively
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("what", ["gradients", "states", exhaustive("state tensors"), exhaustive("parameters")])
def test_another_thread_replaces_what_a_launch_reads(what, threads):
    pause, statement = WHAT[what]
    run(THREADS.format(threads=threads, what=statement, pause=pause, may_fail=what != "gradients"))


def test_a_state_that_is_replaced_while_tables_are_made(reading, monkeypatch):
    """The tables hold the address of the one before, which nobody may own by then: nothing is written."""
    param = parameter(torch.ones(10))
    param.grad = torch.ones(10)
    optimizer = FusedRMSProp([param])
    number_norms, before = plan.number_norms, []

    def replace(*args):
        values = optimizer.state[param]
        before.extend([values["square_avg"], values["square_avg"].clone()])
        values["square_avg"] = torch.zeros(10)
        return number_norms(*args)

    monkeypatch.setattr(plan, "number_norms", replace)
    with pytest.raises(RuntimeError, match="another thread may be writing"):
        optimizer.step()
    assert torch.equal(*before)
    assert torch.equal(param, torch.ones(10))


def test_a_state_that_a_step_begins_while_state_dict_does(optimizer, monkeypatch):
    """It is the one that the step has updated."""
    (weight, *_) = params_of(optimizer)
    del optimizer.state[weight]["momentum_buffer"]
    state_like, begun = states.state_like, []

    def step_first(*args):
        if not begun:
            optimizer.step()
            begun.append(optimizer.state[weight]["momentum_buffer"])
        return state_like(*args)

    monkeypatch.setattr(states, "state_like", step_first)
    saved = optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert saved is begun[0] is optimizer.state[weight]["momentum_buffer"]
    assert saved.any()


@pytest.mark.parametrize("missing", [False, exhaustive(True)])
def test_state_dicts_in_threads(optimizer, missing):
    """Nothing is registered at a call, which another thread would see; states that are missing come and go meanwhile."""
    errors = []
    (weight, *_) = params_of(optimizer)

    def save():
        try:
            for _ in range(300):
                if missing:
                    optimizer.state[weight].pop("momentum_buffer", None)
                optimizer.state_dict()
                optimizer.memory()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


def test_autograd_sees_a_step_that_is_interrupted(optimizer):
    """As by Ctrl-C, before it was counted."""
    (weight, *_) = params_of(optimizer)
    random_grads(params_of(optimizer))
    before = weight._version
    (bucket,) = optimizer._run.plan._buckets
    launch = bucket.launch

    def interrupted(*args):
        launch(*args)
        raise KeyboardInterrupt

    bucket.launch = interrupted
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert weight._version > before


def test_an_interrupt_while_addresses_are_read(reading):
    """A class of the user's is the only code of Python's that runs there."""

    class Slow(nn.Parameter):
        interrupt = False

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function == torch.Tensor.grad.__get__ and cls.interrupt:
                cls.interrupt = False
                raise KeyboardInterrupt
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **(kwargs or {}))

    param = Slow(torch.randn(10))
    param.grad = torch.ones(10)
    optimizer = FusedRMSProp([param])
    optimizer.step()
    Slow.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    optimizer.step()
