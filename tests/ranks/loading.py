"""Loading into another optimizer or by another way: other options and units, one rank alone, in place, of version 0.1."""

import contextlib
import copy
import pathlib
import tarfile

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import distributed
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.engine.sharded import local
from fusedrms.planner import LoadPlanner, repacked

from . import models
from .checkpoints import MODES, OPTIONS, state, steps
from .exchange import WAYS, Side, arrived
from .models import STEPS, check, sharded

OLD = pathlib.Path(__file__).parents[1] / "data/checkpoints-0.1.tar.xz"


SWITCHES = {"momentum_buffer": "momentum", "grad_avg": "centered"}
PAIRS = {  # options of the optimizer that saves, of the one that loads
    "8-bit to float32": (dict(state_dtype="8bit"), {}),
    "float32 to 8-bit": ({}, dict(state_dtype="8bit")),
    "4-bit to float32": (dict(state_dtype="4bit"), {}),
    "8-bit to 4-bit": (dict(state_dtype="8bit"), dict(state_dtype="4bit")),
    "none to split": ({}, dict(master_weights="split")),
    "none to float32 masters": ({}, dict(master_weights="float32")),
    "split to none": (dict(master_weights="split"), {}),
    "float32 masters to none": (dict(master_weights="float32"), {}),
    "split to float32 masters": (dict(master_weights="split"), dict(master_weights="float32")),
    "float32 masters to split": (dict(master_weights="float32"), dict(master_weights="split")),
    "split24 to split": (dict(master_weights="split24"), dict(master_weights="split")),
    "momentum to none": ({}, dict(momentum=0)),
    "centered to not": ({}, dict(centered=False)),
    "none to momentum": (dict(momentum=0), {}),
    "not to centered": (dict(centered=False), {}),
}


def other_options(rank: int, world: int) -> None:
    """What one process takes others take, with its values: what is not there begins anew, what is not wanted is dropped."""
    group = distributed.group.WORLD
    for name, (before, after) in PAIRS.items():
        missing = name.startswith(("none", "not"))
        source = Side(group, torch.bfloat16, FusedRMSProp, seed=3, **before)
        steps(source.model, source.optimizer, 0, STEPS)
        values = source.values()
        for way in WAYS:
            folder = f"{name}.{way}".replace(" ", "_")
            source.save(way, folder)
            distributed.barrier()
            target = Side(group, torch.bfloat16, FusedRMSProp, seed=3, **after)
            # torch leaves what a full state_dict lacks as it is in the one that loads
            dropped = name in ("momentum to none", "centered to not")
            with pytest.warns(UserWarning, match="keeps") if dropped else contextlib.nullcontext():
                target.load(way, folder, LoadPlanner() if missing else None)
            found = target.values()
            off = {key for key, option in SWITCHES.items() if not {**OPTIONS, **after}.get(option)}
            if missing:
                off |= {key for key, option in SWITCHES.items() if not {**OPTIONS, **before}[option]}
            arrived(found, {key: {k: v for k, v in each.items() if k not in off} for key, each in values.items()}, after.get("state_dtype"))
            group_of = target.optimizer.param_groups[0]
            assert (group_of["momentum"] > 0, group_of["centered"]) == ("momentum_buffer" not in off, "grad_avg" not in off)
            assert all(("master_param" in each) == ("master_weights" in after) for each in found.values())
            assert all(param.isfinite().all() for param in target.go_on())


def units(rank: int, world: int) -> None:
    """A momentum buffer without lr is no buffer with it: refused by name; the other way its options come along."""
    group, theirs = distributed.group.WORLD, torch.optim.RMSprop
    for way in WAYS:
        for k, (cls, options) in enumerate(((theirs, {}), (FusedRMSProp, {}), (FusedRMSPropGraves, {}))):
            source = Side(group, torch.float32, cls, **options, centered=True)
            steps(source.model, source.optimizer, 0, STEPS)
            source.save(way, f"units.{way}.{k}")
            values, params = source.values(), source.go_on()
            distributed.barrier()
            for into in (FusedRMSPropGraves, FusedRMSProp):
                target = Side(group, torch.float32, into)
                if into is FusedRMSPropGraves and cls is not FusedRMSPropGraves:
                    before = target.values()
                    with pytest.raises(ValueError, match=r"group 0 has lr_in_momentum=True, but the checkpoint.* without lr"):
                        target.load(way, f"units.{way}.{k}")
                    assert torch.equal(target.values()["0.weight"]["square_avg"], before["0.weight"]["square_avg"]) or way != "full"
                else:
                    target.load(way, f"units.{way}.{k}")
                    arrived(target.values(), values)
                    check(target.go_on(), params, exact=cls is not theirs)


