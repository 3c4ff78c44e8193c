"""torch.distributed.checkpoint, at other numbers of processes and in other optimizers."""

import torch
import torch.distributed.checkpoint as dcp
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh

from fusedrms import FusedRMSProp
from fusedrms.engine.sharded import local
from fusedrms.engine.state.full_precision import export_state

from . import models
from .models import STEPS, agree, check, even_layers, give_gradients, layers, mesh_of, part, sharded, tensor_parallel

OPTIONS = dict(centered=True, momentum=0.9, lr=1e-3)
MODES = {
    "float32": (torch.float32, {}),
    "split": (torch.bfloat16, dict(master_weights="split")),
    "split, 8-bit": (torch.bfloat16, dict(master_weights="split", state_dtype="8bit", seed=3)),
    "stochastic, 8-bit": (torch.bfloat16, dict(stochastic_rounding=True, state_dtype="8bit", seed=3)),
    "split24, 4-bit": (torch.bfloat16, dict(master_weights="split24", state_dtype="4bit", seed=3)),
    "bfloat16 states": (torch.bfloat16, dict(state_dtype=torch.bfloat16, seed=3)),
}


def state(model: nn.Module, optimizer: torch.optim.Optimizer, options: StateDictOptions | None = None) -> dict:
    return dict(zip(("model", "optimizer"), get_state_dict(model, optimizer, options=options), strict=True))


def load(folder: str, model: nn.Module, optimizer: torch.optim.Optimizer, group=None) -> None:
    loaded = state(model, optimizer)
    dcp.load(loaded, checkpoint_id=folder, process_group=group)
    set_state_dict(model, optimizer, model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"])


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        give_gradients(step, model)
        optimizer.step()


def other_numbers_of_ranks(rank: int, world: int) -> None:
    """Saved on two, loaded on one, three and four and into torch's optimizer: going on equals not stopping."""
    folder = "two"
    plain = layers()
    steps(plain, FusedRMSProp(plain.parameters(), **OPTIONS), 0, STEPS + 1)
    groups = {n: distributed.new_group(list(range(n))) for n in range(1, world + 1)}
    if rank < 2:
        model = sharded(DeviceMesh.from_group(groups[2], models.DEVICE))
        optimizer = FusedRMSProp(model.parameters(), **OPTIONS)
        steps(model, optimizer, 0, STEPS)
        dcp.save(state(model, optimizer), checkpoint_id=folder, process_group=groups[2])
    distributed.barrier()
    for n, group in groups.items():
        for cls in (FusedRMSProp, torch.optim.RMSprop):
            if rank < n:
                model = sharded(DeviceMesh.from_group(group, models.DEVICE))
                optimizer = cls(model.parameters(), **OPTIONS)
                load(folder, model, optimizer, group)
                steps(model, optimizer, STEPS, STEPS + 1)
                agree(model, plain, exact=cls is FusedRMSProp)
    distributed.barrier()


def every_mode(rank: int, world: int) -> None:
    """At the same number of ranks going on equals not stopping, whatever the precision; steps may go on while it is written."""
    mesh, beside = mesh_of(world), distributed.new_group(backend="gloo")  # while a norm is added up by the first group
    for name, (dtype, options) in MODES.items():
        model, other = sharded(mesh, dtype), sharded(mesh, dtype)
        optimizer, loaded = (FusedRMSProp(each.parameters(), clip_grad_norm=0.1, **OPTIONS, **options) for each in (model, other))
        steps(model, optimizer, 0, STEPS)
        future = dcp.async_save(state(model, optimizer), checkpoint_id=name, process_group=beside)
        steps(model, optimizer, STEPS, STEPS + 2)
        future.result()
        load(name, other, loaded)
        steps(other, loaded, STEPS, STEPS + 2)
        check(map(local, other.parameters()), map(local, model.parameters()))
        _, complete = get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True))
        for key, values in complete["state"].items():
            param = model.get_parameter(key)
            assert all(isinstance(value, torch.Tensor) and value.shape in ((), param.shape) for value in values.values())
            ours = export_state(optimizer.kinds, param, optimizer.state[param], optimizer._run.ties)
            assert torch.equal(part(values["square_avg"], param), local(ours["square_avg"]))


def parallel_tensors_saved(rank: int, world: int) -> None:
    """From one way to divide a model to another."""
    mesh = mesh_of(world)
    grid = mesh_of(world // 2, 2, names=("data", "tensor"))
    plain = even_layers()
    steps(plain, FusedRMSProp(plain.parameters(), **OPTIONS), 0, STEPS + 1)
    for here, there in (mesh, grid), (grid, mesh):
        model, other = tensor_parallel(here), tensor_parallel(there)
        optimizer, loaded = (FusedRMSProp(each.parameters(), **OPTIONS) for each in (model, other))
        steps(model, optimizer, 0, STEPS)
        dcp.save(state(model, optimizer), checkpoint_id=f"tensors{here.ndim}")
        load(f"tensors{here.ndim}", other, loaded)
        steps(other, loaded, STEPS, STEPS + 1)
        agree(other, plain)


CHECKS = (other_numbers_of_ranks, every_mode, parallel_tensors_saved)
