"""neon's schedules."""

from bisect import bisect_right
from collections.abc import Sequence

from torch.optim import Optimizer

from .schedule import Schedule, number


def _epochs(values: Sequence[int]) -> list[int]:
    valid = isinstance(values, Sequence) and all(type(value) is int and value >= 0 for value in values)
    if not valid or list(values) != sorted(set(values)):
        raise ValueError(
            f"step_config={values!r} is not supported: it must be a list of epochs >= 0, each larger than the one before; "
            "for a change every so many epochs use PowerSchedule"
        )
    return list(values)


class MultiStepSchedule(Schedule):
    r"""neon's Schedule: the learning rate is multiplied by `change` at each of some epochs.

    $$
    \text{lr} = \text{lr}_0 \cdot \text{change}^k, \qquad k = \text{number of epochs in step\_config} \le \text{epoch}
    $$

    Args:
        optimizer: Optimizer whose learning rates it sets.
        step_config: Epochs, ascending, at each of which the learning rate is multiplied once more. Default None: a constant rate.
        change: The factor, 0 or more. Default 1.0.
        last_epoch: As of torch's `LRScheduler`. Default -1: a fresh start.

    Raises:
        ValueError: `step_config` is no ascending list of epochs, or `change` is no finite number of 0 or more.

    Examples:
        >>> optimizer = FusedRMSProp([torch.nn.Parameter(torch.ones(3))], lr=1.0)
        >>> schedule = schedules.MultiStepSchedule(optimizer, step_config=[2, 3], change=0.5)
        >>> [schedule.rate(1.0, epoch) for epoch in range(5)]
        [1.0, 1.0, 0.5, 0.25, 0.25]

    Source: neon 1f3036c, `neon/optimizers/optimizer.py`, `Schedule` with a list. With an integer it is
    [`PowerSchedule`][fusedrms.schedules.PowerSchedule], with two lists [`StepSchedule`][fusedrms.schedules.StepSchedule].
    """

    def __init__(self, optimizer: Optimizer, step_config: Sequence[int] | None = None, change: float = 1.0, last_epoch: int = -1):
        self.step_config = _epochs([] if step_config is None else step_config)
        self.change = number("change", change)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.change ** bisect_right(self.step_config, epoch)


class StepSchedule(Schedule):
    r"""neon's StepSchedule: a learning rate of its own from each of some epochs on.

    $$
    \text{lr} = \text{change}_i, \qquad i = \text{last one with step\_config}_i \le \text{epoch}
    $$

    Before the first of these epochs it is the optimizer's own.

    Args:
        optimizer: Optimizer whose learning rates it sets, those of all parameter groups to the same.
        step_config: Epochs, ascending.
        change: As many learning rates, each 0 or more.
        last_epoch: As of torch's `LRScheduler`. Default -1: a fresh start.

    Raises:
        ValueError: The lists have other values, or other lengths.

    Examples:
        >>> optimizer = FusedRMSProp([torch.nn.Parameter(torch.ones(3))], lr=1.0)
        >>> schedule = schedules.StepSchedule(optimizer, step_config=[2, 3], change=[0.5, 0.1])
        >>> [schedule.rate(1.0, epoch) for epoch in range(5)]
        [1.0, 1.0, 0.5, 0.1, 0.1]

    Source: neon 1f3036c, `neon/optimizers/optimizer.py`. There a learning rate of 0 means the optimizer's own; here 0 is 0.
    """

    def __init__(self, optimizer: Optimizer, step_config: Sequence[int], change: Sequence[float], last_epoch: int = -1):
        self.step_config = _epochs(step_config)
        if not isinstance(change, Sequence) or len(change) != len(step_config):
            raise ValueError(f"change={change!r} is not supported: it must be a list of {len(step_config)} rates, one for each epoch")
        self.change = [number("change", rate) for rate in change]
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        passed = bisect_right(self.step_config, epoch)
        return self.change[passed - 1] if passed else base


