"""What other threads do during steps."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import strategies as st

from .draws import change
from .steps import Steps


class Threads(Steps):
    """Rules about threads."""

    @contextlib.contextmanager
    def beside(self, act: Callable[[], Any]) -> Iterator[None]:
        """While two other threads do something all the time."""
        stop, errors = threading.Event(), []

        def run():
            try:
                while not stop.is_set():
                    act()
            except Exception as error:
                errors.append(error)

        threads, interval = [threading.Thread(target=run) for _ in range(2)], sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)
        if errors:
            raise errors[0]

    @change(n_steps=st.integers(1, 20))
    def grads_from_a_thread(self, n_steps):
        """Which gradients a step takes is nobody's to say, but all are ones."""

        def set_grads():
            for param in self.params:
                param.grad = torch.ones_like(param)

        set_grads()
        with self.beside(set_grads):
            for _ in range(n_steps):
                with contextlib.suppress(RuntimeError):  # that says that another thread writes them
                    self.step()
        self.set_grads()

    @change()
    def state_dict_from_a_thread(self):
        self.forget_states()
        self.step()  # else states are added while the thread reads them, which torch does not allow either
        self.optimizer.state_dict()  # else it begins what a parameter without a gradient lacks, which no step does
        with self.beside(self.optimizer.state_dict):
            for _ in range(3):
                self.step()
