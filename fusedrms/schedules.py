"""neon's learning rate schedules and TensorFlow's, as torch's LRScheduler.

Each gives a rate that depends on the epoch alone, the number of times `step()` was called, and on the rate that each parameter
group had at first. Where it counts steps, call it after each step of the optimizer. `state_dict()` carries everything, so a resumed
run has the same rates.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .engine.options.checks import plain


class _Schedule(LRScheduler):
    """rate(first rate of a group, epoch) of a subclass."""

    def rate(self, base: float, epoch: int) -> float:
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        return [self.rate(float(base), self.last_epoch) for base in self.base_lrs]


def _number(name: str, value: float, least: float = 0.0, above: bool = False) -> float:
    value = plain(value)
    valid = isinstance(value, int | float) and math.isfinite(value) and (value > least if above else value >= least)
    if isinstance(value, bool) or not valid:
        raise ValueError(f"{name}={value!r} is not supported: it must be a finite number {'>' if above else '>='} {least:g}")
    return value


def _epochs(values: Sequence[int]) -> list[int]:
    valid = isinstance(values, Sequence) and all(type(value) is int and value >= 0 for value in values)
    if not valid or list(values) != sorted(set(values)):
        raise ValueError(
            f"step_config={values!r} is not supported: it must be a list of epochs >= 0, each larger than the one before; "
            "for a change every so many epochs use PowerSchedule"
        )
    return list(values)


class MultiStepSchedule(_Schedule):
    """neon's Schedule: lr * change**(number of epochs in step_config that have come).

    Args:
        optimizer: whose learning rates it sets.
        step_config: epochs, ascending, at each of which the rate is multiplied once more; None for a constant rate.
        change: the factor, >= 0; default 1.
        last_epoch: as of LRScheduler; default -1, a fresh start.

    Raises:
        ValueError: another value of step_config or change.

    Source: neon/optimizers/optimizer.py, Schedule with a list; with an integer it is :class:`PowerSchedule`, with two lists
    :class:`StepSchedule`.
    """

    def __init__(self, optimizer: Optimizer, step_config: Sequence[int] | None = None, change: float = 1.0, last_epoch: int = -1):
        self.step_config = _epochs([] if step_config is None else step_config)
        self.change = _number("change", change)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.change ** bisect_right(self.step_config, epoch)


class StepSchedule(_Schedule):
    """The rate change[i] from epoch step_config[i] on; before, that of the optimizer.

    Args:
        optimizer: whose learning rates it sets, all to the same.
        step_config: epochs, ascending.
        change: as many learning rates.
        last_epoch: as of LRScheduler; default -1, a fresh start.

    Raises:
        ValueError: lists of other values or lengths.

    Source: neon/optimizers/optimizer.py. There a rate of 0 means the optimizer's own; here 0 is 0.
    """

    def __init__(self, optimizer: Optimizer, step_config: Sequence[int], change: Sequence[float], last_epoch: int = -1):
        self.step_config = _epochs(step_config)
        if not isinstance(change, Sequence) or len(change) != len(step_config):
            raise ValueError(f"change={change!r} is not supported: it must be a list of {len(step_config)} rates, one for each epoch")
        self.change = [_number("change", rate) for rate in change]
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        passed = bisect_right(self.step_config, epoch)
        return self.change[passed - 1] if passed else base


class PowerSchedule(_Schedule):
    """lr * change**(epoch // step_config).

    Args:
        optimizer: whose learning rates it sets.
        step_config: epochs between changes.
        change: the factor, >= 0.
        last_epoch: as of LRScheduler; default -1, a fresh start.

    Raises:
        ValueError: another value of step_config or change.

    Source: neon/optimizers/optimizer.py.
    """

    def __init__(self, optimizer: Optimizer, step_config: int, change: float, last_epoch: int = -1):
        self.step_config = _number("step_config", step_config, above=True)
        self.change = _number("change", change)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.change ** (epoch // self.step_config)


class ExpSchedule(_Schedule):
    """lr / (1 + decay * epoch).

    Args:
        optimizer: whose learning rates it sets.
        decay: per epoch, >= 0.
        last_epoch: as of LRScheduler; default -1, a fresh start.

    Raises:
        ValueError: another value of decay.

    Source: neon/optimizers/optimizer.py, where it is called exponential though it is hyperbolic.
    """

    def __init__(self, optimizer: Optimizer, decay: float, last_epoch: int = -1):
        self.decay = _number("decay", decay)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base / (1 + self.decay * epoch)


class ShiftSchedule(_Schedule):
    """lr * 2**(-shift_size * (epoch // interval)): the rate is halved shift_size times every interval.

    Args:
        optimizer: whose learning rates it sets.
        interval: epochs.
        shift_size: by how many bits, >= 0; default 1.
        last_epoch: as of LRScheduler; default -1, a fresh start.

    Raises:
        ValueError: another value of interval or shift_size.

    Source: neon/optimizers/optimizer.py.
    """

    def __init__(self, optimizer: Optimizer, interval: int, shift_size: int = 1, last_epoch: int = -1):
        self.interval = _number("interval", interval, above=True)
        self.shift_size = _number("shift_size", shift_size)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * 2.0 ** (-self.shift_size * (epoch // self.interval))


class PolySchedule(_Schedule):
    """lr * (1 - epoch / total_epochs)**power; 0 from total_epochs on.

    Args:
        optimizer: whose learning rates it sets.
        total_epochs: when the rate has come to 0.
        power: of the polynomial, > 0.
        last_epoch: as of LRScheduler; default -1, a fresh start.

    Raises:
        ValueError: another value of total_epochs or power.

    Source: the documentation in neon/optimizers/optimizer.py. Its code divides to an integer by mistake, so that its rate is
    constant until total_epochs.
    """

    def __init__(self, optimizer: Optimizer, total_epochs: int, power: float, last_epoch: int = -1):
        self.total_epochs = _number("total_epochs", total_epochs, above=True)
        self.power = _number("power", power, above=True)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * max(0.0, 1 - epoch / self.total_epochs) ** self.power


class ExponentialDecay(_Schedule):
    """lr * decay_rate**(step / decay_steps), after a rise from 0 over the first steps: EfficientNet's, MobileNet's, NASNet's.

    Args:
        optimizer: whose learning rates it sets.
        decay_steps: in how many the rate comes to decay_rate of itself, > 0; EfficientNet: those of 2.4 epochs.
        decay_rate: >= 0; EfficientNet: 0.97.
        staircase: whether it falls at once each decay_steps; default False, at every step.
        warmup_steps: before this one the rate is lr * step / warmup_steps in its place; the decay counts from the start all the
            same, so that the rate falls at once where it has gone on meanwhile; default 0.
        least: below which part of lr the rate does not come, from 0 to 1, as it does not in AmoebaNet's code with 1e-4; default 0.
        last_epoch: as of LRScheduler; default -1, a fresh start.

    Raises:
        ValueError: another value of these.

    Source: TensorFlow 1's tf.train.exponential_decay; the rise is that of tensorflow/tpu, models/official/efficientnet/utils.py.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        warmup_steps: int = 0,
        least: float = 0.0,
        last_epoch: int = -1,
    ):
        self.decay_steps = _number("decay_steps", decay_steps, above=True)
        self.decay_rate = _number("decay_rate", decay_rate)
        if not isinstance(plain(staircase), bool):
            raise ValueError(f"staircase={staircase!r} is not supported: it must be True or False")
        self.staircase = plain(staircase)
        self.warmup_steps = _number("warmup_steps", warmup_steps)
        self.least = _number("least", least)
        if self.least > 1:
            raise ValueError(f"least={least!r} is not supported: it is a part of the learning rate, from 0 to 1")
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        if epoch < self.warmup_steps:
            part = epoch / self.warmup_steps
        else:
            passed = epoch / self.decay_steps
            part = self.decay_rate ** (math.floor(passed) if self.staircase else passed)
        return base * max(part, self.least)
