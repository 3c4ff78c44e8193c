"""FSDP2 and tensor parallel: each rank holds a part of each parameter."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusedrms import FusedRMSProp, FusedSMORMS3, apply_in_backward
from fusedrms.engine.sharded import local, shard_offset

from . import models
from .models import STEPS, agree, check, even_layers, give_gradients, layers, mesh_of, part, sharded, tensor_parallel

SHARDED = {
    "plain": (FusedRMSProp, torch.float32, {}),
    "everything": (FusedRMSProp, torch.float32, dict(centered=True, momentum=0.9, weight_decay=0.1, bias_correction=True)),
    "SMORMS3": (FusedSMORMS3, torch.float32, {}),
    "stochastic": (FusedRMSProp, torch.bfloat16, dict(stochastic_rounding=True, seed=3)),
    "split": (FusedRMSProp, torch.bfloat16, dict(master_weights="split", momentum=0.9)),
    "split, bfloat16 state": (
        FusedRMSProp,
        torch.bfloat16,
        dict(master_weights="split", state_dtype=torch.bfloat16, centered=True, seed=0),
    ),
    "split24": (FusedRMSProp, torch.bfloat16, dict(master_weights="split24", momentum=0.9, seed=3)),
    "average": (FusedRMSProp, torch.bfloat16, dict(master_weights="split", ema_decay=0.5, ema_warmup=True)),
    "clip norm": (FusedRMSProp, torch.float32, dict(clip_grad_norm=0.01)),
    "clip each norm": (FusedRMSProp, torch.float32, dict(clip_grad_norm=0.01, clip_norm_over="parameter")),
}


def compare(model: nn.Module, plain: nn.Module, cls, options: dict) -> None:
    """Some steps of both: bit for bit the same, random bits included, but for norms, whose sums are others'."""
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
        assert all(value.placements == param.placements for key, value in state.items() if value.dim())
        assert state["step"] == expected.state[other]["step"]
        if "ema_decay" in options:
            assert torch.equal(local(state["param_ema"]), part(expected.state[other]["param_ema"], param))


def measured(rank: int, world: int) -> None:
    """Of whole parameters on every rank, whatever lies where."""
    model, plain = sharded(mesh_of(world)), layers()
    optimizer, expected = (FusedRMSProp(each.named_parameters(), stats=True, momentum=0.9) for each in (model, plain))
    for step in range(2):
        give_gradients(step, model, plain)
        optimizer.step()
        expected.step()
        found, right = optimizer.stats().as_dict(), expected.stats().as_dict()
        assert found.keys() == right.keys()
        for key, value in right.items():
            torch.testing.assert_close(found[key], value, rtol=1e-6, atol=0, msg=lambda said, key=key: f"{key}: {said}")


def cautious(rank: int, world: int) -> None:
    """By the share of the whole parameter."""
    compare(sharded(mesh_of(world)), layers(), FusedRMSProp, dict(caution=True, momentum=0.9, lr=0.1))


def averaged(rank: int, world: int) -> None:
    """Models see averages in place of their parameters, also where FSDP2 has kept whole ones since a forward without a backward."""
    for reshard in (True, False):
        model, plain = sharded(mesh_of(world), reshard_after_forward=reshard), layers()
        optimizer, expected = (FusedRMSProp(each.parameters(), ema_decay=0.5) for each in (model, plain))
        x = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).to(models.DEVICE)
        for each, its in ((model, optimizer), (plain, expected)):
            each(x).square().mean().backward()
            its.step()
        with torch.no_grad():
            for _ in range(2):
                own = model(x)
                torch.testing.assert_close(own, plain(x))
                with optimizer.averaged(), expected.averaged():
                    torch.testing.assert_close(model(x), plain(x))
                    assert not torch.equal(model(x), own)
                assert torch.equal(model(x), own)


def fsdp(rank: int, world: int) -> None:
    meshes = [mesh_of(world)]
    if world == 4:  # replicas of shards
        meshes.append(mesh_of(2, 2, names=("replicate", "shard")))
    for mesh in meshes:
        for cls, dtype, options in SHARDED.values():
            compare(sharded(mesh, dtype), layers(dtype), cls, options)


