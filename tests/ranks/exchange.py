"""Checkpoints by each of torch's ways, in each precision mode, between numbers of ranks, and to and from torch.optim.RMSprop."""

import copy
import json
import pathlib

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, distributed
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh

from fusedrms import FusedRMSProp
from fusedrms.planner import LoadPlanner

from . import models
from .checkpoints import MODES, OPTIONS, state, steps
from .models import STEPS, check, sharded

WAYS = {
    "sharded": StateDictOptions(),
    "flattened": StateDictOptions(flatten_optimizer_state_dict=True),
    "full": StateDictOptions(full_state_dict=True),
}


TABLE = "table.json"
STEPS_OF_CODES = {"8bit": 127, "4bit": 6}  # what rounding to the nearest code may change is at most one of these of the largest
EXACT, ROUNDED, ARRIVED = "bit for bit", "to a code", "values"


class Side:
    """A model in shards on the first n ranks, and its optimizer; nothing on the others."""

    def __init__(self, group, dtype: torch.dtype, cls, **options):
        self.group = group
        self.model = sharded(DeviceMesh.from_group(group, models.DEVICE), dtype)
        self.optimizer = cls(self.model.parameters(), **{**OPTIONS, **options})

    def save(self, way: str, folder: str) -> None:
        saved = state(self.model, self.optimizer, WAYS[way])
        if way != "full":
            dcp.save(saved, checkpoint_id=folder, process_group=self.group)
        elif distributed.get_rank() == 0:
            pathlib.Path(folder).mkdir()
            torch.save(saved, f"{folder}/full.pt")

    def load(self, way: str, folder: str, planner: LoadPlanner | None = None) -> None:
        if way == "full":
            found = torch.load(f"{folder}/full.pt", weights_only=True)
        else:
            found = state(self.model, self.optimizer, WAYS[way])
            dcp.load(found, checkpoint_id=folder, process_group=self.group, planner=planner)
        parts = dict(model_state_dict=found["model"], optim_state_dict=found["optimizer"])
        set_state_dict(self.model, self.optimizer, **parts, options=WAYS[way])

    def values(self) -> dict[str, dict[str, Tensor]]:
        """Whole parameters, masters and states, by name."""
        model, optimizer = get_state_dict(self.model, self.optimizer, options=WAYS["full"])
        return copy.deepcopy({name: {**optimizer["state"][name], "param": model[name]} for name in model})

    def go_on(self) -> list[Tensor]:
        steps(self.model, self.optimizer, STEPS, STEPS + 2)
        return [param.full_tensor() for param in self.model.parameters()]


def arrived(found: dict, expected: dict, state_dtype: object = torch.float32, dtype: torch.dtype | None = None) -> None:
    """The same, but for what their new storage rounds; dtype: that in which torch's optimizer keeps states."""
    for name, values in expected.items():
        for key, value in values.items():
            if key == "master_param" and (dtype or key not in found[name]):
                continue
            other = found[name][key]
            if key in ("param", "step", "master_param"):
                assert torch.equal(other, value), (name, key)
            elif state_dtype in STEPS_OF_CODES:  # groups begin anew in each shard
                assert (other - value).abs().max() <= value.abs().max() / STEPS_OF_CODES[state_dtype], (name, key)
            elif state_dtype == torch.bfloat16:
                torch.testing.assert_close(other.double(), value.double(), rtol=2**-7, atol=0)
            else:
                assert torch.equal(other, value.to(other.dtype)), (name, key)
        if "master_param" in found[name] and "master_param" not in values:
            assert torch.equal(found[name]["master_param"], values["param"].float())


def trip(way: str, mode: str, groups: dict, here: int, there: int, into=FusedRMSProp, out_of=FusedRMSProp) -> str:
    """Save on the first so many ranks, load on the first so many, go on on both; what holds then."""
    dtype, options = MODES[mode]
    lean = options.get("state_dtype", torch.float32)
    ours = into is out_of
    rank, folder = distributed.get_rank(), f"{way}.{mode}.{here}.{there}.{into is out_of}.{into is FusedRMSProp}"
    after = f"{folder}.pt"
    if rank < here:
        own = dict(clip_grad_value=0.5, **options) if ours else options if out_of is FusedRMSProp else {}
        source = Side(groups[here], dtype, out_of, **own)
        steps(source.model, source.optimizer, 0, STEPS)
        source.save(way, folder)
        values, params = source.values(), source.go_on()
        if rank == 0:
            torch.save((values, params), after)
    distributed.barrier()
    masters_begin = out_of is not FusedRMSProp and "master_weights" in options
    if rank < there:
        target = Side(groups[there], dtype, into, **({**options, "lr": 9.0} if into is FusedRMSProp else {}))
        if masters_begin and way != "full":
            with pytest.raises(dcp.api.CheckpointException, match=r"Missing key in checkpoint state_dict: .*\.master_param"):
                target.load(way, folder)
        target.load(way, folder, LoadPlanner() if masters_begin else None)
        values, params = torch.load(after)
        assert target.optimizer.param_groups[0]["lr"] == OPTIONS["lr"]
        same = here == there
        if into is FusedRMSProp:
            arrived(target.values(), values, lean if not ours or (lean in STEPS_OF_CODES and not same) else torch.float32)
        else:
            arrived(target.values(), values, dtype=dtype)
        found = target.go_on()
        if ours and (lean not in STEPS_OF_CODES or same):
            check(found, params)
        elif dtype == torch.float32:
            check(found, params, exact=False)
        assert all(param.isfinite().all() for param in found)
    if ours:
        return ROUNDED if lean in STEPS_OF_CODES and here != there else EXACT
    return ARRIVED + " *" * (masters_begin and way != "full")


def every_way(rank: int, world: int) -> None:
    """All of the table in docs/migrating.md, which the first rank leaves in a file."""
    groups = {n: distributed.new_group(list(range(n))) for n in range(1, world + 1)}
    theirs = torch.optim.RMSprop
    trips = {
        2: {
            "same": (2, 2, {}),
            "1 to 2": (1, 2, {}),
            "2 to 1": (2, 1, {}),
            "into torch": (2, 2, dict(into=theirs)),
            "from torch": (2, 2, dict(out_of=theirs)),
        },
        4: {"2 to 4": (2, 4, {})},
    }[world]
    found = {}
    for way in WAYS:
        for mode in MODES:
            for name, (here, there, classes) in trips.items():
                found["|".join((way, mode, name))] = trip(way, mode, groups, here, there, **classes)
    if rank == 0:
        pathlib.Path(TABLE).write_text(json.dumps(found))


def table(found: dict[str, str]) -> str:
    """That of docs/migrating.md: what each way of saving holds, in each mode, for each trip."""
    trips = ("same", "1 to 2", "2 to 1", "2 to 4", "into torch", "from torch")
    rows = [("saved", "mode", *trips), ("---",) * (2 + len(trips))]
    rows += [(way, mode, *(found["|".join((way, mode, name))] for name in trips)) for way in WAYS for mode in MODES]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


CHECKS = (every_way,)
