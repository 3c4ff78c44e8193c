"""FusedOptimizer: what torch.optim.Optimizer promises, on top of a Plan."""

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy as is_uninitialized

from ..kernels import devices
from .averages import averaged, averages
from .checkpointed import CheckpointedOptimizer
from .checkpoints.dcp import only_makes_states
from .hooks import hooked
from .locks import Held, held
from .options.groups import named_parameters
from .sharded import local
from .state.usage import Memory, state_bytes
from .states import make_states, planned_states
from .statistics import Stats, statistics
from .step import loss_of, update


class FusedOptimizer(CheckpointedOptimizer):
    """The part that all rules share. A subclass adds its options and turns a parameter group into a Recipe.

    Args:
        params: what the subclass was given.
        arguments: all arguments of its __init__, by name.
    """

    hooking: Callable[..., Any] | None = None  # the step() that calls the hooks now, of this class or one made from it
    _first_number = 0  # of its parameters, among those that it is a part of

    def __init_subclass__(cls, **arguments: Any):
        super().__init_subclass__(**arguments)
        if "step" in vars(cls):
            cls.step = hooked(vars(cls)["step"])

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether torch.amp.GradScaler leaves the loss scale and what it has found to step(), in attributes that it deletes afterwards.

        Not where accelerate has put its own step in place: it takes a step that is called for one that is made, so GradScaler, which waits
        for the device then, must leave out those that are not made.
        """
        return getattr(self.__dict__.get("step"), "__module__", None) != "accelerate.optimizer"

    @property
    def last_grad_norm(self) -> Tensor | None:
        """L2 norm of all gradients at the last step, as clip_grad_norm found it: 0-d float64, on the gradients' device, without a sync.

        That of all together even if each parameter is limited by its own; of rescaled and, unless the update is limited, clipped
        values. Of DTensors, and with a model_parallel_group, it is that of all processes, on each of them, with gradients or without.
        None if no parameter group has a clip_grad_norm or skip_above, before the first step of this object, load or copy, and else after a
        step without gradients. Unlike that of torch's clip_grad_norm_, the factor limit / norm has no 1e-6 in its denominator.
        With apply_in_backward it is that of the gradients in the last backward.
        """
        return self._run.grad_norm()

    @property
    def skipped_steps(self) -> Tensor:
        """How many steps of this object left everything as it was: 0-d int64, without a sync.

        On the gradients' device, for each step that a ``torch.amp.GradScaler``, skip_nonfinite or skip_above watched; not part of a
        checkpoint. :attr:`skipped_steps_by_reason` says why.
        """
        return self._run.skipped_steps()

    @property
    def skipped_steps_by_reason(self) -> dict[str, Tensor]:
        """The same, apart, without a sync: "nonfinite", because a gradient was not finite, and "above", because of skip_above."""
        return self._run.skipped_by_reason()

    @hooked
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: a parameter or gradient that cannot be updated; no parameter has changed then, here and below.
            TypeError, ValueError: an option or state that is wrong.
            KeyError: another thread took a state away.
        """
        try:
            return self._step(closure)
        except BaseException:  # else a later step would take what a GradScaler has left for this one
            for name in ("grad_scale", "found_inf"):
                self.__dict__.pop(name, None)
            self._run.ties.end(made=False)
            raise

    def check_rules(self) -> None:
        """Called before a step makes its tables; RuntimeError if the drivers cannot be trusted with a rule."""

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None if closure is None else loss_of(self, closure)
        grad_mode = torch.is_grad_enabled()
        try:
            torch._C._set_grad_enabled(False)  # as torch.no_grad() does, in a third of its time
            if not self.state and only_makes_states():
                self._make_states(lambda param: param.grad is not None)
            else:
                update(self)
        finally:
            torch._C._set_grad_enabled(grad_mode)
        return loss

    def averages(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """The averages of parameters that ``ema_decay`` asks for.

        Yields:
            (name, parameter, average) of each parameter of such a group that has made a step, in their order: its name in
            ``param_names``, or params[its number]; the average itself, not a copy, float32 for 16-bit parameters, a DTensor like its
            parameter.

        Raises:
            RuntimeError: no parameter group has an ema_decay.
        """
        return averages(self)

    def averaged(self) -> AbstractContextManager[None]:
        """Put averages in place of the parameters for the length of a ``with`` block: ``with optimizer.averaged(): evaluate(model)``.

        They are written into the parameters' own memory, so that compiled models, CUDA graphs and FSDP2 see them; then the parameters
        come back bit for bit, after an exception too. That takes a copy of them meanwhile. Parameters without an average stay as they
        are, and so do buffers: batch norm's own statistics are those of the model (``torch.optim.swa_utils.update_bn`` makes others).

        Raises:
            RuntimeError: no parameter group has an ema_decay; step(), state_dict() or load_state_dict() of this optimizer, or another
                averaged(), within the block.
        """
        return averaged(self)

    def stats(self) -> Stats:
        """The statistics of the last step that was measured, as the option ``stats`` asks for; see :class:`Stats`.

        They are added up here, on the device and without a wait for it, in the same order at every run. Of a step that was left out all
        are NaN. Where parameters are DTensors all ranks of their mesh must call this.

        Raises:
            RuntimeError: no parameter group has stats, or no step has been measured since the optimizer was made, loaded or released.
        """
        return statistics(self, self._run.measured_plans())

    def memory(self, planned: bool = False) -> Memory:
        """How many bytes parameters, gradients, states and tables take up, in total and a parameter.

        Args:
            planned: with the gradients and states that a step of all parameters will have, those aside that require no gradient; a
                gradient that is not there yet counts as its parameter does. They take no memory for it, so that a model on the meta
                device, which may fit nowhere, has an answer too. Tables are those of now. Default: all as it is now.

        Raises:
            RuntimeError, TypeError, ValueError: if planned, an option that a step would refuse.
        """
        held = Memory.of(self, self._run.table_bytes())
        if not planned:
            return held
        named = [each for each in named_parameters(self.param_groups) if not is_uninitialized(each.param)]
        named = [each for each in named if each.param.requires_grad or each.param.grad is not None]
        grads = [] if self._run.backwards else [param if param.grad is None else param.grad for _, _, param in named]
        return dataclasses.replace(
            held,
            gradients=sum(local(grad).nbytes for grad in grads),
            states=state_bytes(planned_states(named, self._recipes()).values()),
        )

    def release(self) -> None:
        """Free the tables of the steps so far, on the device too; the next step makes them anew.

        Between steps they keep no parameter, gradient or state alive; they are about 120 bytes a parameter tensor and 12 for each 1,024
        of its elements. Where other parameters have gradients from step to step, there are those of the last four sets.
        """
        self._run.release()

    def share_memory(self, lock: Any = None) -> "FusedOptimizer":
        """Move states and counters to shared memory, those of every parameter, so that processes update the same (Hogwild, A3C).

        States that are not there yet are made, of parameters without a gradient too. The model needs its own share_memory(). On a GPU
        nothing is moved: its memory is shared as it is.

        Without a lock, processes that update at once may overwrite each other's values, as with torch's; but each value is one that a
        step has written, and each counter counts all steps. docs/processes.md says what else holds, and what a killed process leaves.

        Args:
            lock: what each step() holds from when it looks at the parameters until it has written and counted, but not around the
                closure. True: one that the operating system takes away from a process that dies. Or a context manager that excludes
                processes, such as ``torch.multiprocessing.Lock()``, for which the others wait for ever if a process dies in a step.
                Default: that of an earlier call, if there was one.

        Returns:
            The optimizer.

        Raises:
            TypeError: the lock is no context manager.
            ValueError: a lock that excludes no process, or can be entered once; lock=True on a system without record locks; any where
                parameters are on a GPU, which goes on after step() has returned, or with apply_in_backward. Nothing has changed then.

        The lock goes to processes that are started, forked or spawned. ``copy.copy``, which shares the states, has it too;
        ``copy.deepcopy``, ``pickle`` and ``torch.save`` leave it out, as they leave out that memory is shared. As torch's locks it
        cannot be sent through a queue.
        """
        new = self._lock if lock is None else self._check_lock(lock)
        self.prepare()
        for values in self.state.values():
            for value in values.values() if isinstance(values, dict) else ():
                if isinstance(value, Tensor):
                    local(value).share_memory_()
        self._use_lock(new)
        return self

    def _check_lock(self, lock: Any) -> Held:
        """TypeError or ValueError for one that steps cannot hold."""
        if self._run.backwards:
            raise ValueError(f"lock={lock!r} is not supported with apply_in_backward, whose steps are one for each parameter: leave it out")
        if gpu := next((param.device for param in self._params() if devices.is_gpu(param.device)), None):
            raise ValueError(f"lock={lock!r} excludes nobody on {gpu}, which updates after step() has returned: share a model on the CPU")
        return held(lock)

    def _use_lock(self, lock: Held | None) -> None:
        self._lock = lock
        if lock:
            optimizer = weakref.proxy(self)  # with a reference to itself it would outlive its last user
            self.__dict__["_step"] = lambda closure: optimizer._locked_step(closure)  # so that a step without a lock asks for none

    def _locked_step(self, closure: Callable[[], Any] | None) -> Any:
        """_step() with a lock."""
        assert self._lock
        loss = None if closure is None else loss_of(self, closure)
        try:
            with self._lock.lock:
                type(self)._step(self, None)
        except BaseException:
            self._lock.release()
            raise
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._use_lock(self._lock)

    @torch.no_grad()
    def prepare(self) -> None:
        """Make the states of all parameters now, which else come with a parameter's first step, as those of lazy ones do in any case.

        Raises:
            RuntimeError, ValueError: as step(), before any state was made.
        """
        self._make_states(lambda param: not is_uninitialized(param))

    def _make_states(self, wanted: Callable[[Tensor], bool]) -> None:
        recipes = self._recipes()
        make_states([each for each in named_parameters(self.param_groups) if wanted(each.param)], recipes, self.state)
