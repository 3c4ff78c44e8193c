"""Hooks of steps, and the range that profilers show: torch's own wrapper calls and opens them, only while there are any."""

import threading

import pytest
import torch
from torch.optim import optimizer as torch_optimizer

from fusedrms import FusedRMSProp, FusedSMORMS3
from fusedrms.engine import hooks
from tools import parameters, random_grads

CPU_ONLY = [torch.profiler.ProfilerActivity.CPU]


def one(cls=FusedRMSProp, **options):
    params = parameters([(5,), (2, 3)])
    random_grads(params)
    return cls(params, **options)


class Overridden(FusedRMSProp):
    def step(self, closure=None):
        self.seen = getattr(self, "seen", 0) + 1
        return super().step(closure)


def recorded(optimizer) -> list[tuple]:
    """Calls of all four hooks and of the closure, in the order that they come in."""
    calls = []

    def note(name):
        return lambda which, args, kwargs: calls.append((name, which is optimizer, args[0] is optimizer, args[1:], sorted(kwargs)))

    handles = [
        torch_optimizer.register_optimizer_step_pre_hook(note("global pre")),
        optimizer.register_step_pre_hook(note("pre")),
        optimizer.register_step_post_hook(note("post")),
        torch_optimizer.register_optimizer_step_post_hook(note("global post")),
    ]
    try:
        optimizer.step()
        optimizer.step(lambda: calls.append("closure"))
        optimizer.step(closure=lambda: calls.append("closure"))
    finally:
        for handle in handles:
            handle.remove()
    optimizer.step()
    return [call if isinstance(call, str) else (*call[:3], len(call[3]), call[4]) for call in calls]


@pytest.mark.parametrize("cls", [FusedRMSProp, FusedSMORMS3, Overridden])
def test_all_hooks_as_torch_calls_them(cls):
    theirs = one(torch.optim.RMSprop)
    assert recorded(one(cls)) == recorded(theirs)


def test_a_subclass_calls_them_once():
    """Torch's own do so twice, once FusedRMSProp itself has been made: its step() is hooked, and the one around it."""
    one()
    optimizer, calls = one(Overridden), []
    optimizer.register_step_pre_hook(lambda *args: calls.append("pre"))
    optimizer.step()
    assert (calls, optimizer.seen) == (["pre"], 1)
    optimizer.step(lambda: optimizer.step() if len(calls) < 3 else None)  # a step within a step is one of its own
    assert calls == ["pre"] * 3
    assert optimizer._hooking is None


@pytest.mark.parametrize("when", ["before it is made", "after it"])
def test_a_step_that_is_assigned_to_the_class(when):
    class Assigned(Overridden):
        pass

    before, calls = Overridden.step, []

    def assign():
        Assigned.step = lambda self, *args, **kwargs: before(self, *args, **kwargs)

    if when == "before it is made":
        assign()
    optimizer = one(Assigned)
    assign()
    optimizer.register_step_post_hook(lambda *args: calls.append("post"))
    optimizer.step()
    assert calls == ["post"]


def test_a_hook_may_give_other_arguments():
    optimizer, asked = one(), []
    optimizer.register_step_pre_hook(lambda self, args, kwargs: ((self, lambda: asked.append(1)), {}))
    optimizer.step()
    assert asked == [1]
    optimizer.register_step_pre_hook(lambda *args: 7)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()


def names(profile) -> list[str]:
    return [event.name for event in profile.events() if event.name.startswith("Optimizer.step")]


@pytest.mark.parametrize("cls", [FusedRMSProp, Overridden])
def test_profilers_show_the_range_of_torch(cls):
    optimizer = one(cls)
    optimizer.step()
    with torch.profiler.profile(activities=CPU_ONLY) as profile:
        optimizer.step()
    assert names(profile) == [f"Optimizer.step#{cls.__name__}.step"]
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
    assert [event.name for event in profile.function_events] == [f"Optimizer.step#{cls.__name__}.step"] or names(profile)


def test_nobody_watches(monkeypatch):
    """Then torch's wrapper is not called, by this thread or another."""
    optimizer = one()
    optimizer.step()

    def fail(*args):
        pytest.fail("a range was opened")

    monkeypatch.setattr(torch.autograd.profiler, "record_function", fail)
    optimizer.step()
    thread = threading.Thread(target=optimizer.step)
    thread.start()
    thread.join()
    assert not hooks._is_watched(optimizer)


def test_where_torch_has_other_words_for_who_traces(monkeypatch):
    def leave_untraced(function):
        raise AttributeError("set_code_exec_strategy")

    monkeypatch.setattr(hooks, "_leave_untraced", leave_untraced)

    class Changed(FusedRMSProp):
        def step(self, closure=None):
            return super().step(closure)

    assert Changed.step.hooked
    assert recorded(one(Changed)) == recorded(one(torch.optim.RMSprop))


def test_schedulers_and_scalers_find_it():
    optimizer = one()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.step()
    scheduler.step()
    assert optimizer._opt_called
    assert FusedRMSProp.step.hooked
    assert FusedRMSProp.step.__doc__.startswith("Update every parameter")
