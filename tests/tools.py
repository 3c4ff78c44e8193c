"""What several test modules need."""

import contextlib
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from cases import code_error, compute_error, storage_error
from fusedrms import FusedRMSProp, FusedSMORMS3, export_master
from fusedrms.engine.state.full_precision import full_precision, variance_of
from fusedrms.engine.state.quantized import code_of
from fusedrms.kernels import lang
from fusedrms.kernels.quant import GROUP
from fusedrms.kernels.storage import TOP
from fusedrms.rules.declared import Written
from reference import normed, rmsprop, smorms3
from sized import written

STATES = ("square_avg", "grad_avg", "momentum_buffer", "mem", "param_ema")

natively = pytest.mark.skipif(lang.interpreted(), reason="about the Numba driver")


def refused(main, arguments: str, said: str, capsys) -> None:
    """A command ends with exit status 2, and says why."""
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@contextlib.contextmanager
def full_disk():
    """What this process writes fails after a few bytes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def on_full_disk(function):
    """The same function, on a full disk."""

    def call(*args, **kwargs):
        with full_disk():
            return function(*args, **kwargs)

    return call


def parameter(values: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values)


def params_of(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [param for group in optimizer.param_groups for param in group["params"]]


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


def step_both(a, b, ours, theirs, steps: int = 1) -> None:
    """Two optimizers, each with its own copies of the same parameters, with the same random gradients."""
    for _ in range(steps):
        random_grads(ours)
        copy_grads(ours, theirs)
        a.step()
        b.step()


def stepped(values, grad=0.0, **options):
    """An optimizer that has taken a step with the same gradient everywhere, and its parameter."""
    param = parameter(values.clone())
    set_grad(param, torch.full_like(param, grad))
    optimizer = FusedRMSProp([param], **options)
    optimizer.step()
    return optimizer, param


def exact(tensor: Tensor) -> np.ndarray:
    """Every number of a tensor in float64, complex elements as pairs."""
    tensor = tensor.detach().cpu()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.double().numpy().copy()


def full_state(optimizer: torch.optim.Optimizer) -> dict:
    """parameter -> its state in full precision."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return {param: full_precision(optimizer.kinds, param, optimizer.state.get(param, {})) for param in params}


def in_master(state: dict) -> bool:
    return "master_param" in state


def stored_error(kinds, state: dict, key: str, param: torch.nn.Parameter, value: np.ndarray, stochastic: bool = True) -> np.ndarray:
    """What storing a new value may change: nothing of 32 bits of a master, half a step of its dtype or, stochastically, a whole one."""
    if key == "param":
        if in_master(state):
            return (state["master_param"].dtype == torch.int8) * 2.0**-15 * np.abs(value)
        return (1 + stochastic) * storage_error(param.dtype, value)
    if key + "_scale" not in state:
        return (2 if state[key].dtype == torch.bfloat16 else 1) * storage_error(state[key].dtype, value)
    scale = torch.empty_like(param.detach(), dtype=torch.float64)
    in_memory = scale.as_strided((param.numel(),), (1,))
    in_memory.copy_(state[f"{key}_scale"].repeat_interleave(GROUP)[: param.numel()])
    return code_error(value, exact(scale), TOP[code_of(kinds, key, state[key].dtype)])


REFERENCES = {FusedRMSProp: rmsprop, FusedSMORMS3: smorms3}


def reference_of(optimizer: torch.optim.Optimizer):
    """Its rule in float64, and the states that it may have, with what they start from if that is not 0."""
    if isinstance(getattr(optimizer, "declared", None), Written):
        return partial(written, optimizer.declared), {name: state.start for name, state in optimizer.kinds.items()} | dict(param_ema=0.0)
    (rule,) = (reference for cls, reference in REFERENCES.items() if isinstance(optimizer, cls))
    return rule, dict.fromkeys(STATES, 0.0) | dict(mem=1.0)


def step_and_check(optimizer: torch.optim.Optimizer) -> None:
    """One step, held against the float64 reference from the very same parameters, gradients and states.

    The bounds follow from the rounding of the operations and of the storage; nothing accumulates, so they hold for any number of steps.
    """
    (rule, starts), kinds = reference_of(optimizer), optimizer.kinds
    states, masters = full_state(optimizer), dict(export_master(optimizer))
    found = []  # (parameter, gradient, state, steps, options, what its norm is taken of)
    for group in optimizer.param_groups:
        options = {
            key: float(value) if isinstance(value, Tensor) and value.numel() == 1 else value
            for key, value in group.items()
            if key != "params"
        }
        for param in group["params"]:
            if param.grad is not None:
                kept, like = states[param], exact(param)
                initial = {**starts, "param_ema": exact(masters[param])}
                if "initial_square_avg" in options:
                    initial["square_avg"] = options["initial_square_avg"]
                state = {key: exact(kept[key]) if key in kept else np.full_like(like, one) for key, one in initial.items()}
                grad = exact(param.grad)
                found.append((param, grad, state, 1 + float(kept.get("step", 0)), options, np.sum(normed(grad, **options) ** 2)))
    total = sum(square for *_, square in found)
    clips = any(group["clip_grad_norm"] is not None for group in optimizer.param_groups)
    shared_error = max((compute_error(param.dtype) for param, *_ in found), default=0.0) if clips else 0.0  # a norm is as good as its parts
    before = []
    for param, grad, state, steps, options, square in found:
        norm = np.sqrt(square if options["clip_norm_over"] == "parameter" else total)
        before.append((param, options["stochastic_rounding"], rule(exact(masters[param]), grad, state, norm, steps, **options)))
    optimizer.step()
    states, masters = full_state(optimizer), dict(export_master(optimizer))
    for param, stochastic, (new, sizes) in before:
        kept = optimizer.state[param]
        for key, value in new.items():
            actual = states[param][key] if key != "param" else masters[param] if in_master(kept) else param
            if key == "square_avg" and variance_of(optimizer.kinds, kept):  # stored without grad_avg², which is stored by itself
                mean, mean_error = new["grad_avg"], stored_error(kinds, kept, "grad_avg", param, new["grad_avg"])
                bound = stored_error(kinds, kept, "square_avg", param, value - mean**2) + (2 * np.abs(mean) + mean_error) * mean_error
            else:
                bound = stored_error(kinds, kept, key, param, value, stochastic)
            bound = bound + max(compute_error(param.dtype), shared_error) * sizes[key]
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
