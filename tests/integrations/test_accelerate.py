"""accelerate with FSDP2: prepare, train, save, load, on two processes."""

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, DistributedType, PartialState
from torch import distributed

import pages
import processes
from fusedrms import FusedRMSProp

STEPS = 4
LIMIT = 0.25
BOUND = 2 * STEPS * 2**-20  # weights below 1; sums of gradients in another order, which roots magnify
KINDS = ["SHARDED_STATE_DICT", "FULL_STATE_DICT"]


def tiny() -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(16, 33), torch.nn.Tanh(), torch.nn.Linear(33, 4))


def loader(rank: int = 0, world: int = 1, begin: int = 0, dtype: torch.dtype = torch.float32) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A rank's part of each batch of eight."""
    generator = torch.Generator().manual_seed(2)
    batches = [(torch.randn(8, 16, generator=generator), torch.randint(4, (8,), generator=generator)) for _ in range(2 * STEPS)]
    return [(inputs[rank::world].to(dtype), labels[rank::world]) for inputs, labels in batches[begin : begin + STEPS]]


def on_cpus(fsdp_plugin: FullyShardedDataParallelPlugin) -> Accelerator:
    """accelerate heeds the plugin on GPUs alone; this emulates the lines of its AcceleratorState that do so."""
    AcceleratorState._reset_state(reset_partial_state=True)
    made = Accelerator(cpu=True)
    made.state.distributed_type, made.state.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    return made


def train(accelerator, model, optimizer, batches) -> None:
    for inputs, labels in batches:
        accelerator.backward(torch.nn.functional.cross_entropy(model(inputs), labels))
        optimizer.step()
        optimizer.zero_grad()


def values(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([param.full_tensor().detach().flatten() for param in model.parameters()])


def page(kind: str, dtype: torch.dtype, options: dict, batches: list) -> dict:
    changes = {"Accelerator(fsdp_plugin": "on_cpus(fsdp_plugin", "SHARDED_STATE_DICT": kind, "clip_grad_norm=1.0": "**options"}
    return pages.run("accelerate with FSDP2", changes, model=tiny().to(dtype), loader=batches, on_cpus=on_cpus, options=options)


def goes_on(kind: str, dtype: torch.dtype, options: dict) -> torch.Tensor:
    """Other objects go on from what the documents' own code has saved, bit for bit."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    names = page(kind, dtype, options, loader(rank, world, dtype=dtype))
    model, optimizer, accelerator = (names[name] for name in ("model", "optimizer", "accelerator"))
    assert isinstance(optimizer.optimizer, FusedRMSProp)
    assert {float(state["step"]) for state in optimizer.optimizer.state.values()} == {STEPS}
    assert optimizer.optimizer.last_grad_norm > LIMIT  # clipped
    train(accelerator, model, optimizer, loader(rank, world, STEPS, dtype))

    accelerator = on_cpus(FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type=kind))
    other = tiny().to(dtype)
    torch.nn.init.zeros_(other[0].weight)
    other, resumed = accelerator.prepare(other, FusedRMSProp(other.parameters(), lr=1e-3, **options))
    accelerator.load_state("checkpoint")
    train(accelerator, other, resumed, loader(rank, world, STEPS, dtype))
    assert torch.equal(values(model), values(other))
    return values(model)


def check() -> None:
    found = [goes_on(kind, torch.float32, dict(clip_grad_norm=LIMIT)) for kind in KINDS]
    assert torch.equal(*found)
    plain = tiny()
    optimizer = torch.optim.RMSprop(plain.parameters(), lr=1e-3)
    for inputs, labels in loader() + loader(begin=STEPS):
        torch.nn.functional.cross_entropy(plain(inputs), labels).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), LIMIT)
        optimizer.step()
        optimizer.zero_grad()
    assert (found[0] - pages.values(plain)).abs().max() < BOUND
    assert (found[0] - pages.values(tiny())).abs().max() > 100 * BOUND
    for kind in KINDS:
        goes_on(kind, torch.bfloat16, dict(clip_grad_norm=LIMIT, master_weights="split", state_dtype="8bit"))


def test_fsdp2():
    """As one process with torch's optimizer does."""
    processes.run(2, check)
