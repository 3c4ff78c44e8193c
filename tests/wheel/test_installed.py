"""The wheel alone, in a new environment, from a directory outside of the checkout."""

import json

import pytest

from conftest import ROOT
from fusedrms.version import __version__

STEP = """
import copy, torch, fusedrms

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
models = [model, copy.deepcopy(model)]
options = dict(lr=1e-2, momentum=0.9, centered=True, weight_decay=1e-2)
optimizers = [fusedrms.FusedRMSProp(models[0].parameters(), **options), torch.optim.RMSprop(models[1].parameters(), **options)]
inputs = torch.randn(32, 8)
for _ in range(5):
    for model, optimizer in zip(models, optimizers):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
for ours, theirs in zip(*(model.parameters() for model in models)):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
"""
PRESET = """
import torch, fusedrms

param = torch.nn.Parameter(torch.ones(4))
optimizer = fusedrms.presets.timm_rmsprop_tf([param], lr=0.1)
param.grad = torch.ones(4)
optimizer.step()
torch.testing.assert_close(param.detach(), torch.full((4,), 0.9))  # square averages start from 1
"""
LEAN = """
import torch, fusedrms

param = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
optimizer = fusedrms.FusedRMSProp([param], lr=1e-3, alpha=0.0, master_weights="split24", state_dtype="8bit")
for _ in range(2):
    param.grad = torch.ones_like(param)
    optimizer.step()
((_, master),) = fusedrms.export_master(optimizer)
torch.testing.assert_close(master, torch.full((4096,), 0.998), rtol=0, atol=1e-4)  # in bfloat16 1 - 1e-3 would be 1
memory = optimizer.memory()
assert 4096 * 4 < memory.parameters + sum(memory.states.values()) < 4096 * 4.2  # bytes: 2 + 1 + 1.06
"""
RULE = """
import torch, fusedrms

@fusedrms.rule(states=["exp_avg"], lr=0.5, beta=0.9)
def Averaged(grad, param, state, lr, n):
    exp_avg = n.beta * state.exp_avg + (1 - n.beta) * torch.sign(grad)
    return lr * exp_avg, state.replace(exp_avg=exp_avg)

param = torch.nn.Parameter(torch.ones(4))
optimizer = Averaged([param])
param.grad = torch.full((4,), 3.0)
optimizer.step()
torch.testing.assert_close(param.detach(), torch.full((4,), 0.95))
"""


@pytest.fixture(scope="module")
def run(installed):
    """A script of its own, as a user has it."""

    def script(text: str, name: str = "script.py") -> str:
        (installed.directory / name).write_text(text)
        return installed.run("python", name)

    return script


def test_it_is_the_wheel_that_runs(installed, run):
    found = run("import fusedrms, fusedrms.kernels as k; print(fusedrms.__file__); print(k.__file__); print(fusedrms.__version__)").split()
    assert found[2] == __version__
    assert all(str(installed.python.parents[1]) in path and str(ROOT) not in path for path in found[:2])


def test_doctor(installed):
    found = json.loads(installed.run("fusedrms", "doctor", "--json"))
    assert found["versions"]["fusedrms"] == __version__
    assert [device["self_test"]["ok"] for device in found["devices"]] == [True]
    assert found["tested"]["combination"], found["tested"]  # constraints.txt has a row of its own


def test_a_step_is_that_of_torch(run):
    run(STEP)


def test_preset(run):
    run(PRESET)


def test_lean(run):
    run(LEAN)


def test_rule(run):
    run(RULE)


def test_commands(installed):
    assert installed.run("fusedrms", "--version") == f"fusedrms {__version__}\n"
    shown = installed.run("python", "-m", "fusedrms", "--help")
    assert all(command in shown for command in ("doctor", "tune", "inspect", "memory", "presets", "compile"))
    assert "repository" in installed.run("fusedrms", "bench", code=2)
    assert "repository" in installed.run("fusedrms", "bench", "--help")
