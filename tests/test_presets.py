"""Every preset against its system: written down in systems/, and itself where it can be had."""

import inspect
import os

import numpy as np
import pytest
import torch

from cases import BF16, F32, F64
from fusedrms import FusedRMSProp, FusedRMSPropGraves, presets
from fusedrms.kernels import lang
from pairs import pairwise
from systems import RULES
from tools import STATES, exact, parameters, random_grads, twins

PRESETS = [member.name for member in presets.find()]
SHAPES = [(3, 5), (1,), (), (700,), (1030,)]


VALUES = {
    ("learning_rate", "learnRate", "lr", "step_size", "learningRate", "base_lr", "eta", "base_learning_rate"): [1e-3, 0.02, 0.1],
    ("alpha", "factor", "gamma1", "rho", "decay_rate", "decay", "gamma", "rmsDecay", "rms_decay", "rmsprop_decay"): [0.5, 0.9, 0.97],
    ("gamma2", "momRate"): [0.3, 0.9],
    ("momentum", "rmsprop_momentum"): [0.0, 0.5, 0.9],
    ("epsilon", "eps", "delta", "optimizer_epsilon", "opt_epsilon"): [1e-3, 1e-1],
    ("max_scaling",): [3.0, 30.0],  # some roots are less
    ("weight_decay", "wd", "weightDecay", "wc"): [0.0, 0.3],
    ("rescale_grad",): [1.0, 0.125, 3.0],
    ("batch_size", "iter_size", "minibatch_size"): [1, 32],
    ("train_batch_size",): [256, 512],
    ("moving_average_decay",): [None, 0.15, 0.9],  # at the second step the warm-up is at .25
    ("clip_gradient", "gradient_clip_value", "clip_weights", "param_clip_value"): [None, 0.3],
    ("gradient_clip_norm", "clip_norm"): [None, 0.5, 1e9],  # the norm is about 42, or 1.3 of a batch
    ("clip_gradients",): [-1.0, 0.5, 1e9],
    ("clipnorm", "clipvalue", "global_clipnorm"): [None, 0.7],
    ("initial_scale", "initialMean"): [0.0, 1.0],
    ("loss_scale",): [1.0, 128.0],
    ("capturable", "differentiable"): [False],
    ("centred", "eps_inside_sqrt", "maximize"): [False, True],
    ("centered", "decoupled_decay", "lr_in_momentum", "eps_in_sqrt", "nesterov", "bias_correction"): [False, True],
    ("corrected_weight_decay", "caution"): [False, True],
    ("foreach",): [None, True],
}
# epsilon may stand outside of the root: the names of decay, epsilon, centered and L2 penalty
OUTSIDE = {
    "caffe_rmsprop": ("rms_decay", "delta", None, "weight_decay"),
    "flux_rmsprop": ("rho", "epsilon", "centred", None),
    "keras2_rmsprop": ("rho", "epsilon", "centered", None),
    "torch7_rmsprop": ("alpha", "epsilon", None, "weightDecay"),
    "torch_rmsprop": ("alpha", "eps", "centered", "weight_decay"),
}


def allowed(name: str, options: dict) -> bool:
    if name == "keras_rmsprop":
        return sum(options[limit] is not None for limit in ("clipnorm", "clipvalue", "global_clipnorm")) <= 1
    if name == "keras2_rmsprop" and options["clipnorm"] is not None and options["global_clipnorm"] is not None:
        return False
    if name in OUTSIDE:  # differences lose digits: those of gradients that are nearly equal, and of a gradient and its penalty
        alpha, eps, centered, decay = (options.get(key) for key in OUTSIDE[name])
        return not (centered or decay) or (eps > 0.01 and (alpha > 0.5 or not centered))
    if name == "mxnet2_rmsprop":
        return options["momentum"] > 0  # its buffer is there even for 0
    if name == "optax_rmsprop" and options["centered"]:  # a difference that may be 0, as it is in the first corrected step, has no digits
        return options["eps_in_sqrt"] and (options["eps"] > 0.01 or not options["bias_correction"])
    return True


