"""Under any default device: what we make ourselves lies where it must, not where the user lets tensors be made."""

import ast
import copy
import os
import pathlib
import pickle
import subprocess
import sys

import pytest
import torch
from torch.utils._device import _device_constructors

import fusedrms
from cases import BF16, F32
from fusedrms import FusedRMSProp, FusedSMORMS3, export_master
from fusedrms.tools import doctor, variants
from tools import parameters, random_grads, twins

MADE = {
    "plain": (FusedRMSProp, {}),
    "clip norm": (FusedRMSProp, dict(clip_grad_norm=0.1, bias_correction=True)),
    "clip each norm": (FusedRMSProp, dict(clip_grad_norm=0.1, clip_norm_over="parameter", centered=True)),
    "skip": (FusedRMSProp, dict(skip_nonfinite=True, momentum=0.9)),
    "split, 8-bit": (FusedRMSProp, dict(master_weights="split", state_dtype="8bit", seed=0)),
    "master": (FusedRMSProp, dict(master_weights="float32", state_dtype=BF16, seed=0)),
    "stochastic": (FusedRMSProp, dict(stochastic_rounding=True, seed=0)),
    "SMORMS3": (FusedSMORMS3, {}),
}


def calls_without_a_device(path: pathlib.Path) -> list[str]:
    """The calls that make a tensor on whatever device is the default."""
    makers = {function.__name__ for function in _device_constructors()}
    nodes = list(ast.walk(ast.parse(path.read_text())))
    named = {node.func for node in nodes if isinstance(node, ast.Call) and "device" in {keyword.arg for keyword in node.keywords}}
    used = [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch" and node.attr in makers]
    return [f"{path}:{node.lineno}" for node in used if node not in named]


def test_every_tensor_names_its_device():
    files = sorted(pathlib.Path(fusedrms.__file__).parent.glob("**/*.py"))
    files += sorted(pathlib.Path(fusedrms.__file__).parent.joinpath("kernels").resolve().rglob("*.py"))
    assert [place for path in files for place in calls_without_a_device(path)] == []


def life(made, params, grads, scaled: bool) -> list[torch.Tensor]:
    """All that an optimizer has after steps, with a loss scale and once with an infinity, a checkpoint and copies."""
    cls, options = made
    optimizer = cls(params, **options)
    assert optimizer.skipped_steps.device.type == "cpu"
    for n, given in enumerate(grads):
        for param, grad in zip(params, given, strict=True):
            param.grad = grad.clone()
        if scaled:
            optimizer.grad_scale, optimizer.found_inf = torch.full((2, 1), 2.0, device=params[0].device).unbind()
            optimizer.found_inf.fill_(float(n == 1))
        optimizer.step()
    if scaled:
        del optimizer.grad_scale, optimizer.found_inf
    optimizer.load_state_dict(optimizer.state_dict())
    found = [optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    values = [value for _, value in export_master(optimizer)]
    for each in found:
        own = each.param_groups[0]["params"]
        for param, grad in zip(own, grads[0], strict=True):
            param.grad = grad.clone()
        each.step()
        values += [*own, *(value for param in own for value in each.state[param].values())]
        values += [each.skipped_steps, *([each.last_grad_norm] if options.get("clip_grad_norm") else [])]
    return values


@pytest.mark.exhaustive
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_results_do_not_depend_on_it(device, made, scaled):
    dtype = BF16 if {"stochastic_rounding", "master_weights"} & made[1].keys() else F32
    params = parameters([(3,), (200,), ()], device, dtype)
    others = twins(params)
    grads = []
    for _ in range(3):
        random_grads(params)
        grads.append([param.grad for param in params])
    expected = life(made, params, grads, scaled)
    with torch.device("meta"):
        found = life(made, others, grads, scaled)
    assert [value.device for value in found] == [value.device for value in expected]
    assert all(map(torch.equal, found, expected))


def test_commands():
    variants.variant.cache_clear()
    with torch.device("meta"):
        assert doctor.self_test(torch.device("cpu"))["ok"]
        assert variants.variant("rmsprop", "bfloat16+split+8bit").storage.quantized == [2]


def test_import_and_step_under_a_default_device():
    code = (
        "import torch; torch.set_default_device('meta'); from fusedrms import FusedRMSProp\n"
        "p = torch.nn.Parameter(torch.ones(3, device='cpu')); p.grad = torch.ones_like(p)\n"
        "FusedRMSProp([p], lr=0.1).step(); print(p[0].item())"
    )
    result = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert float(result.stdout) == pytest.approx(0.0, abs=1e-6)