def parallel_tensors(rank: int, world: int) -> None:
    """Alone and, on four ranks, below FSDP2. The second layer's parts do not lie in a row there: other random bits."""
    mesh = mesh_of(2, 2, names=("data", "tensor")) if world == 4 else mesh_of(world)
    for name, (cls, dtype, options) in SHARDED.items():
        model, plain = tensor_parallel(mesh, dtype), even_layers(dtype)
        if name in ("stochastic", "split24", "split, bfloat16 state"):
            model, plain = model[0], plain[0]
        compare(model, plain, cls, options)


def parallel_tensors_training(rank: int, world: int) -> None:
    """A forward and a backward, as one process has them of the same data."""
    model, plain = tensor_parallel(mesh_of(world)), even_layers()
    optimizers = [FusedRMSProp(each.parameters(), lr=1e-3, momentum=0.9, clip_grad_norm=0.1) for each in (model, plain)]
    for step in range(STEPS):
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(step)).to(models.DEVICE)
        for each, optimizer in zip((model, plain), optimizers, strict=True):
            optimizer.zero_grad()
            each(x).square().mean().backward()
            optimizer.step()
    agree(model, plain, exact=False)


def fsdp_codes(rank: int, world: int) -> None:
    """Groups of 64 elements begin anew in each shard: what begins the whole has the codes that it has by itself."""
    for state_dtype in ("8bit", "4bit"):
        codes(rank, sharded(mesh_of(world)), dict(state_dtype=state_dtype, momentum=0.9, seed=0))


def codes(rank: int, model: nn.Module, options: dict, cls=FusedRMSProp) -> None:
    shards = nn.ParameterList([local(param).clone() for param in model.parameters()])
    optimizer, expected = (cls(each.parameters(), **options) for each in (model, shards))
    for step in range(STEPS):
        give_gradients(step, model)
        for param, shard in zip(model.parameters(), shards, strict=True):
            shard.grad = local(param.grad).clone()
        optimizer.step()
        expected.step()
    begins = [param for param in model.parameters() if local(param).numel() and shard_offset(param) == 0]
    assert len(begins) == len(shards) if rank == 0 else not begins
    again = cls(model.parameters(), **options)
    again.load_state_dict(optimizer.state_dict())
    for param, shard in zip(model.parameters(), shards, strict=True):
        assert rank or torch.equal(local(param), shard)
        for key, value in expected.state[shard].items():
            here = local(optimizer.state[param][key])
            assert rank or torch.equal(here, value)
            assert here.shape == value.shape
            assert torch.equal(local(again.state[param][key]), here)


def fsdp_training(rank: int, world: int) -> None:
    """As torch's optimizer: the ranks' own data, torch's clipping; computation in bfloat16; gradients that go to the CPU."""
    mesh = mesh_of(world)
    mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for options in ({}, dict(mp_policy=mixed), dict(mp_policy=mixed, offload_policy=CPUOffloadPolicy(pin_memory=False))):
        trained = []
        for cls in (FusedRMSProp, torch.optim.RMSprop):
            model = sharded(mesh, **options)
            optimizer = cls(model.parameters(), lr=1e-3, momentum=0.9)
            for step in range(STEPS):
                optimizer.zero_grad()
                x = torch.randn(4, 7, generator=torch.Generator().manual_seed(10 * step + rank)).to(models.DEVICE)
                model(x).square().mean().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
            trained.append([local(param) for param in model.parameters()])
        check(*trained, exact=False)


