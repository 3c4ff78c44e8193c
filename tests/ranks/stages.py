"""Processes that hold other parameters of one model: pipeline stages, experts, ZeroRedundancyOptimizer, FSDP1."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from fusedrms import FusedRMSProp

from . import replicas
from .models import STEPS, agree, check, give_gradients, layers, mesh_of

LIMIT = dict(clip_grad_norm=0.05, momentum=0.9, lr=1e-3)


def tensors(first: int, n: int) -> list[nn.Parameter]:
    """Parameters of a model, from the first: each the same wherever it is made."""
    return [nn.Parameter(torch.randn(3 + k, 5, generator=torch.Generator().manual_seed(k))) for k in range(first, first + n)]


def give(step: int, first: int, params: list[nn.Parameter]) -> None:
    for k, param in enumerate(params, first):
        param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + k))


def stages(rank: int, world: int) -> None:
    """Plain stages, the last without parameters: one norm, as one process has it of the whole model, and all leave the same steps out."""
    n = 3 * (world - 1)
    for options in (LIMIT, LIMIT | dict(clip_norm_over="parameter"), LIMIT | dict(clip_norm_on="update"), dict(skip_nonfinite=True)):
        here, whole = tensors(3 * rank, 0 if rank == world - 1 else 3), tensors(0, n)
        optimizer = FusedRMSProp([{"params": here}], **options, model_parallel_group=distributed.group.WORLD)
        expected = FusedRMSProp(whole, **options)
        for step in range(STEPS):
            give(step, 3 * rank, here)
            give(step, 0, whole)
            if step == 1 and "skip_nonfinite" in options:
                whole[0].grad[0, 0] = float("nan")
                if rank == 0:
                    here[0].grad[0, 0] = float("nan")
            for each in (optimizer, expected):
                each.step()
            assert optimizer.skipped_steps == expected.skipped_steps
            if "clip_grad_norm" in options:
                torch.testing.assert_close(optimizer.last_grad_norm, expected.last_grad_norm, rtol=1e-6, atol=0)
        check(here, whole[3 * rank : 3 * rank + 3] if here else [], exact=False)


def scaled_stages(rank: int, world: int) -> None:
    """A scaler that asks the other stages has all leave a step out, the last too, which has no parameters."""
    n = 3 * (world - 1)
    for options in ({}, dict(clip_grad_norm=0.05), dict(skip_nonfinite=True)):
        here, whole = tensors(3 * rank, 0 if rank == world - 1 else 3), tensors(0, n)
        optimizer = FusedRMSProp([{"params": here}], **options, model_parallel_group=distributed.group.WORLD)
        expected = FusedRMSProp(whole, **options)
        scaler = ShardedGradScaler("cpu", init_scale=8.0, process_group=distributed.group.WORLD)
        scaler.scale(torch.ones(()))
        for step in range(STEPS):
            give(step, 3 * rank, here)
            give(step, 0, whole)
            for param in here:
                param.grad *= scaler.get_scale()
            if step == 1 and rank == 0:
                here[0].grad[0, 0] = float("inf")
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            if step != 1:
                expected.step()
        assert optimizer.skipped_steps == (1 if here or options else 0)  # without a launch nobody counts
        check(here, whole[3 * rank : 3 * rank + 3] if here else [], exact=not options)
        assert scaler.get_scale() == 4.0


def one_scaled_stage(rank: int, world: int) -> None:
    """A stage may be without a scaler, or without gradients, of which a scaler says the number 0."""
    here = tensors(2 * rank, 2)
    optimizer = FusedRMSProp(here, **LIMIT, model_parallel_group=distributed.group.WORLD)
    if rank == 0:
        give(0, 0, here)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(1.0), torch.tensor(0.0)
    elif rank == 1:
        optimizer.found_inf = 0
    optimizer.step()
    expected = torch.cat([p.grad.flatten() for p in here]).norm() if rank == 0 else torch.zeros(())
    distributed.broadcast(expected, 0)
    torch.testing.assert_close(optimizer.last_grad_norm.float(), expected, rtol=1e-6, atol=0)


def sharded_stages(rank: int, world: int) -> None:
    """Two stages of two shards each: squares are added up over the shards, then over the stages."""
    if world < 4:
        return
    mesh = mesh_of(2, 2, names=("stage", "shard"))
    stage = mesh.get_local_rank("stage")
    for groups in (mesh["stage"], mesh.get_group("stage"), [mesh.get_group("stage")]):
        models = [layers(), layers()]
        model = models[stage][: 3 if stage == 0 else 5]  # other shapes, other numbers of parameters
        plain = nn.ModuleList([models[0][:3], models[1][:5]])
        expected = FusedRMSProp(plain.parameters(), **LIMIT)
        model = fully_shard(nn.Sequential(*(each for each in layers()[: 3 if stage == 0 else 5])), mesh=mesh["shard"])
        optimizer = FusedRMSProp(model.parameters(), **LIMIT, model_parallel_group=groups)
        for step in range(STEPS):
            for k, part in enumerate(plain):
                give_gradients(step, *([model, part] if k == stage else [part]))
            optimizer.step()
            expected.step()
        torch.testing.assert_close(optimizer.last_grad_norm, expected.last_grad_norm, rtol=1e-6, atol=0)
        agree(model, plain[stage], exact=False)


def resumed(rank: int, world: int) -> None:
    """Copies and checkpoints leave each parameter group its process groups; a pickle, which can hold none, says so."""
    world_group = distributed.group.WORLD
    for value in world_group, [world_group, world_group], mesh_of(world):
        model = nn.ParameterList(tensors(3 * rank, 3))
        optimizer = FusedRMSProp(model.parameters(), **LIMIT, model_parallel_group=value)
        give(0, 3 * rank, list(model))
        optimizer.step()
        other, twin = FusedRMSProp(model.parameters(), **LIMIT, model_parallel_group=value), copy.deepcopy(optimizer)
        other.load_state_dict(optimizer.state_dict())
        state = get_optimizer_state_dict(model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))
        set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(flatten_optimizer_state_dict=True))
        norms = []
        for each in (optimizer, other, twin):
            assert list(each.param_groups[0]["model_parallel_group"]) == [world_group]
            give(1, 3 * rank, each.param_groups[0]["params"])
            each.step()
            norms.append(each.last_grad_norm)
        whole = tensors(0, 3 * world)
        give(1, 0, whole)
        expected = torch.cat([param.grad.flatten() for param in whole]).double().norm()
        assert all(torch.isclose(norm, expected, rtol=1e-6) for norm in norms)
        lost = pickle.loads(pickle.dumps(optimizer))
        give(1, 3 * rank, lost.param_groups[0]["params"])
        with pytest.raises(ValueError, match="parameter group 0 lost its model_parallel_group in a pickle: set"):
            lost.step()
        lost.param_groups[0]["model_parallel_group"] = value
        lost.step()
        assert torch.isclose(lost.last_grad_norm, expected, rtol=1e-6)


def experts(rank: int, world: int) -> None:
    """Plain tensors, others on each rank, in a group beside parameters that all ranks have."""
    shared, mine, whole = tensors(0, 2), tensors(2 + 2 * rank, 2), tensors(0, 2 + 2 * world)
    groups = [{"params": shared}, {"params": mine, "model_parallel_group": distributed.group.WORLD}]
    optimizer, expected = FusedRMSProp(groups, **LIMIT), FusedRMSProp(whole, **LIMIT)
    for step in range(STEPS):
        give(step, 0, shared)
        give(step, 2 + 2 * rank, mine)
        give(step, 0, whole)
        optimizer.step()
        expected.step()
    torch.testing.assert_close(optimizer.last_grad_norm, expected.last_grad_norm, rtol=1e-6, atol=0)
    check([*shared, *mine], [*whole[:2], *whole[2 + 2 * rank : 4 + 2 * rank]], exact=False)


def zero_redundancy_with_a_norm(rank: int, world: int) -> None:
    """Told of the other ranks, the optimizer of each knows the norm of all gradients."""
    model = DistributedDataParallel(replicas.Linear())
    options = dict(clip_grad_norm=3.0, model_parallel_group=distributed.group.WORLD)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=FusedRMSProp, **options)
    replicas.train(model, optimizer, rank, world)
    check(model.parameters(), replicas.alone(lambda params: FusedRMSProp(params, clip_grad_norm=3.0), world), exact=False)


def zero_redundancy_resumed(rank: int, world: int) -> None:
    """Its checkpoints go through a file and keep the group; those of one process bring their options, as text that it hands on."""
    options = dict(clip_grad_norm=3.0, momentum=0.9, lr_in_momentum=True, eps_placement="inside")
    source = replicas.Linear()
    alone = FusedRMSProp(source.parameters(), **options)
    for param in source.parameters():
        param.grad = torch.ones_like(param)
    alone.step()
    saved = alone.state_dict()
    runs = []
    for resumes in (False, True):
        model = replicas.Linear()
        model.load_state_dict(source.state_dict())
        model = DistributedDataParallel(model)
        of_group = dict(clip_grad_norm=3.0, model_parallel_group=distributed.group.WORLD)
        optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=FusedRMSProp, momentum=0.9, **of_group)
        optimizer.load_state_dict(copy.deepcopy(saved))
        replicas.train(model, optimizer, rank, world)
        if resumes:
            optimizer.consolidate_state_dict(0)
            if rank == 0:
                torch.save(optimizer.state_dict(), "zero.pt")
            distributed.barrier()
            other = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=FusedRMSProp, momentum=0.9, **of_group)
            other.load_state_dict(torch.load("zero.pt"))
            optimizer = other
        replicas.train(model, optimizer, rank, world)
        assert list(optimizer.param_groups[0]["model_parallel_group"]) == [distributed.group.WORLD]
        group = optimizer.optim.param_groups[0]
        assert (group["lr_in_momentum"], group["eps_placement"]) == (True, "inside")
        runs.append(model)
    check(runs[0].parameters(), runs[1].parameters())


def flat_parameters(rank: int, world: int) -> None:
    """FSDP1: parts of flattened parameters, plain tensors."""
    for whole_names in (False, True):
        model = FullyShardedDataParallel(layers(), use_orig_params=whole_names, device_id=torch.device("cpu"))
        plain = layers()
        optimizer = FusedRMSProp(model.parameters(), **LIMIT, model_parallel_group=distributed.group.WORLD)
        expected = FusedRMSProp(plain.parameters(), **LIMIT)
        for step in range(STEPS):
            for each, own in ((model, optimizer), (plain, expected)):
                own.zero_grad()
                each(torch.randn(4, 7, generator=torch.Generator().manual_seed(step))).square().mean().backward()
                own.step()
            torch.testing.assert_close(optimizer.last_grad_norm, expected.last_grad_norm, rtol=1e-5, atol=0)
        with FullyShardedDataParallel.summon_full_params(model):
            found = [param.detach().clone() for param in model.parameters()]
        check([torch.cat([param.flatten() for param in found])], [torch.cat([p.flatten() for p in plain.parameters()])], exact=False)


def drawn(optimizers: list, params: list[Tensor], steps: int = 1) -> Tensor:
    """Which elements of each parameter are rounded up."""
    for _ in range(steps):
        for param in params:
            param.grad = torch.zeros_like(param)
        for optimizer in optimizers:
            optimizer.step()
    return torch.stack([param.detach() != 1 for param in params])


def other_bits_on_each_rank(rank: int, world: int) -> None:
    """By the rank in model_parallel_group; replicas draw the same."""
    noisy = dict(lr=2.0**-9, weight_decay=1.0, decoupled_weight_decay=True, stochastic_rounding=True)
    for group in (distributed.group.WORLD, None):
        param = nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
        here = drawn([FusedRMSProp([param], **noisy, seed=1, model_parallel_group=group)], [param])[0]
        all_of_them = [torch.empty_like(here) for _ in range(world)]
        distributed.all_gather(all_of_them, here)
        agreement = [(here == other).float().mean().item() for k, other in enumerate(all_of_them) if k != rank]
        assert all(abs(each - 0.5) < 0.05 if group else each == 1 for each in agreement)


def wrong_groups(rank: int, world: int) -> None:
    """Named, before anything has changed."""
    other = distributed.new_group([0])
    param = tensors(0, 1)[0]
    for value in ("world", 3, [None, 3], *([other] if rank else [])):
        with pytest.raises(TypeError, match=r"model_parallel_group=.* is not supported"):
            FusedRMSProp([param], model_parallel_group=value)
    optimizer = FusedRMSProp([param])
    give(0, 0, [param])
    before = param.detach().clone()
    optimizer.param_groups[0]["model_parallel_group"] = 7
    with pytest.raises(TypeError, match="parameter group 0: model_parallel_group=7 is not supported"):
        optimizer.step()
    assert torch.equal(param, before)


CHECKS = (
    stages,
    scaled_stages,
    one_scaled_stage,
    sharded_stages,
    resumed,
    experts,
    zero_redundancy_with_a_norm,
    zero_redundancy_resumed,
    flat_parameters,
    other_bits_on_each_rank,
    wrong_groups,
)