class PowerSchedule(Schedule):
    r"""neon's PowerSchedule: the learning rate is multiplied by `change` every `step_config` epochs.

    $$
    \text{lr} = \text{lr}_0 \cdot \text{change}^{\lfloor \text{epoch} / \text{step\_config} \rfloor}
    $$

    Args:
        optimizer: Optimizer whose learning rates it sets.
        step_config: Epochs between two changes, above 0.
        change: The factor, 0 or more.
        last_epoch: As of torch's `LRScheduler`. Default -1: a fresh start.

    Raises:
        ValueError: `step_config` or `change` is another value.

    Examples:
        >>> optimizer = FusedRMSProp([torch.nn.Parameter(torch.ones(3))], lr=1.0)
        >>> schedule = schedules.PowerSchedule(optimizer, step_config=2, change=0.5)
        >>> [schedule.rate(1.0, epoch) for epoch in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]

    Source: neon 1f3036c, `neon/optimizers/optimizer.py`.
    """

    def __init__(self, optimizer: Optimizer, step_config: int, change: float, last_epoch: int = -1):
        self.step_config = number("step_config", step_config, above=True)
        self.change = number("change", change)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.change ** (epoch // self.step_config)


class ExpSchedule(Schedule):
    r"""neon's ExpSchedule: hyperbolic decay.

    $$
    \text{lr} = \frac{\text{lr}_0}{1 + \text{decay} \cdot \text{epoch}}
    $$

    Args:
        optimizer: Optimizer whose learning rates it sets.
        decay: Decay per epoch, 0 or more.
        last_epoch: As of torch's `LRScheduler`. Default -1: a fresh start.

    Raises:
        ValueError: `decay` is another value.

    Examples:
        >>> optimizer = FusedRMSProp([torch.nn.Parameter(torch.ones(3))], lr=1.0)
        >>> schedule = schedules.ExpSchedule(optimizer, decay=1.0)
        >>> [schedule.rate(1.0, epoch) for epoch in (0, 1, 3)]
        [1.0, 0.5, 0.25]

    Source: neon 1f3036c, `neon/optimizers/optimizer.py`, which calls it exponential though it is hyperbolic.
    """

    def __init__(self, optimizer: Optimizer, decay: float, last_epoch: int = -1):
        self.decay = number("decay", decay)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base / (1 + self.decay * epoch)


class ShiftSchedule(Schedule):
    r"""neon's ShiftSchedule: the learning rate is halved `shift_size` times every `interval` epochs.

    $$
    \text{lr} = \text{lr}_0 \cdot 2^{-\text{shift\_size} \cdot \lfloor \text{epoch} / \text{interval} \rfloor}
    $$

    Args:
        optimizer: Optimizer whose learning rates it sets.
        interval: Epochs between two changes, above 0.
        shift_size: How often it is halved, 0 or more. Default 1.
        last_epoch: As of torch's `LRScheduler`. Default -1: a fresh start.

    Raises:
        ValueError: `interval` or `shift_size` is another value.

    Examples:
        >>> optimizer = FusedRMSProp([torch.nn.Parameter(torch.ones(3))], lr=1.0)
        >>> schedule = schedules.ShiftSchedule(optimizer, interval=2)
        >>> [schedule.rate(1.0, epoch) for epoch in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]

    Source: neon 1f3036c, `neon/optimizers/optimizer.py`.
    """

    def __init__(self, optimizer: Optimizer, interval: int, shift_size: int = 1, last_epoch: int = -1):
        self.interval = number("interval", interval, above=True)
        self.shift_size = number("shift_size", shift_size)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * 2.0 ** (-self.shift_size * (epoch // self.interval))


class PolySchedule(Schedule):
    r"""neon's PolySchedule: a polynomial that comes to 0.

    $$
    \text{lr} = \text{lr}_0 \cdot \max\left(0,\ 1 - \frac{\text{epoch}}{\text{total\_epochs}}\right)^{\text{power}}
    $$

    Args:
        optimizer: Optimizer whose learning rates it sets.
        total_epochs: Epoch from which on the learning rate is 0, above 0.
        power: Power of the polynomial, above 0.
        last_epoch: As of torch's `LRScheduler`. Default -1: a fresh start.

    Raises:
        ValueError: `total_epochs` or `power` is another value.

    Examples:
        >>> optimizer = FusedRMSProp([torch.nn.Parameter(torch.ones(3))], lr=1.0)
        >>> schedule = schedules.PolySchedule(optimizer, total_epochs=4, power=2.0)
        >>> [schedule.rate(1.0, epoch) for epoch in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]

    Source: neon 1f3036c, the documentation in `neon/optimizers/optimizer.py`. Its code divides to an integer by mistake, so that its rate
    is constant until `total_epochs`.
    """

    def __init__(self, optimizer: Optimizer, total_epochs: int, power: float, last_epoch: int = -1):
        self.total_epochs = number("total_epochs", total_epochs, above=True)
        self.power = number("power", power, above=True)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * max(0.0, 1 - epoch / self.total_epochs) ** self.power
