"""Checkpoints that torch's loaders refuse: of optimizers that kept less, and of version 0.1, whose options were keys of their own."""

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
    """As torch's, which refuses a checkpoint that lacks a key, but for what the optimizer can begin anew.

    ``dcp.load(state, checkpoint_id=folder, planner=LoadPlanner())`` before set_state_dict also loads
    * a checkpoint without masters into an optimizer with master_weights, or without averages of parameters into one with ema_decay: they
      start from the parameters;
    * one without momentum or without centered into an optimizer with it, which has it off afterwards, as load_state_dict() does;
    * one of version 0.1 with lr_in_momentum or other options that torch does not know, under keys of their own.
    All else that is missing is an error that names the key.

    Args:
        as of :class:`torch.distributed.checkpoint.DefaultLoadPlanner`.
    """

    def _may_begin(self, key: str) -> bool:
        """Whether it is such a state, and not of a model that has one of that name."""
        parameter, _, name = key.rpartition(".")
        return name in _ANEW and f"{parameter}.step" in self.state_dict

    def create_local_plan(self) -> LoadPlan:
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
    """A parameter group of a checkpoint of version 0.1, as a full state_dict of today has it.

    Args:
        group: of its ``param_groups``, all options under keys of their own.

    Returns:
        Those of torch, and the others in the value of foreach, as FusedOptimizer.state_dict() has it.
    """
    return pack_group(group, (FusedRMSProp if "alpha" in group else FusedSMORMS3)._class_defaults(rule=True))