def cover(name: str) -> list[dict]:
    """Options of a preset, such that every value of each meets every value of each other, as far as that is allowed."""
    reference = inspect.signature(RULES[name]).parameters
    table = {option: values for names, values in VALUES.items() for option in reference if option in names}
    missing = reference.keys() - table.keys()
    assert not missing, f"{name}: VALUES has nothing for {missing}"
    return pairwise(name, table, lambda options: allowed(name, options))


COVER = [(name, options) for name in PRESETS for options in cover(name)]


def run(name: str, options: dict, dtype: torch.dtype, check) -> None:
    """20 steps; after each, check(ours, the reference's) gets the parameters, then each state, of all tensors in one array.

    In float32 every step starts from our values: what is checked are errors of one step, not their sum.
    """
    ours = parameters(SHAPES, dtype=dtype)
    optimizer = getattr(presets, name)(ours, **options)
    step = RULES[name](**options)
    params = [exact(p) for p in ours]
    states = None
    for t in range(1, 21):
        random_grads(ours)
        if states is None:
            initial = optimizer.recipe(optimizer.param_groups[0]).states
            states = [{key: p.copy() if value is None else np.full_like(p, value) for key, value in initial.items()} for p in params]
        elif dtype != F64:
            params = [exact(p) for p in ours]
            states = [{key: exact(optimizer.state[p][key]) for key in STATES if key in optimizer.state[p]} for p in ours]
        step(params, [exact(p.grad) for p in ours], states, t)
        optimizer.step()
        check(together(map(exact, ours)), together(params))
        for key in states[0]:
            check(together(exact(optimizer.state[p][key]) for p in ours), together(state[key] for state in states))


def together(arrays) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays])


def relative(tolerance):
    def check(actual, expected):
        error, size = np.max(np.abs(actual - expected)), np.max(np.abs(expected))
        assert error <= tolerance * size, error / size

    return check


@pytest.mark.parametrize(("name", "options"), COVER, ids=[f"{name}-{k}" for k, (name, _) in enumerate(COVER)])
def test_against_reference(name, options):
    run(name, options, F64, relative(1e-12))
    run(name, options, F32, relative(2e-6))


@pytest.mark.exhaustive
@pytest.mark.interpret
@pytest.mark.skipif(not lang.interpreted(), reason="natively it is the test above")
@pytest.mark.parametrize("name", PRESETS)
def test_against_reference_on_triton(name):
    """One each, as the interpreter takes its time; the arithmetic of options is that of tests/test_numeric.py."""
    options = next(options for other, options in COVER if other == name)
    run(name, options, F64, relative(1e-12))
    run(name, options, F32, relative(2e-6))


@pytest.mark.parametrize("name", PRESETS)
def test_signature_and_defaults(name):
    """Those of the reference, which has them from the source; how parameters are stored comes on top."""
    preset = inspect.signature(getattr(presets, name)).parameters
    reference = inspect.signature(RULES[name]).parameters
    storage = {"multi_precision", "stochastic_round"}
    assert not any(preset[key].default for key in preset.keys() & storage)
    mine = {key: value.default for key, value in preset.items() if key not in storage}
    assert list(mine.items()) == [("params", inspect.Parameter.empty), *((key, value.default) for key, value in reference.items())]
    if not any(value.default is inspect.Parameter.empty for value in reference.values()):
        run(name, {}, F64, relative(1e-12))


def test_order_of_arguments():
    """As the sources have it, positional arguments included."""
    order = {name: list(inspect.signature(getattr(presets, name)).parameters)[1:] for name in PRESETS}
    assert order["mxnet_rmsprop"][:6] == ["learning_rate", "gamma1", "gamma2", "epsilon", "centered", "clip_weights"]
    assert order["neon_rmsprop"][:4] == ["stochastic_round", "decay_rate", "learning_rate", "epsilon"]
    assert order["tensorflow_rmsprop"] == ["learning_rate", "decay", "momentum", "epsilon", "centered"]
    assert order["keras_rmsprop"][:5] == ["learning_rate", "rho", "momentum", "epsilon", "centered"]