def from_first_rank(rank: int, world: int) -> None:
    """A full state_dict that one rank alone has, and one whose tensors are on the CPU."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, cpu_offload=True)
    for dtype, own in MODES.values():
        source = Side(distributed.group.WORLD, dtype, FusedRMSProp, clip_grad_value=0.5, **own)
        steps(source.model, source.optimizer, 0, STEPS)
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        model, optimizer = copy.deepcopy(get_state_dict(source.model, source.optimizer, options=whole))  # empty on the others
        assert bool(optimizer) == (rank == 0)
        params = source.go_on()
        target = Side(distributed.group.WORLD, dtype, FusedRMSProp, **own)
        set_model_state_dict(target.model, model, options=options)
        set_optimizer_state_dict(target.model, target.optimizer, optimizer, options=options)
        check(target.go_on(), params)


def without_names(rank: int, world: int) -> None:
    """The optimizer itself, whose state_dict torch.distributed.checkpoint asks for and loads."""
    for k, (dtype, options) in enumerate(MODES.values()):
        source, target = (Side(distributed.group.WORLD, dtype, FusedRMSProp, **options) for _ in range(2))
        steps(source.model, source.optimizer, 0, STEPS)
        dcp.save({"model": source.model, "optimizer": source.optimizer}, checkpoint_id=f"stateful{k}")
        params = source.go_on()
        target.optimizer.prepare()
        dcp.load({"model": target.model, "optimizer": target.optimizer}, checkpoint_id=f"stateful{k}")
        check(target.go_on(), params)


def loaded_in_place(rank: int, world: int) -> None:
    """Without set_state_dict: right where the state_dict holds the states themselves, else an error that says so."""
    for k, (name, (dtype, options)) in enumerate(MODES.items()):
        source, target = (Side(distributed.group.WORLD, dtype, FusedRMSProp, **options) for _ in range(2))
        steps(source.model, source.optimizer, 0, STEPS)
        source.save("sharded", f"place{k}")
        params = source.go_on()
        target.optimizer.prepare()
        found = state(target.model, target.optimizer)
        dcp.load(found, checkpoint_id=f"place{k}")
        before = [local(param).clone() for param in target.model.parameters()]
        if name != "float32":
            with pytest.raises(RuntimeError, match=r"that state_dict.. returned has been written to"):
                steps(target.model, target.optimizer, STEPS, STEPS + 1)
            check(map(local, target.model.parameters()), before)
            set_state_dict(target.model, target.optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"])
        check(target.go_on(), params)


def begun_by_torch(rank: int, world: int) -> None:
    """get_state_dict before the first step makes states, and that is all: the run is that of an optimizer that was never asked."""
    for cls, options in (
        (FusedRMSProp, dict(weight_decay=0.1, bias_correction=True, clip_weights=0.2, initial_square_avg=1.0, momentum=0.9)),
        (FusedRMSProp, dict(stochastic_rounding=True, state_dtype="8bit", seed=3, decoupled_weight_decay=True, weight_decay=0.1)),
        (FusedSMORMS3, dict(clip_grad_norm=0.05)),
    ):
        dtype = torch.bfloat16 if "seed" in options else torch.float32
        model, plain = (sharded(DeviceMesh.from_group(distributed.group.WORLD, models.DEVICE), dtype) for _ in range(2))
        optimizer, expected = (cls(each.parameters(), lr=1e-2, **options) for each in (model, plain))
        before = [local(param).clone() for param in model.parameters()]
        _, begun = get_state_dict(model, optimizer)
        check(map(local, model.parameters()), before)
        assert all(values["step"] == 0 for values in begun["state"].values())
        assert all(param.grad is None for param in model.parameters())
        assert optimizer.param_groups[0]["lr"] == 1e-2
        steps(model, optimizer, 0, STEPS)
        steps(plain, expected, 0, STEPS)
        check(map(local, model.parameters()), map(local, plain.parameters()))
        # lr 0 and gradients of zeros in a training loop are a step
        for param in model.parameters():
            param.grad = torch.zeros_like(param)
        optimizer.param_groups[0]["lr"] = 0.0
        optimizer.step()
        assert all(values["step"] == STEPS + 1 for values in optimizer.state.values())


def goes_on(name: str, param: torch.Tensor, expected: torch.Tensor) -> None:
    """Whether a parameter is what version 0.1 made of it in two steps more; codes of 8 bits were rounded by other random bits."""
    if "8bit" not in name:
        assert torch.equal(param, expected), name
    else:
        torch.testing.assert_close(param.detach(), expected, rtol=2.0**-7, atol=1e-3)


def of_version_0_1(rank: int, world: int) -> None:
    """What two ranks have saved with the first version: by torch's loader or, where lr is in the momentum, by ours."""
    if rank == 0:
        with tarfile.open(OLD) as archive:
            archive.extractall("old", filter="data")
    distributed.barrier()
    cases = {
        "float32": (FusedRMSProp, torch.float32, dict(eps_placement="inside", clip_grad_value=0.5)),
        "split_8bit": (FusedRMSProp, torch.bfloat16, dict(master_weights="split", state_dtype="8bit", seed=3)),
        "graves": (FusedRMSPropGraves, torch.float32, {}),
        "smorms3": (FusedSMORMS3, torch.float32, {}),
    }
    for name, (cls, dtype, options) in cases.items():
        expected = torch.load(f"old/{name}.full.pt")["after"]
        model = sharded(DeviceMesh.from_group(distributed.group.WORLD, models.DEVICE), dtype)
        optimizer = cls(model.parameters(), **{**(OPTIONS if cls is FusedRMSProp else {}), **options, "lr": 9.0})
        found = state(model, optimizer)
        dcp.load(found, checkpoint_id=f"old/{name}.dcp", planner=LoadPlanner() if name == "graves" else None)
        set_state_dict(model, optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"])
        steps(model, optimizer, STEPS, STEPS + 2)
        for key, param in model.named_parameters():
            goes_on(name, param.full_tensor(), expected[key])
        # a full state_dict of it, whose groups torch takes in today's form
        whole = torch.load(f"old/{name}.full.pt")
        model = sharded(DeviceMesh.from_group(distributed.group.WORLD, models.DEVICE), dtype)
        optimizer = cls(model.parameters(), **{**(OPTIONS if cls is FusedRMSProp else {}), **options, "lr": 9.0})
        groups = [repacked(group) for group in whole["optimizer"]["param_groups"]]
        parts = dict(model_state_dict=whole["model"], optim_state_dict={**whole["optimizer"], "param_groups": groups})
        set_state_dict(model, optimizer, **parts, options=WAYS["full"])
        steps(model, optimizer, STEPS, STEPS + 2)
        for key, param in model.named_parameters():
            goes_on(name, param.full_tensor(), expected[key])
    # its options come along only by our loader
    model = sharded(DeviceMesh.from_group(distributed.group.WORLD, models.DEVICE))
    optimizer = FusedRMSProp(model.parameters(), **OPTIONS)
    found = {"optimizer": get_state_dict(model, optimizer)[1]}
    dcp.load(found, checkpoint_id="old/float32.dcp", planner=LoadPlanner())
    optimizer.load_state_dict({**found["optimizer"], "state": {}})
    assert (optimizer.param_groups[0]["eps_placement"], optimizer.param_groups[0]["clip_grad_value"]) == ("inside", 0.5)


CHECKS = (other_options, units, from_first_rank, without_names, loaded_in_place, begun_by_torch, of_version_0_1)
