"""FusedOptimizer: what torch.optim.Optimizer promises, on top of a Plan."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy as is_uninitialized
from typing_extensions import Self

from .averages import averaged, averages
from .checkpointed import CheckpointedOptimizer
from .checkpoints.dcp import only_makes_states
from .hooks import hooked
from .locks import Held, held
from .options.groups import named_parameters
from .state.usage import Memory, memory_of, state_tensors
from .states import make_states, planned_memory
from .statistics import Stats, statistics
from .step import loss_of, update

Loss = TypeVar("Loss")


class FusedOptimizer(CheckpointedOptimizer):
    """The part that all rules share. A subclass adds its options and turns a parameter group into a Recipe.

    Args:
        params: what the subclass was given.
        arguments: all arguments of its __init__, by name.
    """

    _hooking: Callable[..., Any] | None = None  # the step() that calls the hooks now, of this class or one made from it
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
        """L2 norm of all gradients at the last step: a 0-d float64 tensor on the gradients' device. Nothing waits for the device.

        It is measured if a parameter group has `clip_grad_norm` or `skip_above`. It is the norm of rescaled gradients, after
        `clip_grad_value` unless only the update is limited. With DTensors or a `model_parallel_group` every process has the norm over all
        processes. After `apply_in_backward` it is the norm of the gradients of the last backward.

        None if no group has either option, after a step without gradients, and before the first step of this object, load or copy. The
        factor of the limit is `limit / norm`; `torch.nn.utils.clip_grad_norm_` adds 1e-6 to its denominator.

        Examples:
            >>> model = torch.nn.Linear(4, 2)
            >>> optimizer = FusedRMSProp(model.parameters(), clip_grad_norm=math.inf)  # measures, and limits nothing
            >>> model(torch.ones(8, 4)).sum().backward()
            >>> optimizer.step()
            >>> optimizer.last_grad_norm
            tensor(25.2982, dtype=torch.float64)
        """
        return self._run.grad_norm()

    @property
    def skipped_steps(self) -> Tensor:
        """How many steps of this object were left out: a 0-d int64 tensor. Reading it does not wait for the device.

        A step is left out by a `torch.amp.GradScaler`, by `skip_nonfinite` or by `skip_above`. The count is on the gradients' device, and
        is not part of a checkpoint. `skipped_steps_by_reason` tells why.
        """
        return self._run.skipped_steps()

    @property
    def skipped_steps_by_reason(self) -> dict[str, Tensor]:
        """The same count by reason: "nonfinite", a gradient was NaN or infinite; "above", `skip_above` found a spike.

        Examples:
            >>> weight = torch.nn.Parameter(torch.ones(3))
            >>> optimizer = FusedRMSProp([weight], skip_nonfinite=True)
            >>> weight.grad = torch.tensor([1.0, math.nan, 1.0])
            >>> optimizer.step()
            >>> optimizer.skipped_steps_by_reason
            {'nonfinite': tensor(1), 'above': tensor(0)}
        """
        return self._run.skipped_by_reason()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...

    @hooked
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: Evaluates the model again and returns the loss. Default None.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: A parameter or gradient cannot be updated. Here and below, no parameter has changed then.
            TypeError: An option has the wrong type.
            ValueError: An option or a state is wrong.
            KeyError: Another thread took a state away.
        """
        try:
            return self._step(closure)
        except BaseException:  # else a later step would take what a GradScaler has left for this one
            for name in ("grad_scale", "found_inf"):
                self.__dict__.pop(name, None)
            self._run.ties.end(made=False)
            raise

    def _check_rules(self) -> None:
        """Called before a step makes its tables; RuntimeError if the drivers cannot be trusted with a rule."""

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None if closure is None else loss_of(self, closure)
        grad_mode = torch.is_grad_enabled()
        try:
            torch._C._set_grad_enabled(False)  # pyright: ignore[reportPrivateUsage] - as torch.no_grad() does, in a third of its time
            if not self.state and only_makes_states():
                self._make_states(lambda param: param.grad is not None)
            else:
                update(self)
        finally:
            torch._C._set_grad_enabled(grad_mode)  # pyright: ignore[reportPrivateUsage]
        return loss

    def averages(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """The averages of parameters that `ema_decay` keeps.

        Yields:
            `(name, parameter, average)` of each parameter that has an average, in their order. The name is that in `param_names`, or
                `params[number]`. The average is the state itself, no copy: float32 for 16-bit parameters, and a DTensor like its parameter.

        Raises:
            RuntimeError: No parameter group has an `ema_decay`.

        Examples:
            >>> model = torch.nn.Linear(4, 2)
            >>> optimizer = FusedRMSProp(model.named_parameters(), ema_decay=0.999)
            >>> model(torch.ones(8, 4)).sum().backward()
            >>> optimizer.step()
            >>> [(name, tuple(average.shape)) for name, parameter, average in optimizer.averages()]
            [('weight', (2, 4)), ('bias', (2,))]
        """
        return averages(self)

    def averaged(self) -> AbstractContextManager[None]:
        """Put the averages in place of the parameters for the length of a `with` block: `with optimizer.averaged(): evaluate(model)`.

        The averages are written into the parameters' own memory, so compiled models, CUDA graphs and FSDP2 see them. At the end of the
        block the parameters come back bit for bit, after an exception too. Until then a copy of the parameters takes memory. Parameters
        without an average stay as they are, and so do buffers, such as batch norm's statistics (`torch.optim.swa_utils.update_bn` makes new
        ones).

        Raises:
            RuntimeError: No parameter group has an `ema_decay`. Within the block also from `step()`, `state_dict()`, `load_state_dict()`,
                and another `averaged()` of this optimizer.

        Examples:
            >>> weight = torch.nn.Parameter(torch.ones(1))
            >>> optimizer = FusedRMSProp([weight], lr=0.01, ema_decay=0.9)
            >>> weight.grad = torch.ones(1)
            >>> optimizer.step()
            >>> with optimizer.averaged():
            ...     print(weight.data)  # 0.9 * 1.0 + 0.1 * 0.9
            tensor([0.9900])
            >>> weight.data
            tensor([0.9000])
        """
        return averaged(self)

    def stats(self) -> Stats:
        """The statistics of the last measured step. The option `stats` says which steps are measured.

        They are added up on the device, in the same order in every run, and this does not wait for it. After a step that was left out, all
        of them are NaN. If parameters are DTensors, all ranks of their mesh must call this.

        Returns:
            `Stats`: norms of gradients, updates, parameters and states.

        Raises:
            RuntimeError: No parameter group has `stats`, or no step was measured since the optimizer was made, loaded or released.
        """
        return statistics(self, self._run.measured_plans())

    def memory(self, planned: bool = False) -> Memory:
        """How many bytes the parameters, gradients, states and tables of the optimizer take in this process.

        Args:
            planned: Count the gradients and states that a step of all parameters will need, those without `requires_grad` left out. A
                gradient that is not there yet counts as many bytes as its parameter. Nothing is allocated, so the model may be on the meta
                device. Tables are those of now. Default False: count what is there now.

        Returns:
            `Memory`: bytes in total and for each parameter.

        Raises:
            RuntimeError: With `planned`, a parameter that a step would refuse.
            TypeError: With `planned`, an option that a step would refuse.
            ValueError: With `planned`, an option that a step would refuse.
        """
        held = memory_of(self, self._run.table_bytes())
        return planned_memory(held, self.param_groups, self._recipes(), bool(self._run.backwards)) if planned else held

    def release(self) -> None:
        """Free the tables of the last steps, on the device too. The next step makes them anew.

        A table tells a launch where its tensors are. Tables take about 120 bytes for each parameter tensor and 12 for each 1,024 of its
        elements. Between steps they keep no parameter, gradient or state alive. If other parameters have gradients from step to step, the
        tables of the last four sets are kept.
        """
        self._run.release()

    def share_memory(self, lock: Literal[True] | AbstractContextManager[Any] | None = None) -> Self:
        """Move the states and counters of all parameters to shared memory, so that several processes update the same model (Hogwild, A3C).

        States that do not exist yet are made. The model needs its own `share_memory()`. On a GPU nothing is moved: its memory is shared as
        it is. Without a lock, processes may overwrite each other's updates, as with torch's optimizers. Each value is still one that a step
        has written, and counters count all steps. "Threads, processes" in the documentation tells what else holds, and what a killed
        process leaves.

        Args:
            lock: What a step holds while it reads and writes, but not while a closure runs. True: a lock that the operating system takes
                away from a process that dies. Or a context manager that excludes processes, such as `torch.multiprocessing.Lock()`, for
                which the others wait for ever if its holder dies. Default None: the lock of an earlier call, if there was one.

        Returns:
            The optimizer.

        Raises:
            TypeError: The lock is no context manager.
            ValueError: The lock excludes no process, or can be entered only once; `lock=True` where the system has no record locks; any
                lock with parameters on a GPU or after `apply_in_backward`. Nothing has changed then.

        Note:
            Processes that are started, forked or spawned get the lock, and so does `copy.copy`. `copy.deepcopy`, `pickle` and `torch.save`
            leave it out. Like torch's locks, it cannot be sent through a queue.
        """
        new = self._lock if lock is None else held(lock, self._params(), in_backward=self._run.backwards is not None)
        self.prepare()
        for _, value in state_tensors(self.state.values()):
            value.share_memory_()
        self._use_lock(new)
        return self

    def _use_lock(self, lock: Held | None) -> None:
        self._lock = lock
        if lock:
            optimizer = weakref.proxy(self)  # with a reference to itself it would outlive its last user

            def step(closure: Callable[[], Any] | None) -> Any:
                return optimizer._locked_step(closure)

            self.__dict__["_step"] = step  # so that a step without a lock asks for none

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
        """Make the states of all parameters now. Otherwise a state is made by its parameter's first step; a lazy parameter's always is.

        Raises:
            RuntimeError: As `step()`; no state has been made then.
            ValueError: As `step()`; no state has been made then.
        """
        self._make_states(lambda param: not is_uninitialized(param))

    def _make_states(self, wanted: Callable[[Tensor], bool]) -> None:
        recipes = self._recipes()
        make_states([each for each in named_parameters(self.param_groups) if wanted(each.param)], recipes, self.state)
