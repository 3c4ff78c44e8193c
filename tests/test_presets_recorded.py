"""Presets against what the systems themselves computed, which recorded/ has written down."""

import dataclasses
import inspect
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from fusedrms import FusedRMSProp, presets
from recorded.cases import CASES, IN_FLOAT32, SHAPES, TOLERANCE
from recorded.problem import STEPS, gradients, start
from tools import exact, parameter

TESTS = pathlib.Path(__file__).parent
RECORDED = {path.stem: json.loads(path.read_text()) for path in sorted((TESTS / "data" / "recorded").glob("*.json"))}
EVERY = [(name, k) for name, recording in RECORDED.items() for k in range(len(recording["cases"]))]
CONCERNED = sorted({(name, case["preset"]) for name, recording in RECORDED.items() for case in recording["cases"]})


def blocks_of_eight(case: dict) -> bool:
    """Whether this is what test_mindspore_and_blocks_of_eight() is about."""
    return case["shapes"] != [list(shape) for shape in SHAPES]


def rounded(case: dict) -> dict:
    """A case's arguments, as the system holds them."""
    taken = inspect.signature(getattr(presets, case["preset"])).parameters
    in_float32 = IN_FLOAT32.get(case["preset"], ())
    given = {name: taken[name].default for name in in_float32} | case["arguments"]
    return given | {name: float(np.float32(given[name])) for name in in_float32 if given[name] is not None}


def distances(case: dict, **changes) -> list[list[np.ndarray]]:
    """After each step, of each parameter: how far a preset's are from the system's. Changes are to options of the preset's group."""
    shapes = tuple(tuple(shape) for shape in case["shapes"])
    params = [parameter(torch.tensor(array, dtype=getattr(torch, case["dtype"]))) for array in start(shapes)]
    optimizer = getattr(presets, case["preset"])([{"params": params, **case["options"]}], **rounded(case))
    optimizer.param_groups[0].update(changes)
    found = []
    assert len(case["steps"]) == STEPS
    for step, recorded in enumerate(case["steps"]):
        for param, grad in zip(params, gradients(shapes, step), strict=True):
            param.grad = torch.tensor(grad, dtype=param.dtype)
        optimizer.step()
        found.append([np.abs(exact(param).ravel() - values) for param, values in zip(params, recorded, strict=True)])
    return found


def farthest(case: dict, **changes) -> float:
    return np.concatenate([array for arrays in distances(case, **changes) for array in arrays]).max()  # NaN, if there is one


def test_every_system_and_case_is_recorded():
    written = {name: [json.loads(json.dumps(dataclasses.asdict(case))) for case in cases] for name, cases in CASES.items()}
    read = {
        name: [{key: value for key, value in case.items() if key != "steps"} for case in recording["cases"]]
        for name, recording in RECORDED.items()
    }
    assert read == written


@pytest.mark.parametrize(("name", "k"), EVERY)
def test_as_recorded(name, k):
    case = RECORDED[name]["cases"][k]
    if not blocks_of_eight(case):
        assert farthest(case) <= TOLERANCE[case["dtype"]]


@pytest.mark.parametrize(("name", "preset"), CONCERNED)
def test_another_rule_is_seen(name, preset):
    """What a preset could have wrong would be a hundred times as far away as may be, in one of the cases."""
    cases = [case for case in RECORDED[name]["cases"] if case["preset"] == preset and not blocks_of_eight(case)]
    optimizer = getattr(presets, preset)([parameter(torch.zeros(1))], **cases[0]["arguments"])
    (group,) = optimizer.param_groups
    wrong = [dict(eps=2 * group["eps"])]
    if "initial_square_avg" in group:
        wrong.append(dict(initial_square_avg=1 - group["initial_square_avg"]))
    if type(optimizer) is FusedRMSProp:  # others have one place for eps
        wrong += [dict(eps_placement=each) for each in ("inside", "outside", "floor") if each != group["eps_placement"]]
    for change in wrong:
        assert any(farthest(case, **change) > 100 * TOLERANCE[case["dtype"]] for case in cases), change


def test_mindspore_and_blocks_of_eight():
    """Where AVX takes 8 elements, MindSpore's kernel for CPUs has epsilon outside of the root, unless centered; the preset has not."""
    cases = [case for case in RECORDED["mindspore"]["cases"] if blocks_of_eight(case)]
    assert [case["arguments"].get("centered", False) for case in cases] == [False, True]
    for case in cases:
        tolerance = TOLERANCE[case["dtype"]]
        inside, outside = (distances(case, eps_placement=placement)[-1] for placement in ("inside", "outside"))
        for shape, near, far in zip(case["shapes"], inside, outside, strict=True):
            blocks = 0 if case["arguments"].get("centered") else math.prod(shape) // 8 * 8
            assert max([*near[blocks:], *far[:blocks]]) <= tolerance
            assert all(near[:blocks] > 100 * tolerance), "the kernel is as the preset"


def test_jax_itself():
    pytest.importorskip("jax")
    ended = subprocess.run([sys.executable, TESTS / "recorded", "jax", "--check"], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
