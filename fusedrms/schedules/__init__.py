"""Learning rate schedules of neon and TensorFlow, as torch's `LRScheduler`.

A schedule sets the `lr` of each parameter group. It depends on two things alone: the `lr` that the group had when the schedule was made,
and the epoch, that is how often `schedule.step()` was called.

* neon's schedules count epochs: call `schedule.step()` after each epoch.
* `ExponentialDecay` counts steps: call `schedule.step()` after each `optimizer.step()`.
* `state_dict()` carries everything, so a resumed run has the same learning rates.
"""

# May import: fusedrms.engine.*.

from .neon import ExpSchedule as ExpSchedule
from .neon import MultiStepSchedule as MultiStepSchedule
from .neon import PolySchedule as PolySchedule
from .neon import PowerSchedule as PowerSchedule
from .neon import ShiftSchedule as ShiftSchedule
from .neon import StepSchedule as StepSchedule
from .tensorflow import ExponentialDecay as ExponentialDecay
