"""What users do to parameters and groups."""

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from .draws import CHOICES, OPTIONS, change, kinds, options, which
from .steps import Steps


class Groups(Steps):
    """Rules about parameters and groups."""

    @change(n=which, on=st.booleans())
    def freeze(self, n, on):
        self.param(n).requires_grad_(not on)
        if on:
            self.param(n).grad = None

    @change(new=st.lists(kinds, min_size=1, max_size=2), chosen=options)
    def add_group(self, new, chosen):
        if len(self.params) < 8:
            added = [Parameter(self.values(shape, dtype)) for shape, dtype in new]
            for param in added:
                param.grad = self.values(param.shape, param.dtype)
            self.params += added
            self.optimizer.add_param_group(dict(params=added, **chosen))

    @change(n=which)
    def remove_param(self, n):
        group = self.group(n)
        if group["params"]:
            del group["params"][n % len(group["params"])]

    @change(n=which)
    def put_param(self, n):
        """One that the optimizer does not have, though maybe it had."""
        missing = [param for param in self.params if not any(param is each for each in self.listed())]
        if missing:
            self.group(n)["params"].append(missing[n % len(missing)])

    @change(n=which)
    def forget_param(self, n):
        """One that the optimizer no longer has; what it kept of it is the user's to drop, as with torch's."""
        missing = [param for param in self.params if not any(param is each for each in self.listed())]
        if missing and len(self.params) > 1:
            gone = missing[n % len(missing)]
            self.params = [param for param in self.params if param is not gone]
            self.optimizer.state.pop(gone, None)

    @change(n=which)
    def remove_group(self, n):
        if len(self.optimizer.param_groups) > 1:
            del self.optimizer.param_groups[n % len(self.optimizer.param_groups)]

    @change(n=which, of=st.sampled_from(["groups", "params"]))
    def reorder(self, n, of):
        listed = self.optimizer.param_groups if of == "groups" else self.group(n)["params"]
        listed.append(listed.pop(0)) if len(listed) > 2 else listed.reverse()

    @change(n=which, of=st.sampled_from(["params", "group", "groups"]))
    def new_container(self, n, of):
        if of == "params":
            self.group(n)["params"] = list(self.group(n)["params"])
        elif of == "group":
            self.optimizer.param_groups[n % len(self.optimizer.param_groups)] = dict(self.group(n))
        else:
            self.optimizer.param_groups = list(self.optimizer.param_groups)

    @change(n=which, names=st.sampled_from([("alpha", "eps"), ("lr", "weight_decay"), ("momentum", "alpha"), ("centered", "maximize")]))
    def trade(self, n, names):
        """The same objects in the same order under other names, as a group that is made anew may have them."""
        other = dict(zip(names, reversed(names), strict=True))
        group = {other.get(key, key): value for key, value in self.group(n).items()}
        if group["eps"]:  # without it a gradient of 0 beside an average of 0 has no step
            self.optimizer.param_groups[n % len(self.optimizer.param_groups)] = group

    @change(n=which, name=st.sampled_from(OPTIONS), choice=which)
    def set_option(self, n, name, choice):
        self.group(n)[name] = CHOICES[name][choice % len(CHOICES[name])]

    @change(n=which, lr=st.sampled_from(CHOICES["lr"]))
    def lr_in_a_tensor(self, n, lr):
        group = self.group(n)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = torch.tensor(lr)
