"""TensorFlow's schedule."""

import math

from torch.optim import Optimizer

from ..engine.options.checks import plain
from .schedule import Schedule, number


class ExponentialDecay(Schedule):
    r"""TensorFlow's exponential_decay, after a rise from 0 over the first steps: what EfficientNet, MobileNet and NASNet train with.

    $$
    \text{lr} = \text{lr}_0 \cdot \max\left(\text{least},\ \text{decay\_rate}^{\text{step} / \text{decay\_steps}}\right)
    $$

    With `staircase` the exponent is rounded down, so that the rate falls every `decay_steps` steps. Before step `warmup_steps` the power is
    replaced by $\frac{\text{step}}{\text{warmup\_steps}}$.

    Args:
        optimizer: Optimizer whose learning rates it sets.
        decay_steps: Steps in which the learning rate comes to `decay_rate` of itself, above 0. EfficientNet: those of 2.4 epochs.
        decay_rate: The factor, 0 or more. EfficientNet: 0.97.
        staircase: True: the rate falls at once, every `decay_steps` steps. Default False: a little at each step.
        warmup_steps: Number of the first steps, over which the rate rises. The decay counts from the start all the same: after the rise the
            rate is where it would be without. Default 0.
        least: The part of `lr`, from 0 to 1, below which the rate does not come; 1e-4 in AmoebaNet's code. Default 0.0.
        last_epoch: As of torch's `LRScheduler`. Default -1: a fresh start.

    Raises:
        ValueError: One of these has another value.

    Examples:
        >>> optimizer = FusedRMSProp([torch.nn.Parameter(torch.ones(3))], lr=1.0)
        >>> schedule = schedules.ExponentialDecay(optimizer, decay_steps=2, decay_rate=0.5, staircase=True, warmup_steps=2)
        >>> [schedule.rate(1.0, step) for step in range(6)]
        [0.0, 0.5, 0.5, 0.5, 0.25, 0.25]

    Source: TensorFlow 1, `tf.train.exponential_decay`; the rise is that of tensorflow/tpu, `models/official/efficientnet/utils.py`.
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
        self.decay_steps = number("decay_steps", decay_steps, above=True)
        self.decay_rate = number("decay_rate", decay_rate)
        if not isinstance(plain(staircase), bool):
            raise ValueError(f"staircase={staircase!r} is not supported: it must be True or False")
        self.staircase = plain(staircase)
        self.warmup_steps = number("warmup_steps", warmup_steps)
        self.least = number("least", least)
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