def below_a_head(layer: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(layer, nn.Linear(13, 3).to(models.DEVICE))


def fsdp_steps_in_backward(rank: int, world: int) -> None:
    """As one process computes with the same data; also where shards have gradients only when the backward has ended."""
    mesh = mesh_of(world)
    for options in (dict(clip_grad_norm=0.1, norm_from="previous"), dict(clip_grad_norm=0.1, clip_norm_over="parameter")):
        for model, plain in (
            (sharded(mesh), layers()),
            (fully_shard(layers()[0], mesh=mesh), layers()[0]),
            (below_a_head(fully_shard(layers()[0], mesh=mesh)), below_a_head(layers()[0])),
        ):
            optimizers = [apply_in_backward(each, FusedRMSProp, lr=1e-3, momentum=0.9, **options) for each in (model, plain)]
            for step in range(STEPS):
                x = torch.randn(4, 7, generator=torch.Generator().manual_seed(step)).to(models.DEVICE)
                for each in (model, plain):
                    each(x).square().mean().mul(10.0**step).backward()
                    assert all(param.grad is None for param in each.parameters())
                norms = [optimizer.last_grad_norm for optimizer in optimizers]
                torch.testing.assert_close(*norms)
                everywhere = [torch.empty_like(norms[0]) for _ in range(world)]
                distributed.all_gather(everywhere, norms[0])
                assert all(torch.equal(norm, norms[0]) for norm in everywhere)
            agree(model, plain, exact=False)
        with pytest.raises(ValueError, match="clip_grad_norm with model_parallel_group"):
            apply_in_backward(layers(), FusedRMSProp, model_parallel_group=distributed.group.WORLD, **options)


def nan_in_one_shard(rank: int, world: int) -> None:
    """All ranks leave the step out, whether a scaler or the optimizer finds it."""
    for scaler in (None, torch.amp.GradScaler(models.DEVICE, init_scale=4.0)):
        model, plain = sharded(mesh_of(world)), layers()
        optimizer = FusedRMSProp(model.parameters(), skip_nonfinite=scaler is None)
        give_gradients(0, model)
        if rank == 0:
            local(next(model.parameters()).grad)[0, 0] = float("nan")
        if scaler:
            scaler.scale(torch.ones((), device=models.DEVICE))  # as a loss would be
            scaler.step(optimizer)
            scaler.update()
            assert scaler.get_scale() == 2.0
        else:
            optimizer.step()
        assert optimizer.skipped_steps == 1
        agree(model, plain)


def norms_over_several_groups(rank: int, world: int) -> None:
    """Added up in the same order on all ranks, however the addresses on each divide parameters into launches."""
    if world < 4:
        return
    mesh, params, wholes = mesh_of(2, 2, names=("data", "tensor")), [], []
    for k, placements in enumerate(([Shard(0), Replicate()], [Replicate(), Shard(0)], [Shard(0), Shard(1)])):
        memory = torch.ones(17, device=models.DEVICE)
        here = memory[1:] if rank == 0 and k == 1 else memory[:16]
        params.append(nn.Parameter(DTensor.from_local(here.view(4, 4), mesh, placements)))
        wholes.append(nn.Parameter(torch.ones(params[-1].shape, device=models.DEVICE)))
        params[-1].grad = DTensor.from_local(torch.full((4, 4), 2.0 + k, device=models.DEVICE), mesh, placements)
        wholes[-1].grad = torch.full_like(wholes[-1], 2.0 + k)
    options = dict(eps=1.0, clip_grad_norm=1.0, clip_norm_over="parameter")
    optimizer, expected = FusedRMSProp(params, **options), FusedRMSProp(wholes, **options)
    optimizer.step()
    expected.step()
    torch.testing.assert_close(optimizer.last_grad_norm, expected.last_grad_norm)
    check([local(param) for param in params], [other[:4, :4] for other in wholes], exact=False)


def no_operation_of_torch(rank: int, world: int) -> None:
    """In a steady step, but for the upload of addresses to a GPU: DTensor takes a tenth of a millisecond for each."""
    called = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            upload = models.DEVICE != "cpu" and not any(isinstance(value, DTensor) for value in tree_leaves((args, kwargs)))
            if function.namespace != "profiler" and not (upload and step):
                called.append(function)
            return function(*args, **(kwargs or {}))

    model = sharded(mesh_of(world))
    optimizer = FusedRMSProp(model.parameters(), centered=True, momentum=0.9)
    for step in range(3):
        give_gradients(step, model)
        called.clear()
        with Seen():
            optimizer.step()
        assert called if step == 0 else not called


CHECKS = (
    fsdp,
    averaged,
    cautious,
    measured,
    parallel_tensors,
    parallel_tensors_training,
    fsdp_codes,
    fsdp_training,
    fsdp_steps_in_backward,
    nan_in_one_shard,
    norms_over_several_groups,
    no_operation_of_torch,
)
