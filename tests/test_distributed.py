"""Several processes: what each computes is what one process computes with the global batch."""

import json
import os
import pathlib
import re

import pytest
import torch

import gpu
from fusedrms import FusedRMSProp
from fusedrms.kernels import lang

if lang.interpreted() or not torch.distributed.is_available():
    pytest.skip("about processes, which the interpreter only slows down", allow_module_level=True)

import workers
from ranks import exchange, shards, spikes
from ranks.checkpoints import OPTIONS, load, steps
from ranks.models import STEPS, agree, layers

MIGRATING = pathlib.Path(__file__).parents[1] / "docs/migrating.md"
MARK = "<!-- written by tests/test_distributed.py -->"


def check(world: int, folder: pathlib.Path, names: list[str], device: str = "cpu") -> None:
    found = workers.run(world, str(folder), names, device=device)
    assert not any(found.values()), "\n".join(f"{name}: {reason}" for name, reason in found.items() if reason)


def test_some_ranks(tmp_path):
    """A few of all checks."""
    names = ["ddp", "fsdp", "averaged", "cautious", "measured", "fsdp_steps_in_backward", "missing_on_one_rank", "other_numbers_of_ranks"]
    names += ["rules_in_shards", "rules_resumed"]
    check(2, tmp_path, [*names, *(each.__name__ for each in spikes.CHECKS)])


@pytest.mark.exhaustive
def test_ranks(tmp_path):
    """All checks in one start of the processes, which takes longer than they do; four find what two have compiled."""
    found: dict[str, str] = {}
    for world in (2, 4):
        folder = tmp_path / str(world)
        folder.mkdir()
        check(world, folder, list(workers.CHECKS))
        found |= json.loads((folder / exchange.TABLE).read_text())
    before, middle, after = re.split(rf"(?<={MARK}\n)(.*?)(?=\n\n)", MIGRATING.read_text(), maxsplit=1, flags=re.S)
    if "WRITE_DOCS" in os.environ:
        MIGRATING.write_text(before + exchange.table(found) + after)
    else:
        assert middle == exchange.table(found), "the table is another: WRITE_DOCS=1 pytest tests/test_distributed.py writes it"


@pytest.mark.gpu
@gpu.real  # NCCL
def test_ranks_on_gpu(tmp_path):
    """NCCL, with as many GPUs as there are here, up to two."""
    world = min(2, gpu.module.device_count())
    names = [check.__name__ for check in shards.CHECKS]
    check(world, tmp_path, names, gpu.KIND)


@pytest.mark.exhaustive
def test_killed_in_step(tmp_path):
    assert workers.run(2, str(tmp_path), ["killed_in_step"], dies=1) == {"killed_in_step": ""}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_killed_in_save(tmp_path):
    assert workers.run(2, str(tmp_path), ["killed_in_save"], dies=1) == {"killed_in_save": ""}
    model, plain = layers(), layers()
    optimizer, expected = (FusedRMSProp(each.parameters(), **OPTIONS) for each in (model, plain))
    load(str(tmp_path / "before"), model, optimizer)
    steps(model, optimizer, STEPS, 2 * STEPS)
    steps(plain, expected, 0, 2 * STEPS)
    agree(model, plain)
    with pytest.raises(torch.distributed.checkpoint.CheckpointException):
        load(str(tmp_path / "killed"), model, optimizer)
