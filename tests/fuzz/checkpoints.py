"""Checkpoints, copies and other processes."""

import copy
import io
import pickle
from multiprocessing.reduction import ForkingPickler

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from cases import BF16

from .draws import STATES, change, same, which
from .steps import Steps


class Checkpoints(Steps):
    """Rules about checkpoints and copies."""

    def forget_states(self) -> None:
        """Of parameters that the optimizer no longer has, with which torch makes no state_dict."""
        for param in [param for param in self.optimizer.state if not any(param is each for each in self.listed())]:
            del self.optimizer.state[param]

    def load(self, state_dict: dict, complete: bool) -> None:
        """A state that lacks what its options ask for is refused."""
        try:
            self.optimizer.load_state_dict(state_dict)
        except ValueError:
            assert not complete

    def complete(self) -> bool:
        """Whether there is no state without one that its options ask for."""
        return all(key in self.state(param) for param in self.listed() if self.state(param) for key in ("step", *self.used(param)))

    @change(how=st.sampled_from(["direct", "deepcopy", "torch.save"]))
    def reload(self, how):
        self.forget_states()
        with self.unchanged():
            state_dict = self.optimizer.state_dict()
            if how == "deepcopy":
                state_dict = copy.deepcopy(state_dict)
            elif how == "torch.save":
                file = io.BytesIO()
                torch.save(state_dict, file)
                state_dict = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            self.load(state_dict, self.complete())

    @change()
    def remember(self):
        """A state_dict shares the states with the optimizer, as torch's does."""
        self.forget_states()
        state_dict = self.optimizer.state_dict()
        for n, param in enumerate(self.listed()):
            for key, value in state_dict["state"].get(n, {}).items():
                assert key not in ("step", *STATES) or not isinstance(value, Tensor) or value is self.state(param).get(key, value), (
                    f"{key} is a copy"
                )
        listed = [n for each in self.listed() for n, param in enumerate(self.params) if param is each]
        visible = self.visible()
        seen = {(place, *key[1:]): value for place, n in enumerate(listed) for key, value in visible.items() if key[0] == n}
        shapes = [(tuple(param.shape), param.dtype) for param in self.listed()]
        self.earlier = [*self.earlier, (copy.deepcopy(state_dict), dict(seen=seen, shapes=shapes, complete=self.complete()))][-4:]

    @change(n=which)
    def load_earlier(self, n):
        if not self.earlier:
            return
        state_dict, was = self.earlier[n % len(self.earlier)]
        sizes = [len(group["params"]) for group in self.optimizer.param_groups]
        fits = sizes == [len(group["params"]) for group in state_dict["param_groups"]] and was["complete"]
        if fits and was["shapes"] == [(tuple(param.shape), param.dtype) for param in self.listed()]:
            self.optimizer.load_state_dict(state_dict)
            for place, param in enumerate(self.listed()):
                for key, value in self.state(param).items():
                    expected = was["seen"].get((place, "state", key), 0.0 if key == "step" else None)
                    assert same(expected, value), f"the {key} of parameter {place} is not what was loaded"
        else:
            before = self.visible()
            try:
                self.optimizer.load_state_dict(state_dict)
            except ValueError:
                self.check_visible(before)

    @change()
    def by_way_of_torch(self):
        """Into torch's optimizer and back."""
        self.forget_states()
        if not self.complete():
            return
        groups = []
        for group in self.optimizer.param_groups:
            twins = [Parameter(param.float() if param.dtype == BF16 else param.detach().clone()) for param in group["params"]]
            groups.append(dict(params=twins))
        if any(group["params"] for group in groups):
            theirs = torch.optim.RMSprop(groups)
            theirs.load_state_dict(self.optimizer.state_dict())
            for param, twin in zip(self.listed(), (twin for group in groups for twin in group["params"]), strict=True):
                state = self.state(param)
                assert all(same(value, theirs.state[twin][key]) for key, value in state.items())
            with self.unchanged():
                self.load(theirs.state_dict(), True)

    @change(how=st.sampled_from(["deepcopy", "pickle", "torch.save"]), keep=st.booleans())
    def copy(self, how, keep):
        """Of model and optimizer together; torch copies no gradients of parameters."""
        together = self.params, self.optimizer
        with self.unchanged("grad"):
            if how == "deepcopy":
                self.params, self.optimizer = copy.deepcopy(together)
            elif how == "pickle":
                self.params, self.optimizer = pickle.loads(pickle.dumps(together))
            else:
                file = io.BytesIO()
                torch.save(together, file)
                self.params, self.optimizer = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
        if keep:
            for param in together[0]:
                self.let_go(param.detach(), keep)
        self.set_grads()

    @change()
    def send(self):
        """To another process, which sees the next step."""
        self.forget_states()
        with self.unchanged():
            received = pickle.loads(ForkingPickler.dumps(self.optimizer.state_dict()))
        listed = self.listed()
        self.step()
        for n, param in enumerate(listed):
            for key, value in received["state"].get(n, {}).items():
                if isinstance(value, Tensor) and (key not in STATES or self.fits(param, value)):
                    assert same(value, self.state(param)[key]), f"the {key} that was sent does not follow"