def test_graves_is_a_family_member():
    """The class is FusedRMSProp with three options set; checkpoints of one load into the other."""
    ours = parameters(SHAPES)
    theirs = twins(ours)
    graves = FusedRMSPropGraves(ours)
    options = dict(centered=True, momentum=0.9, alpha=0.95, eps=1e-4, eps_placement="inside", lr_in_momentum=True)
    family = FusedRMSProp(theirs, lr=1e-4, **options)
    for step in range(4):
        random_grads(ours)
        for p, q in zip(ours, theirs, strict=True):
            q.grad = p.grad.clone()
        graves.step()
        family.step()
        if step == 1:
            family.load_state_dict(graves.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [BF16, torch.complex64])
@pytest.mark.parametrize("name", PRESETS)
def test_other_dtypes(name, dtype):
    """Half precision and complex parameters take every preset, and states stay wide."""
    rate = {key: 0.01 for key, value in inspect.signature(RULES[name]).parameters.items() if value.default is value.empty}
    params = parameters(SHAPES, dtype=dtype)
    start = [p.detach().clone() for p in params]
    optimizer = getattr(presets, name)(params, **rate)
    for _ in range(3):
        random_grads(params)
        optimizer.step()
    for p, before in zip(params, start, strict=True):
        assert torch.isfinite(torch.view_as_real(p) if p.is_complex() else p).all()
        assert not torch.equal(p, before) or dtype == BF16
        assert all(state.dtype in (F32, torch.complex64) for state in optimizer.state[p].values())


OPTAX = [
    dict(),
    dict(momentum=0.9, nesterov=True),
    dict(centered=True, momentum=0.5, bias_correction=True),
    dict(eps_in_sqrt=False, initial_scale=1.0, decay=0.99),
    dict(bias_correction=True, momentum=0.0, nesterov=True),
]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("options", OPTAX, ids=str)
def test_optax_itself(options):
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    params = parameters(SHAPES, dtype=F64)
    ours = presets.optax_rmsprop(params, 0.01, eps=1e-2, **options)
    with jax.enable_x64(True):
        theirs = optax.rmsprop(0.01, eps=1e-2, **options)
        values = [jax.numpy.asarray(exact(p)) for p in params]
        state = theirs.init(values)
        for _ in range(10):
            random_grads(params)
            updates, state = theirs.update([jax.numpy.asarray(exact(p.grad)) for p in params], state, values)
            values = optax.apply_updates(values, updates)
            ours.step()
            relative(1e-12)(together(map(exact, params)), together(map(np.asarray, values)))


KERAS = [
    dict(),
    dict(momentum=0.9, weight_decay=0.125, clipvalue=0.5),
    dict(centered=True, clipnorm=0.5, rho=0.5),
    dict(centered=True, momentum=0.5, global_clipnorm=1.0, weight_decay=0.5),
]


@pytest.mark.filterwarnings("default", "ignore::DeprecationWarning")
@pytest.mark.parametrize("options", KERAS, ids=str)
def test_keras_itself(options, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    keras = pytest.importorskip("keras")
    rate = 2.0**-6  # Keras keeps this and other numbers in float32
    params = parameters(SHAPES, dtype=F64)
    variables = [keras.Variable(exact(p), dtype="float64") for p in params]
    ours = presets.keras_rmsprop(params, rate, epsilon=1e-4, **options)
    theirs = keras.optimizers.RMSprop(rate, epsilon=1e-4, **options)
    for _ in range(10):
        random_grads(params)
        theirs.apply([keras.ops.convert_to_tensor(exact(p.grad)) for p in params], variables)
        ours.step()
        relative(1e-8)(together(map(exact, params)), together(keras.ops.convert_to_numpy(variable) for variable in variables))
