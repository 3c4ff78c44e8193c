"""What several test modules need."""

import numpy as np
import torch
from torch import Tensor

from cases import compute_error, storage_error
from fusedrms import FusedRMSProp
from reference import normed, rmsprop, smorms3

STATES = ("square_avg", "grad_avg", "momentum_buffer", "mem")


def parameter(values: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values)


def set_grad(param: Tensor, grad: Tensor) -> None:
    """Also for a gradient of another dtype, strides or address than autograd would give."""
    param.grad = torch.zeros_like(param)
    param.grad.data = grad


def parameters(shapes, device="cpu", dtype=torch.float32) -> list[torch.nn.Parameter]:
    return [parameter(torch.randn(shape, dtype=torch.float64).to(device, dtype)) for shape in shapes]


def twins(params) -> list[torch.nn.Parameter]:
    """Equal parameters in other memory, of the same strides."""
    return [parameter(param.detach().clone()) for param in params]


def random_grads(params, dtype=None) -> None:
    for param in params:
        set_grad(
            param,
            torch.randn(param.shape, dtype=torch.complex128 if param.is_complex() else torch.float64).to(
                param.device, dtype or param.dtype
            ),
        )


def copy_grads(source, target) -> None:
    for a, b in zip(source, target, strict=True):
        b.grad = None if a.grad is None else a.grad.detach().clone()


def exact(tensor: Tensor) -> np.ndarray:
    """Every number of a tensor in float64, complex elements as pairs."""
    tensor = tensor.detach().cpu()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.double().numpy().copy()


def step_and_check(optimizer: torch.optim.Optimizer) -> None:
    """One step, held against the float64 reference from the very same parameters, gradients and states.

    The bounds follow from the rounding of the operations and of the storage; nothing accumulates, so they hold for any number of steps.
    """
    rule = rmsprop if isinstance(optimizer, FusedRMSProp) else smorms3
    found = []  # (parameter, gradient, state, steps, options, what its norm is taken of)
    for group in optimizer.param_groups:
        options = {key: float(value) if key == "lr" else value for key, value in group.items() if key != "params"}
        for param in group["params"]:
            if param.grad is not None:
                kept, like = optimizer.state[param], exact(param)
                initial = dict(square_avg=options.get("initial_square_avg", 0.0), mem=1.0)
                state = {key: exact(kept[key]) if key in kept else np.full_like(like, initial.get(key, 0.0)) for key in STATES}
                grad = exact(param.grad)
                found.append((param, grad, state, 1 + float(kept.get("step", 0)), options, np.sum(normed(grad, **options) ** 2)))
    total = sum(square for *_, square in found)
    clips = any(group["clip_grad_norm"] is not None for group in optimizer.param_groups)
    shared_error = max((compute_error(param.dtype) for param, *_ in found), default=0.0) if clips else 0.0  # a norm is as good as its parts
    before = []
    for param, grad, state, steps, options, square in found:
        norm = np.sqrt(square if options["clip_norm_over"] == "parameter" else total)
        before.append((param, rule(exact(param), grad, state, norm, steps, **options)))
    optimizer.step()
    for param, (new, sizes) in before:
        for key, value in new.items():
            actual = param if key == "param" else optimizer.state[param][key]
            bound = storage_error(actual.dtype, value) + max(compute_error(param.dtype), shared_error) * sizes[key]
            error = np.abs(exact(actual) - value)
            worst = np.max(error - bound, initial=0)  # NaN if there is one
            assert worst <= 0, f"{key} of {param.dtype} {tuple(param.shape)} is off by {worst} more than its bound"
    if found and clips:
        np.testing.assert_allclose(optimizer.last_grad_norm.item(), np.sqrt(total), rtol=1e-6)


def assert_close(ours, theirs, steps: int) -> None:
    """Two runs of the same updates, in different orders of rounding."""
    for a, b in zip(ours, theirs, strict=True):
        a, b = exact(a), exact(b)
        np.testing.assert_allclose(a, b, rtol=steps * 1e-6, atol=steps * 1e-6)
