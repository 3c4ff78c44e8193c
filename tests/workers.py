"""What the ranks of test_distributed.py run, each in a process of its own."""

import os
import pathlib
import traceback
from collections.abc import Callable

import torch
from torch import distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from fusedrms import FusedRMSProp, FusedSMORMS3

SHAPES = [(3, 5), (130,), (77, 3), ()]
OPTIONS = {
    "plain": (FusedRMSProp, {}),
    "everything": (FusedRMSProp, dict(centered=True, momentum=0.9, weight_decay=0.1)),
    "clip norm": (FusedRMSProp, dict(clip_grad_norm=3.0)),
    "SMORMS3": (FusedSMORMS3, {}),
}
LEAN = {
    "stochastic": dict(stochastic_rounding=True, seed=3),
    "split, 8-bit": dict(master_weights="split", state_dtype="8bit", momentum=0.9),
}
STEPS = 3


class Linear(nn.Module):
    """Whose gradients are its inputs: of whole numbers, sums over ranks are exact in any order."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(5)
        self.weights = nn.ParameterList([torch.randn(shape, dtype=dtype) for shape in SHAPES])

    def forward(self, inputs):
        return sum((weight * x).sum() for weight, x in zip(self.weights, inputs, strict=True))


def inputs(step: int, rank: int, world: int, dtype=torch.float32) -> list[torch.Tensor]:
    """Multiples of the number of ranks, so that a mean over them is exact too."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    return [world * torch.randint(-3, 4, shape, generator=generator).to(dtype) for shape in SHAPES]


def alone(make: Callable, world: int, dtype=torch.float32) -> list[torch.Tensor]:
    """Parameters after the steps of one process with the global batch."""
    model = Linear(dtype)
    optimizer = make(model.parameters())
    for step in range(STEPS):
        optimizer.zero_grad()
        parts = [inputs(step, rank, world, dtype) for rank in range(world)]
        model([torch.stack(part).mean(0) for part in zip(*parts, strict=True)]).backward()
        optimizer.step()
    return [param.detach() for param in model.parameters()]


def check(params, expected, exact: bool = True) -> None:
    for param, other in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), other, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-6)


def train(model, optimizer, rank: int, world: int, dtype=torch.float32) -> None:
    for step in range(STEPS):
        optimizer.zero_grad()
        model(inputs(step, rank, world, dtype)).backward()
        optimizer.step()


def ddp(rank: int, world: int) -> None:
    """With gradients that are views into buckets, at addresses of any alignment."""
    made = [(cls, options, torch.float32) for cls, options in OPTIONS.values()]
    made += [(FusedRMSProp, options, torch.bfloat16) for options in LEAN.values()]
    for cls, options, dtype in made:
        model = DistributedDataParallel(Linear(dtype), gradient_as_bucket_view=True)
        train(model, cls(model.parameters(), **options), rank, world, dtype)
        check(model.parameters(), alone(lambda params, cls=cls, options=options: cls(params, **options), world, dtype))


def zero_redundancy(rank: int, world: int) -> None:
    """Each rank holds the states of some parameters; the norm of all gradients cannot be had there."""
    for name in ("plain", "everything", "SMORMS3"):
        cls, options = OPTIONS[name]
        model = DistributedDataParallel(Linear())
        optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=cls, **options)
        train(model, optimizer, rank, world)
        check(model.parameters(), alone(lambda params, cls=cls, options=options: cls(params, **options), world))
        optimizer.consolidate_state_dict(to=0)
        if rank == 0:
            whole = cls(Linear().parameters(), **options)
            whole.load_state_dict(optimizer.state_dict())
            assert all(float(state["step"]) == STEPS for state in whole.state.values())


def nan_on_one_rank(rank: int, world: int) -> None:
    """Reduced gradients carry it everywhere: all ranks leave the step out, and stay equal."""
    model = DistributedDataParallel(Linear())
    optimizer = FusedRMSProp(model.parameters(), skip_nonfinite=True)
    train(model, optimizer, rank, world)
    before = [param.detach().clone() for param in model.parameters()]
    optimizer.zero_grad()
    spoiled = inputs(9, rank, world)
    if rank == world - 1:
        spoiled[1][7] = float("nan")
    model(spoiled).backward()
    optimizer.step()
    assert optimizer.skipped_steps == 1
    check(model.parameters(), before)


