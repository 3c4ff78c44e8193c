"""skip_above where each rank holds a part: all leave the same steps out, and remember the same norms."""

import torch
import torch.distributed.checkpoint as dcp
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from fusedrms import FusedRMSProp

from . import replicas
from .models import agree, check, give_gradients, layers, mesh_of, sharded
from .stages import give, tensors

ABOVE = dict(skip_above=(3.0, 4), momentum=0.9, lr=1e-3)
SCALES = [1.0, 2.0, 1.0, 30.0, 1.0, 9.0, 2.0, 0.5]  # of the gradients of a step
LEFT_OUT = 2


def same_window(optimizer, world: int) -> list[float]:
    """Its norms, after a look at those of all other ranks: to the bit."""
    norms = optimizer._run.accepted()
    found = [None] * world
    distributed.all_gather_object(found, norms)
    assert all(other == norms for other in found)
    return norms


def spikes_of_stages(rank: int, world: int) -> None:
    """A gradient of the first rank alone is large; the last one has no parameters, but learns of it."""
    for options in ({}, dict(clip_grad_norm=0.05), dict(skip_nonfinite=True)):
        here, whole = tensors(3 * rank, 0 if rank == world - 1 else 3), tensors(0, 3 * (world - 1))
        optimizer = FusedRMSProp([{"params": here}], **options, **ABOVE, model_parallel_group=distributed.group.WORLD)
        expected = FusedRMSProp(whole, **options, **ABOVE)
        for step, scale in enumerate(SCALES):
            give(step, 3 * rank, here)
            give(step, 0, whole)
            for param in (whole[0], *here[: rank == 0]):
                param.grad *= 10 * scale
            optimizer.step()
            expected.step()
            assert optimizer.skipped_steps_by_reason == expected.skipped_steps_by_reason
        assert optimizer.skipped_steps == LEFT_OUT
        torch.testing.assert_close(same_window(optimizer, world), expected._run.accepted(), rtol=1e-6, atol=0)
        check(here, whole[3 * rank : 3 * rank + 3] if here else [], exact=False)


def go_on(models: list[nn.Module], optimizers: list[FusedRMSProp], steps: range) -> None:
    for step in steps:
        give_gradients(step, *models)
        for model, optimizer in zip(models, optimizers, strict=True):
            for param in model.parameters():
                param.grad *= SCALES[step]
            optimizer.step()


def spikes_of_shards(rank: int, world: int) -> None:
    """FSDP2, without a group: DTensors count whole. A checkpoint, flattened or not, brings the window to a rank that began without."""
    plain = layers()
    expected = FusedRMSProp(plain.parameters(), **ABOVE)
    go_on([plain], [expected], range(len(SCALES)))
    for flattened in (False, True):
        way = StateDictOptions(flatten_optimizer_state_dict=flattened)
        models = [sharded(mesh_of(world)) for _ in range(2)]
        optimizers = [FusedRMSProp(models[0].parameters(), **ABOVE), FusedRMSProp(models[1].parameters(), momentum=0.9)]
        go_on(models[:1], optimizers[:1], range(5))
        folder = f"spikes.{flattened}"
        dcp.save(get_optimizer_state_dict(models[0], optimizers[0], options=way), checkpoint_id=folder)
        state = get_optimizer_state_dict(models[1], optimizers[1], options=way)
        dcp.load(state, checkpoint_id=folder)
        set_optimizer_state_dict(models[1], optimizers[1], state, options=way)
        models[1].load_state_dict(models[0].state_dict())
        go_on(models, optimizers, range(5, len(SCALES)))
        for model, optimizer in zip(models, optimizers, strict=True):
            torch.testing.assert_close(same_window(optimizer, world), expected._run.accepted(), rtol=1e-6, atol=0)
            agree(model, plain, exact=False)
        check(*([param.full_tensor() for param in model.parameters()] for model in models))
        assert [optimizer.skipped_steps for optimizer in optimizers] == [LEFT_OUT, 1]


def spikes_of_zero_redundancy(rank: int, world: int) -> None:
    """Told of the other ranks, the optimizer of each leaves out what one process does."""
    model, plain = DistributedDataParallel(replicas.Linear()), replicas.Linear()
    of_ranks = dict(optimizer_class=FusedRMSProp, model_parallel_group=distributed.group.WORLD)
    optimizer, expected = ZeroRedundancyOptimizer(model.parameters(), **of_ranks, **ABOVE), FusedRMSProp(plain.parameters(), **ABOVE)
    for step, scale in enumerate(SCALES):
        for each, own in ((model, optimizer), (plain, expected)):
            own.zero_grad()
            (scale * each(replicas.inputs(step, 0, world))).backward()
            own.step()
    check(model.parameters(), plain.parameters(), exact=False)
    assert optimizer.optim.skipped_steps == expected.skipped_steps == LEFT_OUT
    torch.testing.assert_close(same_window(optimizer.optim, world), expected._run.accepted(), rtol=1e-6, atol=0)


CHECKS = (spikes_of_stages, spikes_of_shards, spikes_of_zero_redundancy)
