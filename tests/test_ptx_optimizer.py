"""optimizer.step() of a real model, its launches executed as a GPU would."""

import copy

import pytest
import torch

from fusedrms import FusedRMSProp, FusedSMORMS3
from fusedrms.kernels import lang
from sample import exhaustive
from tools import copy_grads

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from ptx import real
from ptx.memory import Fault

LEAN = dict(master_weights="split", state_dtype="8bit")
LEANER = dict(master_weights="split24", state_dtype="4bit")


def model() -> torch.nn.ModuleDict:
    return torch.nn.ModuleDict(
        dict(
            embedding=torch.nn.Embedding(50, 24).to(torch.bfloat16),
            conv=torch.nn.Conv1d(24, 10, 3, padding=1),
            norm=torch.nn.BatchNorm1d(10),
            out=torch.nn.Linear(10 * 12, 7),
        )
    )


def loss(parts: torch.nn.ModuleDict) -> torch.Tensor:
    embedded = parts["embedding"](torch.randint(50, (16, 12))).float().transpose(1, 2)
    hidden = parts["norm"](parts["conv"](embedded)).relu().flatten(1)
    return torch.nn.functional.cross_entropy(parts["out"](hidden), torch.randint(7, (16,)))


def groups(parts: torch.nn.ModuleDict, lean: dict) -> list[dict]:
    rest = [param for name in ("conv", "norm", "out") for param in parts[name].parameters()]
    return [dict(params=list(parts["embedding"].parameters()), **lean), dict(params=rest, weight_decay=1e-2)]


CASES = {
    "plain": (FusedRMSProp, {}, LEAN),
    "centered, momentum, clipped": (FusedRMSProp, dict(centered=True, momentum=0.9, eps=1e-4, clip_grad_norm=0.1), LEANER),
    "SMORMS3, clipped": (FusedSMORMS3, dict(clip_grad_norm=0.1), LEAN),
}


@pytest.mark.parametrize("target", ["sm_90", exhaustive("sm_80")])
@pytest.mark.parametrize("case", CASES)
def test_five_steps(monkeypatch, case, target):
    """Each beside one of the CPU driver from the same values: the same averages bit for bit, the same parameters to rounding."""
    cls, options, lean = CASES[case]
    ours = model()
    theirs = copy.deepcopy(ours)
    gpu, cpu = cls(groups(ours, lean), 1e-3, **options), cls(groups(theirs, lean), 1e-3, **options)

    def tensors():
        kept = [tensor for state in gpu.state.values() for tensor in state.values()]
        return [*ours.parameters(), *(param.grad for param in ours.parameters()), *kept]

    launched: list[str] = []
    for _ in range(5):
        gpu.zero_grad()
        loss(ours).backward()
        copy_grads(ours.parameters(), theirs.parameters())
        for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.data.copy_(parameter.data)  # what is approximated differs in its last digits, which a step reads
            for name, tensor in gpu.state.get(parameter, {}).items():
                cpu.state[other][name].copy_(tensor)
        cpu.step()
        with monkeypatch.context() as patch:
            real.use(patch, tensors, launched, target)
            gpu.step()
        for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(parameter, other, rtol=2**-7 if parameter.dtype == torch.bfloat16 else 1e-6, atol=1e-7)
            a, b = gpu.state[parameter], cpu.state[other]
            assert a.keys() == b.keys()
            for name in a.keys() & {"square_avg", "grad_avg", "step"}:
                assert torch.equal(a[name], b[name]) or not (a[name].is_floating_point() or name == "step"), name
    n_norms = 5 if "clip_grad_norm" in options else 0
    assert sorted(launched) == sorted(["step_kernel"] * 10 + ["squares_kernel"] * 2 * n_norms + ["norms_kernel"] * n_norms)


def test_memory_of_others(monkeypatch):
    """What a launch may not touch, it is caught to."""
    parts = model()
    optimizer = FusedRMSProp(parts["out"].parameters(), 1e-3)
    loss(parts).backward()
    weight, bias = parts["out"].parameters()
    real.use(monkeypatch, lambda: [weight, weight.grad, bias, bias.grad], [])
    with pytest.raises(Fault, match="out of bounds"):  # the states
        optimizer.step()
