"""neon's schedules, by the rates that its documentation lists, and TensorFlow's, as LRSchedulers that resume."""

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler, SequentialLR

from fusedrms import FusedRMSProp, FusedSMORMS3, schedules
from tools import parameters, random_grads

# arguments, first rate, rates of epochs 0 to 9; the first three as in neon's docstrings
RATES = [
    ("MultiStepSchedule", dict(step_config=[2, 6], change=0.5), 1.0, [1.0] * 2 + [0.5] * 4 + [0.25] * 4),
    ("StepSchedule", dict(step_config=[2, 6], change=[0.6, 0.4]), 1.0, [1.0] * 2 + [0.6] * 4 + [0.4] * 4),
    ("PowerSchedule", dict(step_config=2, change=0.5), 0.1, [0.1 * 0.5 ** (e // 2) for e in range(10)]),
    ("MultiStepSchedule", {}, 0.3, [0.3] * 10),
    ("MultiStepSchedule", dict(step_config=[0, 1], change=2), 1.0, [2.0] + [4.0] * 9),
    ("StepSchedule", dict(step_config=[0, 3], change=[0.5, 0.0]), 1.0, [0.5] * 3 + [0.0] * 7),
    ("ExpSchedule", dict(decay=0.5), 1.0, [1 / (1 + 0.5 * e) for e in range(10)]),
    ("ShiftSchedule", dict(interval=3), 1.0, [1.0] * 3 + [0.5] * 3 + [0.25] * 3 + [0.125]),
    ("ShiftSchedule", dict(interval=4, shift_size=2), 0.3, [0.3] * 4 + [0.075] * 4 + [0.01875] * 2),
    ("ExponentialDecay", dict(decay_steps=2.5, decay_rate=0.5), 0.3, [0.3 * 0.5 ** (e / 2.5) for e in range(10)]),
    (
        "ExponentialDecay",
        dict(decay_steps=np.int64(2), decay_rate=np.float32(0.5), staircase=np.True_),
        1.0,
        [0.5 ** (e // 2) for e in range(10)],
    ),
    # EfficientNet's: its warm-up has not reached the rate when decay, counted from the start, sets in
    (
        "ExponentialDecay",
        dict(decay_steps=2.4, decay_rate=0.97, staircase=True, warmup_steps=5),
        0.25,
        [0.0, 0.05, 0.1, 0.15, 0.2, 0.25 * 0.97**2, 0.25 * 0.97**2, 0.25 * 0.97**2, 0.25 * 0.97**3, 0.25 * 0.97**3],
    ),
    ("ExponentialDecay", dict(decay_steps=1, decay_rate=0.1, warmup_steps=2, least=1e-3), 1.0, [1e-3, 0.5, 1e-2] + [1e-3] * 7),
    ("PolySchedule", dict(total_epochs=8, power=2), 0.1, [0.1 * (1 - e / 8) ** 2 for e in range(8)] + [0.0] * 2),
]


def make(name, options, rate, **more):
    optimizer = FusedRMSProp(parameters([(3,)]), lr=rate)
    return optimizer, getattr(schedules, name)(optimizer, **options, **more)


def rates(optimizer, schedule, epochs):
    for _ in range(epochs):
        random_grads(optimizer.param_groups[0]["params"])
        optimizer.step()
        yield float(optimizer.param_groups[0]["lr"])
        schedule.step()


@pytest.mark.parametrize(("name", "options", "rate", "expected"), RATES)
def test_rates(name, options, rate, expected):
    optimizer, schedule = make(name, options, rate)
    assert isinstance(schedule, LRScheduler)
    assert list(rates(optimizer, schedule, 10)) == pytest.approx(expected, rel=1e-15)
    assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize(("name", "options", "rate", "expected"), RATES)
@pytest.mark.parametrize("at", [1, 3, 7])
def test_resume(name, options, rate, expected, at, tmp_path):
    """State dicts through a file, and by last_epoch as torch's own schedulers take it."""
    optimizer, schedule = make(name, options, rate)
    list(rates(optimizer, schedule, at))
    torch.save([optimizer.state_dict(), schedule.state_dict()], tmp_path / "checkpoint")
    saved = torch.load(tmp_path / "checkpoint")
    again, resumed = make(name, options, rate)
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    assert list(rates(again, resumed, 10 - at)) == pytest.approx(expected[at:], rel=1e-15)

    again, _ = make(name, options, rate)
    again.load_state_dict(saved[0])
    resumed = getattr(schedules, name)(again, **options, last_epoch=at - 1)
    assert list(rates(again, resumed, 10 - at)) == pytest.approx(expected[at:], rel=1e-15)


def test_groups_and_tensor_rates():
    """Every group from its own first rate; a tensor stays one."""
    params = parameters([(3,), (4,)])
    optimizer = FusedSMORMS3([dict(params=params[:1], lr=torch.tensor(0.5, dtype=torch.float64)), dict(params=params[1:], lr=0.2)])
    lr = optimizer.param_groups[0]["lr"]
    schedule = schedules.ShiftSchedule(optimizer, interval=1)
    random_grads(params)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.25, 0.1]


def test_inside_of_torchs_schedulers():
    optimizer = FusedRMSProp(parameters([(3,)]), lr=1.0)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=2)
    schedule = SequentialLR(optimizer, [warmup, schedules.ExpSchedule(optimizer, 1.0)], milestones=[2])
    assert list(rates(optimizer, schedule, 5)) == pytest.approx([0.5, 0.75, 1.0, 1 / 2, 1 / 3])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("MultiStepSchedule", dict(step_config=3), "step_config=3"),
        ("MultiStepSchedule", dict(step_config=[3, 2], change=0.5), r"step_config=\[3, 2\]"),
        ("MultiStepSchedule", dict(step_config=[3], change=[0.5]), r"change=\[0.5\]"),
        ("StepSchedule", dict(step_config=[1, 2], change=[0.5]), "list of 2 rates"),
        ("StepSchedule", dict(step_config=[1], change=[float("nan")]), "change=nan"),
        ("PowerSchedule", dict(step_config=0, change=0.5), "step_config=0"),
        ("PowerSchedule", dict(step_config=2, change=-0.5), "change=-0.5 .*>= 0"),
        ("MultiStepSchedule", dict(step_config=torch.tensor([1, 2]), change=0.5), "step_config=tensor"),
        ("MultiStepSchedule", dict(step_config=5, change=0.5), "use PowerSchedule"),
        ("ExpSchedule", dict(decay=-1), "decay=-1 .*>= 0"),
        ("ExpSchedule", dict(decay=torch.zeros(2)), "decay=tensor"),
        ("ShiftSchedule", dict(interval=-2), "interval=-2"),
        ("PolySchedule", dict(total_epochs="ten", power=1), "total_epochs='ten'"),
        ("ExponentialDecay", dict(decay_steps=0, decay_rate=0.9), "decay_steps=0 .*> 0"),
        ("ExponentialDecay", dict(decay_steps=1, decay_rate=-0.9), "decay_rate=-0.9"),
        ("ExponentialDecay", dict(decay_steps=1, decay_rate=0.9, staircase=1), "staircase=1 .*True or False"),
        ("ExponentialDecay", dict(decay_steps=1, decay_rate=0.9, least=1.5), "least=1.5 .*from 0 to 1"),
        ("ExponentialDecay", dict(decay_steps=1, decay_rate=0.9, warmup_steps=-1), "warmup_steps=-1"),
        ("PolySchedule", dict(total_epochs=10, power=float("inf")), "power=inf"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, options, 0.1)
