"""What users do to the optimizer's states."""

from collections import defaultdict

import torch
from hypothesis import strategies as st
from torch import Tensor

from cases import F32, F64

from .draws import change, copied, laid_out, layouts, which
from .steps import Steps


class States(Steps):
    """Rules about states."""

    @change(n=which, layout=layouts, double=st.booleans(), keep=st.booleans())
    def new_state(self, n, layout, double, keep):
        if found := self.a_state(n):
            state, key = found
            self.let_go(state[key], keep)
            values = self.values(state[key].shape, F32).to(F64 if double else state[key].dtype)
            state[key] = laid_out(1 + values.abs() if key == "square_avg" else values, layout)

    @change(n=which)
    def write_state(self, n):
        if found := self.a_state(n):
            found[0][found[1]].mul_(0.5)

    @change(keep=st.booleans())
    def clear_state(self, keep):
        for state in self.optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    self.let_go(value, keep)
        self.optimizer.state.clear()

    @change(n=which)
    def pop_state(self, n):
        self.optimizer.state.pop(self.param(n), None)

    @change(n=which, counters=st.booleans())
    def delete_state(self, n, counters):
        if found := self.a_state(n, counters):
            del found[0][found[1]]

    @change()
    def new_state_dicts(self):
        self.optimizer.state = defaultdict(dict, {param: dict(state) for param, state in self.optimizer.state.items()})

    @change(n=which)
    def own_state(self, n):
        """A user's, which is none of the optimizer's."""
        if state := self.state(self.param(n)):
            state["ema"] = self.param(n).detach().clone()

    @change(n=which, number=st.integers(0, 5), how=st.sampled_from(["in place", "int", "float", "float32", "float64", "int64", "view"]))
    def set_counter(self, n, number, how):
        if state := self.state(self.param(n)):
            if how == "in place":
                state["step"] = copied(state.get("step", 0)) if not isinstance(state.get("step"), Tensor) else state["step"].fill_(number)
            elif how == "view":
                state["step"] = torch.full((2,), float(number))[1]
            else:
                state["step"] = {"int": int, "float": float}.get(how, lambda value: torch.tensor(value, dtype=getattr(torch, how)))(number)