def layers(dtype=torch.float32) -> nn.Sequential:
    """Of 13, 5 and 1 rows: uneven shards, and empty ones."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 13), nn.Tanh(), nn.Linear(13, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)


def sharded(mesh, dtype=torch.float32) -> nn.Sequential:
    model = layers(dtype)
    for layer in model[::2]:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def give_gradients(step: int, *models: nn.Module) -> None:
    """The same to all, placed as their parameters are."""
    for k, params in enumerate(zip(*(model.parameters() for model in models), strict=True)):
        grad = torch.randn(params[0].shape, generator=torch.Generator().manual_seed(100 * step + k)).to(params[0].dtype)
        for param in params:
            param.grad = distribute_tensor(grad, param.device_mesh, param.placements) if isinstance(param, DTensor) else grad.clone()


def agree(model, plain, exact: bool = True) -> None:
    check([whole(param) for param in model.parameters()], [param.detach() for param in plain.parameters()], exact)


SHARDED = {
    "plain": (FusedRMSProp, torch.float32, {}),
    "everything": (FusedRMSProp, torch.float32, dict(centered=True, momentum=0.9, weight_decay=0.1, bias_correction=True)),
    "SMORMS3": (FusedSMORMS3, torch.float32, {}),
    "stochastic": (FusedRMSProp, torch.bfloat16, dict(stochastic_rounding=True, seed=3)),
    "split": (FusedRMSProp, torch.bfloat16, dict(master_weights="split", momentum=0.9)),
    "split, bfloat16 state": (FusedRMSProp, torch.bfloat16, dict(master_weights="split", state_dtype=torch.bfloat16, centered=True)),
    "clip norm": (FusedRMSProp, torch.float32, dict(clip_grad_norm=0.01)),
    "clip each norm": (FusedRMSProp, torch.float32, dict(clip_grad_norm=0.01, clip_norm_over="parameter")),
}


def fsdp(rank: int, world: int) -> None:
    """As without shards: bit for bit, random bits included, but for norms, whose sums are others'."""
    meshes = [init_device_mesh("cpu", (world,))]
    if world == 4:  # replicas of shards
        meshes.append(init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    for mesh in meshes:
        for cls, dtype, options in SHARDED.values():
            model, plain = sharded(mesh, dtype), layers(dtype)
            optimizer, expected = cls(model.parameters(), **options), cls(plain.parameters(), **options)
            for step in range(STEPS):
                give_gradients(step, model, plain)
                optimizer.step()
                expected.step()
            agree(model, plain, exact="clip_grad_norm" not in options)
            if "clip_grad_norm" in options:
                torch.testing.assert_close(optimizer.last_grad_norm, expected.last_grad_norm)
            for param, other in zip(model.parameters(), plain.parameters(), strict=True):
                state = optimizer.state[param]
                assert all(
                    value.placements == param.placements for key, value in state.items() if value.dim() and not key.endswith("scale")
                )
                assert state["step"] == expected.state[other]["step"]


CHECKS = {function.__name__: function for function in (ddp, zero_redundancy, nan_on_one_rank, fsdp)}


def work(rank: int, world: int, folder: str, names: list[str]) -> None:
    """Run checks one after the other; a file for each that failed, with the reason."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    for name in names:
        try:
            CHECKS[name](rank, world)
            result = ""
        except Exception:
            result = traceback.format_exc()
        pathlib.Path(folder, f"{name}.{rank}").write_text(result)
        if result:
            os._exit(1)  # the other ranks may wait for this one for ever
        distributed.barrier()
    distributed.destroy_process_group()


def run(world: int, folder: str) -> dict[str, str]:
    """What each check had to say, "" where it passed on all ranks."""
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=work, args=(rank, world, folder, list(CHECKS))) for rank in range(world)]
    for process in ranks:
        process.start()
    failed = False
    while any(process.is_alive() for process in ranks):
        for process in ranks:
            process.join(0.1)
            failed |= process.exitcode not in (0, None)
        if failed:
            for process in ranks:
                process.kill()
    found = {}
    for name in CHECKS:
        paths = [pathlib.Path(folder, f"{name}.{rank}") for rank in range(world)]
        reasons = [path.read_text() if path.exists() else "did not end" for path in paths]
        found[name] = "\n".join(reason for reason in sorted(set(reasons), reverse=True) if reason)
    return found
