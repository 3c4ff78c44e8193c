"""Numbers that are tensors: read at each step where they lie, and at each replay of a graph."""

from typing import Any

import pytest
import torch

import gpu
from cases import F64
from fusedrms import FusedRMSProp, FusedSMORMS3
from made_rules import AdamW
from tools import copy_grads, natively, parameters, random_grads, step_both, twins

# options that stay, and what each number is at first and later
CASES: dict[str, tuple[type, dict[str, Any], dict[str, list[float]]]] = {
    "decay, momentum, eps": (
        FusedRMSProp,
        dict(lr_in_momentum=True),
        dict(lr=[1e-2, 3e-3, 0.0], weight_decay=[0.1, 0.0, 0.3], momentum=[0.9, 0.5, 0.0], eps=[1e-3, 1e-2, 1.0]),
    ),
    "alpha, bias correction": (FusedRMSProp, dict(bias_correction=True, centered=True, eps=1e-2), dict(alpha=[0.9, 0.99, 0.5])),
    "decoupled": (
        FusedRMSProp,
        dict(decoupled_weight_decay=True, eps_placement="both"),
        dict(weight_decay=[0.1, 0.0, 0.3], eps=[1e-3, 1e-2, 1.0], rescale_grad=[1.0, 0.5, 2.0]),
    ),
    "corrected": (
        FusedRMSProp,
        dict(decoupled_weight_decay=True, corrected_weight_decay=True, max_lr_snapshot=0.5, weight_decay=0.1),
        dict(lr=[0.5, 0.25, 0.0]),
    ),
    "limits": (
        FusedRMSProp,
        dict(clip_norm_on="update"),
        dict(clip_grad_value=[0.5, 2.0, 0.1], clip_grad_norm=[1.0, 5.0, 0.1], clip_weights=[2.0, 0.5, 1.0]),
    ),
    "average": (FusedRMSProp, dict(), dict(ema_decay=[0.9, 0.0, 1.0])),
    "average, warming up": (FusedRMSProp, dict(ema_warmup=True), dict(ema_decay=[0.15, 0.0, 1.0])),
    "cautious": (FusedRMSProp, dict(caution=True, lr=0.1), dict(momentum=[0.9, 0.5, 0.99])),
    "a declared rule": (AdamW, dict(), dict(lr=[1e-3, 1e-2, 0.1], betas=[(0.9, 0.999), (0.5, 0.9), (0.0, 0.5)], eps=[1e-3, 1e-2, 1.0])),
    "SMORMS3": (FusedSMORMS3, dict(), dict(lr=[1e-3, 1e-2, 0.1], eps=[1e-16, 1e-3, 1.0], weight_decay=[0.0, 0.1, 0.2])),
}


def as_tensors(value, device="cpu"):
    """A number, or each of a tuple."""
    return tuple(as_tensors(one, device) for one in value) if isinstance(value, tuple) else torch.tensor(value, dtype=F64, device=device)


def fill(tensors, value) -> None:
    for tensor, one in zip(tensors, value, strict=True) if isinstance(value, tuple) else [(tensors, value)]:
        tensor.fill_(one)


def close(ours, theirs, a, b) -> None:
    for param, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-5, atol=1e-6)
        assert a.state[param].keys() == b.state[other].keys()
        for key, value in a.state[param].items():
            torch.testing.assert_close(value, b.state[other][key], rtol=1e-5, atol=1e-6, check_device=False)


@natively
@pytest.mark.parametrize(("cls", "options", "numbers"), CASES.values(), ids=CASES)
def test_tensors_on_a_cpu(cls, options, numbers):
    """Each step takes the value that a tensor has then, as a schedule of any number leaves it."""
    params = parameters([(100,), (7,)], dtype=F64)
    others = twins(params)
    tensors = {name: as_tensors(values[0]) for name, values in numbers.items()}
    ours = cls(params, **options, **tensors)
    plain = cls(others, **options, **{name: values[0] for name, values in numbers.items()})
    for k in range(3):
        for name, values in numbers.items():
            if name != "momentum" or values[k]:  # where it is 0 a CPU makes the step without a buffer
                fill(tensors[name], values[k])
                plain.param_groups[0][name] = values[k]
        step_both(ours, plain, params, others)
        close(params, others, ours, plain)


@pytest.mark.gpu
@pytest.mark.parametrize(("cls", "options", "numbers"), CASES.values(), ids=CASES)
def test_replays(cls, options, numbers):
    """A graph reads the values of the moment, derived numbers too."""
    params = parameters([(1000,), (3, 5)], gpu.DEVICE)
    others = twins(params)
    tensors = {name: as_tensors(values[0], gpu.DEVICE) for name, values in numbers.items()}
    ours = cls(params, capturable=True, **options, **tensors)
    plain = cls(others, **options, **{name: values[0] for name, values in numbers.items()})
    step_both(ours, plain, params, others)  # outside of a graph
    close(params, others, ours, plain)
    graph = gpu.module.CUDAGraph()
    gpu.module.synchronize()
    with gpu.module.graph(graph):
        ours.step()
    for k in (1, 2, 0, 1):
        for name, values in numbers.items():
            fill(tensors[name], values[k])
            plain.param_groups[0][name] = values[k] or 1e-30 if name == "momentum" else values[k]  # so that the buffer stays
        for param in params:
            param.grad.copy_(torch.randn_like(param))
        copy_grads(params, others)
        graph.replay()
        plain.step()
        gpu.module.synchronize()
        close(params, others, ours, plain)
    random_grads(params)
    ours.step()  # and eagerly again


@pytest.mark.gpu
def test_checkpoint():
    """Numbers of Python's for what torch lacks; torch's own options as they are."""
    params = parameters([(3,)], gpu.DEVICE)
    options = dict(ema_decay=torch.tensor(0.5, device=gpu.DEVICE), weight_decay=torch.tensor(0.25, device=gpu.DEVICE))
    optimizer = FusedRMSProp(params, capturable=True, **options)
    random_grads(params)
    optimizer.step()
    again = FusedRMSProp(twins(params), capturable=True)
    again.load_state_dict(optimizer.state_dict())
    assert (again.param_groups[0]["ema_decay"], float(again.param_groups[0]["weight_decay"])) == (0.5, 0.25)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("weight_decay", [0.1, 0.1], r"Tensor weight_decay must be 1-element, got shape \(2,\)"),
        ("clip_grad_norm", [1.0, 1.0], "Tensor clip_grad_norm must be 1-element"),
        ("clip_weights", [], "Tensor clip_weights must be 1-element"),
        ("ema_decay", [0.5] * 3, "Tensor ema_decay must be 1-element"),
        ("eps", 1j, "epsilon value"),
        ("initial_square_avg", 1.0, "initial_square_avg is a tensor on a GPU, but it is needed once"),
        ("seed", 1, "seed=tensor"),
        ("maximize", True, "maximize=tensor"),
        ("state_dtype", 1.0, "state_dtype=tensor"),
        ("foreach_", 1.0, "unexpected keyword"),
    ],
    ids=str,
)
def test_wrong(option, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        FusedRMSProp(parameters([(3,)], gpu.DEVICE), **{option: torch.tensor(value, device=gpu.DEVICE)})
