"""Options of presets that say how values are stored or are off at some values, and errors."""

import pytest
import torch

from fusedrms import presets
from tools import parameter, parameters, random_grads


@pytest.mark.parametrize("preset", [presets.mxnet_rmsprop, presets.mxnet2_rmsprop])
def test_multi_precision(preset):
    """A float16 parameter is that of float32 training, rounded."""
    params = parameters([(100,), (3, 5)], dtype=torch.float16)
    single = [parameter(p.detach().float()) for p in params]
    options = dict(centered=True, wd=0.1, learning_rate=1e-4)
    a, b = preset(params, multi_precision=True, **options), preset(single, **options)
    for _ in range(10):
        random_grads(params)
        for p, q in zip(params, single, strict=True):
            q.grad = p.grad.float()
        a.step()
        b.step()
    assert all(torch.equal(p, q.half()) for p, q in zip(params, single, strict=True))


def test_stochastic_round():
    """Steps far below half of a float16's: on the mean they are made, to nearest none is."""
    means = []
    for stochastic in (False, True):
        param = parameter(torch.ones(10_000, dtype=torch.float16))
        optimizer = presets.neon_rmsprop([param], stochastic, learning_rate=1e-5)
        for _ in range(20):
            param.grad = torch.ones_like(param)
            optimizer.step()
        means.append(1 - param.double().mean().item())
    wide = parameter(torch.ones(1))
    optimizer = presets.neon_rmsprop([wide], learning_rate=1e-5)
    for _ in range(20):
        wide.grad = torch.ones_like(wide)
        optimizer.step()
    assert means[0] == 0
    assert abs(means[1] / (1 - wide.item()) - 1) < 0.1


def test_limits_that_are_off():
    """MXNet's and Keras' at 0 and below, neon's at 0; neon ignores the sign of a value."""
    for limit in ("clipnorm", "clipvalue", "global_clipnorm"):
        group = presets.keras_rmsprop(parameters([(2,)]), **{limit: -1.0}).param_groups[0]
        assert group["clip_grad_value"] is group["clip_grad_norm"] is None
    group = presets.mxnet_rmsprop(parameters([(2,)]), clip_gradient=-1, clip_weights=0).param_groups[0]
    assert group["clip_grad_value"] is group["clip_weights"] is None
    group = presets.neon_rmsprop(parameters([(2,)]), gradient_clip_norm=0, gradient_clip_value=-2.0, param_clip_value=0).param_groups[0]
    assert group["clip_grad_norm"] is group["clip_weights"] is None
    assert group["clip_grad_value"] == 2.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mxnet_rmsprop", dict(multi_precision="yes"), "multi_precision='yes' .* True or False"),
        ("neon_rmsprop", dict(stochastic_round=10), "stochastic_round=10 .* True or False"),
        ("neon_rmsprop", dict(batch_size=0), "batch_size=0 .* > 0"),
        ("neon_rmsprop", dict(batch_size="32"), "batch_size='32' .* > 0"),
        ("neon_rmsprop", dict(gradient_clip_value="5"), "clip_grad_value='5' .* > 0"),
        ("neon_rmsprop", dict(param_clip_value=torch.ones(2)), "clip_weights=tensor.* > 0"),
        ("mxnet_rmsprop", dict(clip_gradient="1"), "clip_grad_value='1' .* > 0"),
        ("mxnet_rmsprop", dict(clip_weights=float("nan")), "clip_weights=nan .* > 0"),
        ("mxnet2_rmsprop", dict(clip_gradient=[1]), r"clip_grad_value=\[1\] .* > 0"),
        ("mxnet_rmsprop", dict(centered="False"), "centered='False'"),
        ("optax_rmsprop", dict(learning_rate=0.1, momentum=0.9, nesterov="no"), "nesterov='no'"),
        ("optax_rmsprop", dict(learning_rate=0.1, eps_in_sqrt="no"), "eps_in_sqrt='no'"),
        ("neon_rmsprop", dict(gradient_clip_norm=-1), "clip_grad_norm=-1"),
        ("keras_rmsprop", dict(clipnorm=1.0, clipvalue=2.0), r"clipnorm=1.0 and clipvalue=2.0.*only one"),
        ("keras_rmsprop", dict(clipnorm=float("nan")), "clip_grad_norm=nan"),
        ("tensorflow_rmsprop", dict(learning_rate=-1), "Invalid learning rate: -1"),
        ("optax_rmsprop", dict(learning_rate=0.1, decay=1.0, bias_correction=True), "alpha < 1"),
        ("chainer_rmsprop", dict(eps_inside_sqrt="no"), "eps_inside_sqrt=.no."),
        ("keras2_rmsprop", dict(clipnorm=1.0, global_clipnorm=2.0), r"clipnorm=1.0 and global_clipnorm=2.0.*only one"),
        ("blocks_rmsprop", dict(max_scaling=0), "max_scaling=0 .* > 0"),
        ("caffe_rmsprop", dict(base_lr=0.1, iter_size=0), "iter_size=0 .* > 0"),
        ("caffe_rmsprop", dict(base_lr=0.1, clip_gradients=0), "clip_grad_norm=0"),
        ("caffe_rmsprop", dict(base_lr=0.1, clip_gradients="5"), "clip_grad_norm='5'"),
        ("keras2_rmsprop", dict(clipvalue=0), "clip_grad_value=0 .* > 0"),
        ("efficientnet", dict(base_learning_rate=-1), "base_learning_rate.*-1"),
        ("mindspore_rmsprop", dict(loss_scale=-1.0), "loss_scale=-1.0 .* > 0"),
        ("dqn2015", dict(minibatch_size=0), "minibatch_size=0 .* > 0"),
        ("efficientnet", dict(train_batch_size="2048"), "train_batch_size='2048' .* > 0"),
        ("efficientnet", dict(moving_average_decay=2.0), "ema_decay=2.0|ema_decay value: 2.0"),
        ("torch_rmsprop", dict(differentiable=True), "differentiable"),
        ("a3c2016", dict(clip_norm="40"), "clip_grad_norm='40'"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(presets, name)(parameters([(2,)]), **options)
