"""torch's wrapper around step(), which calls hooks and shows profilers a range, for as long as there are any.

It costs 15 µs, of which most is the range: as much as all else of a step of a small model.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.autograd import profiler
from torch.optim.optimizer import (
    Optimizer,
    _global_optimizer_post_hooks,  # pyright: ignore[reportPrivateUsage]
    _global_optimizer_pre_hooks,  # pyright: ignore[reportPrivateUsage]
)

_is_profiled = torch.autograd._profiler_enabled  # pyright: ignore[reportPrivateImportUsage]


def _is_watched(optimizer: Optimizer) -> bool:
    """Whether the optimizer has hooks, or a profiler runs; of an ExecutionTraceObserver without a profiler nobody tells."""
    if _global_optimizer_pre_hooks or _global_optimizer_post_hooks:
        return True
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return True
    return _is_profiled() or profiler._is_profiler_enabled


def _leave_untraced(function: Any) -> Callable[[], Any]:
    """Let torch.compile end a graph before a call of the function and begin another after it, but trace what that calls.

    Returns:
        What tells the function whether anybody traces the calls of this thread: None if not.

    Raises:
        AttributeError: torch has other words for this.
    """
    words: Any = torch._C._dynamo.eval_frame  # pyright: ignore[reportAttributeAccessIssue]
    skip = words._FrameExecStrategy(words._FrameAction.SKIP, words._FrameAction.DEFAULT)
    words.set_code_exec_strategy(function.__code__, skip)
    function._torchdynamo_disable = True
    return words.get_eval_frame_callback


def hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step() that torch leaves as it is, and that calls hooks as torch's own do: of one that calls another's the outer one alone."""
    watched: Any = Optimizer.profile_hook_step(step)

    def call_hooks(self: Any, *args: Any, **kwargs: Any) -> Any:
        # another calls them: an override, or torch's wrapper, which it puts around a step() that was assigned to a class
        if self._hooking not in (None, hooked_step) or getattr(type(self).step, "__code__", None) is watched.__code__:
            return step(self, *args, **kwargs)
        before, self._hooking = self._hooking, hooked_step
        try:
            return watched(self, *args, **kwargs)
        finally:
            self._hooking = before

    @wraps(step)
    def hooked_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if tracer() is not None:  # for torch.compile; nothing in it can be traced
            return untraced(self, *args, **kwargs)
        return (call_hooks if _is_watched(self) else step)(self, *args, **kwargs)

    untraced: Any = torch._disable_dynamo(hooked_step)  # pyright: ignore[reportPrivateImportUsage]
    made: Any = hooked_step
    try:
        tracer = _leave_untraced(hooked_step)  # torch's own way takes 4 µs at each call
    except AttributeError:
        tracer, made = lambda: None, untraced
    made.hooked = True
    return made
