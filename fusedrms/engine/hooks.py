"""torch's wrapper around step(), which calls hooks and shows profilers a range, for as long as there are any.

It costs 15 µs, of which most is the range: as much as all else of a step of a small model.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch.autograd import profiler
from torch.optim import optimizer as torch_optimizer
from torch.optim.optimizer import Optimizer

Step = TypeVar("Step", bound=Callable[..., Any])

_GLOBAL = torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks
_is_profiled = torch.autograd._profiler_enabled  # pyright: ignore[reportPrivateImportUsage]


def _is_watched(optimizer: Optimizer) -> bool:
    """Whether the optimizer has hooks, or something records what this thread or any other does."""
    pre, post = _GLOBAL
    if pre or post or optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return True
    return _is_profiled() or profiler._is_profiler_enabled


def hooked(step: Step) -> Step:
    """A step() that torch leaves as it is, and that calls hooks as torch's own do.

    A class that overrides it gets torch's wrapper, in which this one then calls no hooks a second time.
    """
    watched = Optimizer.profile_hook_step(step)
    wrapper: Any = watched

    # torch.compile ends a graph before it and begins another after it: nothing in it can be traced
    @torch._disable_dynamo  # pyright: ignore[reportPrivateImportUsage]
    @wraps(step)
    def hooked_step(self, *args, **kwargs):
        if _is_watched(self) and getattr(type(self).step, "__code__", None) is not wrapper.__code__:
            return watched(self, *args, **kwargs)
        return step(self, *args, **kwargs)

    hooked_step.hooked = True
    return hooked_step
