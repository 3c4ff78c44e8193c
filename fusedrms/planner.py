"""Checkpoints that torch's loaders refuse: of optimizers that kept less, and of version 0.1, whose options were keys of their own."""

# pyright: reportPrivateUsage=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# the defaults are of this package's own classes; torch says little of its planner's dicts

from typing import Any

from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.planner import LoadPlan

from .engine.checkpoints.carrier import NEVER_LOADED, beyond_torch, pack_group
from .engine.state.precision import MASTER, PARAM_EMA
from .rmsprop import FusedRMSProp
from .smorms3 import FusedSMORMS3

# what a state may lack: a master is the parameter, its average begins with it, the others must be switched off
_ANEW = MASTER, PARAM_EMA, "momentum_buffer", "grad_avg"


class LoadPlanner(DefaultLoadPlanner):
    """Lets `torch.distributed.checkpoint` load checkpoints that lack what the optimizer can begin anew.

    torch's own planner refuses a checkpoint that lacks a key. This one also loads, into the `state_dict` that `set_state_dict` gets
    afterwards:

    * a checkpoint without masters into an optimizer with `master_weights`, or without averages into one with `ema_decay`: they start from
      the parameters;
    * a checkpoint without momentum, or not centered, into an optimizer with it. The optimizer has it off afterwards, as after
      `load_state_dict()`;
    * a checkpoint of version 0.1 with `lr_in_momentum` or other options that torch does not have, under keys of their own.

    All else that is missing is an error that names the key.

    Arguments as in `torch.distributed.checkpoint.DefaultLoadPlanner`: `flatten_state_dict`, `flatten_sharded_tensors`,
    `allow_partial_load`.

    Examples:
        >>> import tempfile
        >>> import torch.distributed.checkpoint as dcp
        >>> from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
        >>> from fusedrms.planner import LoadPlanner
        >>> folder, model = tempfile.mkdtemp(), torch.nn.Linear(4, 2)
        >>> plain = FusedRMSProp(model.parameters(), lr=1e-3)
        >>> dcp.save({"optimizer": get_optimizer_state_dict(model, plain)}, checkpoint_id=folder, no_dist=True)
        Metadata(...)
        >>> averaging = FusedRMSProp(model.parameters(), ema_decay=0.999)
        >>> state = {"optimizer": get_optimizer_state_dict(model, averaging)}
        >>> dcp.load(state, checkpoint_id=folder, planner=LoadPlanner(), no_dist=True)
        >>> set_optimizer_state_dict(model, averaging, state["optimizer"])
        >>> averaging.param_groups[0]["lr"]
        0.001
    """

    def _may_begin(self, key: str) -> bool:
        """Whether it is such a state, and not of a model that has one of that name."""
        parameter, _, name = key.rpartition(".")
        return name in _ANEW and f"{parameter}.step" in self.state_dict

    def create_local_plan(self) -> LoadPlan:
        """What this process reads. `dcp.load` calls it.

        Returns:
            The plan of torch's `DefaultLoadPlanner`, without the keys that begin anew.
        """
        saved = self.metadata.state_dict_metadata if self.metadata else {}
        for key in [key for key in self.state_dict if key not in saved and self._may_begin(key)]:
            del self.state_dict[key]
            *path, name = self.mappings.pop(key, (key,))
            parent: Any = self.original_state_dict
            for step in path:
                parent = parent[step]
            del parent[name]
        known = beyond_torch(FusedRMSProp._class_defaults()) - NEVER_LOADED
        for key in saved.keys() - self.state_dict.keys():
            group, _, name = key.rpartition(".")
            path_to_lr = self.mappings.get(f"{group}.lr")
            if name in known and path_to_lr and path_to_lr[-1] == "lr":
                self.state_dict[key], self.mappings[key] = None, (*path_to_lr[:-1], name)
        return super().create_local_plan()


def repacked(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group of a checkpoint of version 0.1, in the form that a full `state_dict` has today.

    Args:
        group: A group of the checkpoint's `param_groups`, with all options under keys of their own.

    Returns:
        The group with torch's options as keys, and all others in the value of `foreach`, as `state_dict()` has them.

    Examples:
        >>> from fusedrms.planner import repacked
        >>> group = dict(params=[0], lr=1e-3, alpha=0.99, eps=1e-8, momentum=0.9, lr_in_momentum=True)
        >>> repacked(group)["foreach"]
        '{"lr_in_momentum": true}'
    """
    return pack_group(group, (FusedRMSProp if "alpha" in group else FusedSMORMS3)._class_defaults(rule=True))
