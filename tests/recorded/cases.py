"""The cases of each system: a preset's arguments, which are the system's own, and what else is done."""

from dataclasses import dataclass, field
from typing import Any

SHAPES = ((4,), (3, 2))


@dataclass(frozen=True)
class Case:
    """One run of a system's optimizer.

    Attributes:
        preset: the function of fusedrms.presets.
        arguments: of the system's optimizer, and of the preset.
        helpers: what of the system is used beside the optimizer, in this order, and with which arguments.
        options: of a parameter group of ours, in place of the helpers.
        dtype: of parameters and gradients.
        shapes: of the parameters.
    """

    preset: str
    arguments: dict[str, Any]
    helpers: dict[str, list[float]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float64"
    shapes: tuple[tuple[int, ...], ...] = SHAPES


# numbers that a system holds in float32 even for float64 parameters: ours are rounded likewise before they are compared
IN_FLOAT32 = {
    "mlx_rmsprop": ["learning_rate"],
    "paddle_rmsprop": ["rho", "epsilon", "momentum"],
    "tensorflow_rmsprop": ["learning_rate", "decay", "momentum", "epsilon"],
    "keras2_rmsprop": ["learning_rate", "rho", "momentum"],
    "keras_rmsprop": ["learning_rate", "weight_decay"],
}
# How far two systems may be apart. float64: some dozen roundings of 1e-16 in each of 5 steps, of numbers up to 4, or up to 100 times as
# much where a variance is a difference. float32: in each system 5 sums below 4 are rounded by up to 1.2e-7, and updates less.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6}

_CHAINER = dict(lr=0.01, alpha=0.9, eps=0.01)
_GRAVES = dict(lr=0.01, alpha=0.95, momentum=0.8, eps=0.01)
_JAX = dict(step_size=0.01, gamma=0.9, eps=0.01)
_MLX = dict(learning_rate=0.01, alpha=0.9, eps=0.01)
_PADDLE = dict(learning_rate=0.01, rho=0.9, epsilon=0.01)
_TENSORFLOW = dict(learning_rate=0.01, decay=0.9, epsilon=0.01)
_KERAS = dict(learning_rate=0.01, rho=0.9, epsilon=0.01)
_LASAGNE = dict(learning_rate=0.01, rho=0.9, epsilon=0.01)
_BLOCKS = dict(learning_rate=0.01, decay_rate=0.9)
_MINDSPORE = dict(learning_rate=0.1, decay=0.9, epsilon=0.5)

CASES = {
    "chainer": [
        Case("chainer_rmsprop", {}),
        Case("chainer_rmsprop", _CHAINER),
        Case("chainer_rmsprop", _CHAINER, dtype="float32"),
        Case("chainer_rmsprop", _CHAINER | dict(eps_inside_sqrt=True)),
        Case("chainer_rmsprop", _CHAINER, dict(WeightDecay=[0.1]), dict(weight_decay=0.1)),
        Case("chainer_rmsprop", _CHAINER, dict(GradientClipping=[0.5]), dict(clip_grad_norm=0.5)),
        Case("chainer_rmsprop", _CHAINER, dict(GradientHardClipping=[-0.2, 0.2]), dict(clip_grad_value=0.2)),
        Case(
            "chainer_rmsprop",
            _CHAINER,
            dict(GradientClipping=[0.5], WeightDecay=[0.1]),
            dict(clip_grad_norm=0.5, weight_decay=0.1),
        ),
        Case("chainer_rmsprop_graves", {}),
        Case("chainer_rmsprop_graves", _GRAVES),
        Case("chainer_rmsprop_graves", _GRAVES | dict(momentum=0.0)),
        Case("chainer_rmsprop_graves", _GRAVES, dict(WeightDecay=[0.1]), dict(weight_decay=0.1)),
        Case("chainer_smorms3", {}),
        Case("chainer_smorms3", dict(lr=0.05, eps=0.01)),
        Case("chainer_smorms3", dict(lr=0.05, eps=0.01), dict(WeightDecay=[0.1]), dict(weight_decay=0.1)),
    ],
    "jax": [
        Case("jax_rmsprop", dict(step_size=0.01)),
        Case("jax_rmsprop", _JAX),
        Case("jax_rmsprop", _JAX, dtype="float32"),
        Case("jax_rmsprop", _JAX, dict(clip_grads=[0.5]), dict(clip_grad_norm=0.5)),
        Case("jax_rmsprop_momentum", dict(step_size=0.01)),
        Case("jax_rmsprop_momentum", _JAX | dict(momentum=0.8)),
        Case("jax_rmsprop_momentum", _JAX | dict(momentum=0.0)),
        Case("jax_rmsprop_momentum", _JAX, dict(clip_grads=[0.5]), dict(clip_grad_norm=0.5)),
    ],
    "mlx": [
        Case("mlx_rmsprop", dict(learning_rate=0.01)),
        Case("mlx_rmsprop", _MLX),
        Case("mlx_rmsprop", _MLX, dtype="float32"),
    ],
    "paddle": [
        Case("paddle_rmsprop", dict(learning_rate=0.01)),
        Case("paddle_rmsprop", _PADDLE),
        Case("paddle_rmsprop", _PADDLE, dtype="float32"),
        Case("paddle_rmsprop", _PADDLE | dict(momentum=0.8)),
        Case("paddle_rmsprop", _PADDLE | dict(centered=True)),
        Case("paddle_rmsprop", _PADDLE | dict(momentum=0.8, centered=True)),
        Case("paddle_rmsprop", _PADDLE | dict(weight_decay=0.1)),
        Case("paddle_rmsprop", _PADDLE | dict(weight_decay=0.1), dict(ClipGradByGlobalNorm=[0.5]), dict(clip_grad_norm=0.5)),
        Case("paddle_rmsprop", _PADDLE | dict(weight_decay=0.1), dict(ClipGradByValue=[0.2]), dict(clip_grad_value=0.2)),
        Case(
            "paddle_rmsprop",
            _PADDLE | dict(weight_decay=0.1),
            dict(ClipGradByNorm=[0.5]),  # which has no kernel for float64
            dict(clip_grad_norm=0.5, clip_norm_over="parameter"),
            dtype="float32",
        ),
    ],
    "tensorflow": [
        Case("tensorflow_rmsprop", dict(learning_rate=0.01)),
        Case("tensorflow_rmsprop", _TENSORFLOW),
        Case("tensorflow_rmsprop", _TENSORFLOW, dtype="float32"),
        Case("tensorflow_rmsprop", _TENSORFLOW | dict(momentum=0.8)),
        Case("tensorflow_rmsprop", _TENSORFLOW | dict(centered=True)),
        Case("tensorflow_rmsprop", _TENSORFLOW | dict(momentum=0.8, centered=True)),
        Case("keras2_rmsprop", {}),
        Case("keras2_rmsprop", _KERAS),
        Case("keras2_rmsprop", _KERAS, dtype="float32"),
        Case("keras2_rmsprop", _KERAS | dict(epsilon=0.0)),
        Case("keras2_rmsprop", _KERAS | dict(epsilon=None)),
        Case("keras2_rmsprop", _KERAS | dict(momentum=0.8)),
        Case("keras2_rmsprop", _KERAS | dict(centered=True)),
        Case("keras2_rmsprop", _KERAS | dict(momentum=0.8, centered=True)),
        Case("keras2_rmsprop", _KERAS | dict(clipnorm=0.5)),
        Case("keras2_rmsprop", _KERAS | dict(global_clipnorm=0.5)),
        Case("keras2_rmsprop", _KERAS | dict(clipvalue=0.2)),
        Case("keras2_rmsprop", _KERAS | dict(clipvalue=0.2, clipnorm=0.3)),
        Case("keras2_rmsprop", _KERAS | dict(clipvalue=0.2, global_clipnorm=0.3, momentum=0.8)),
        Case("keras_rmsprop", {}),
        Case("keras_rmsprop", _KERAS),
        Case("keras_rmsprop", _KERAS, dtype="float32"),
        Case("keras_rmsprop", _KERAS | dict(momentum=0.8)),
        Case("keras_rmsprop", _KERAS | dict(centered=True)),
        Case("keras_rmsprop", _KERAS | dict(momentum=0.8, centered=True)),
        Case("keras_rmsprop", _KERAS | dict(clipnorm=0.5)),
        Case("keras_rmsprop", _KERAS | dict(global_clipnorm=0.5)),
        Case("keras_rmsprop", _KERAS | dict(clipvalue=0.2)),
        Case("keras_rmsprop", _KERAS | dict(weight_decay=0.1)),
        Case("keras_rmsprop", _KERAS | dict(weight_decay=0.1, global_clipnorm=0.5, momentum=0.8, centered=True)),
    ],
    "lasagne": [
        Case("lasagne_rmsprop", {}),
        Case("lasagne_rmsprop", _LASAGNE),
        Case("lasagne_rmsprop", _LASAGNE | dict(rho=0.5)),
    ],
    "mindspore": [
        Case("mindspore_rmsprop", {}, dtype="float32"),
        Case("mindspore_rmsprop", _MINDSPORE, dtype="float32"),
        Case("mindspore_rmsprop", _MINDSPORE | dict(momentum=0.8), dtype="float32"),
        Case("mindspore_rmsprop", _MINDSPORE | dict(centered=True), dtype="float32"),
        Case("mindspore_rmsprop", _MINDSPORE | dict(centered=True, momentum=0.8), dtype="float32"),
        Case("mindspore_rmsprop", _MINDSPORE | dict(weight_decay=0.1), dtype="float32"),
        Case("mindspore_rmsprop", _MINDSPORE | dict(weight_decay=0.1, loss_scale=4.0), dtype="float32"),
        Case("mindspore_rmsprop", _MINDSPORE | dict(momentum=0.8), dtype="float32", shapes=((16,), (19,))),
        Case("mindspore_rmsprop", _MINDSPORE | dict(centered=True), dtype="float32", shapes=((16,), (19,))),
    ],
    "theano": [Case("theano_rmsprop", {})],
    "blocks": [
        Case("blocks_rmsprop", {}),
        Case("blocks_rmsprop", _BLOCKS),
        Case("blocks_rmsprop", _BLOCKS | dict(max_scaling=10.0)),  # some roots are below a tenth
        Case("blocks_rmsprop", _BLOCKS | dict(max_scaling=10.0), dict(StepClipping=[0.5]), dict(clip_grad_norm=0.5)),
    ],
}
