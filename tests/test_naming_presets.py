"""Groups of presets, whose options have the names of their source."""

import copy
import inspect
import pickle

import pytest
import torch

from fusedrms import presets
from tools import parameters, random_grads

# a preset, arguments of the whole, those of a group, and what options the group then has that the whole has not
GROUPS = [
    ("keras_rmsprop", dict(), dict(learning_rate=0.1, rho=0.8, epsilon=1e-3), dict(lr=0.1, alpha=0.8, eps=1e-3)),
    ("keras_rmsprop", dict(), dict(clipnorm=-1.0, weight_decay=None), dict()),
    ("keras_rmsprop", dict(), dict(clipnorm=2.0), dict(clip_grad_norm=2.0, clip_norm_over="parameter")),
    (
        "keras_rmsprop",
        dict(clipvalue=1.0),
        dict(clipvalue=None, clipnorm=2.0),
        dict(clip_grad_value=None, clip_grad_norm=2.0, clip_norm_over="parameter"),
    ),
    ("keras_rmsprop", dict(weight_decay=0.1), dict(weight_decay=None), dict(weight_decay=0.0)),
    ("optax_rmsprop", dict(learning_rate=0.1), dict(eps_in_sqrt=False, decay=0.5), dict(eps_placement="outside", alpha=0.5)),
    ("optax_rmsprop", dict(learning_rate=0.1, momentum=0.9, nesterov=True), dict(momentum=None), dict(momentum=0.0, nesterov=False)),
    ("neon_rmsprop", dict(), dict(batch_size=4, stochastic_round=True), dict(rescale_grad=0.25, stochastic_rounding=True)),
    (
        "neon_rmsprop",
        dict(gradient_clip_norm=1.0),
        dict(gradient_clip_norm=0, param_clip_value=-3.0),
        dict(clip_grad_norm=None, clip_weights=3.0),
    ),
    ("mxnet_rmsprop", dict(), dict(multi_precision=True, wd=0.1), dict(master_weights="float32", weight_decay=0.1)),
    (
        "mxnet_rmsprop",
        dict(clip_gradient=1.0),
        dict(clip_gradient=-1, centered=True),
        dict(clip_grad_value=None, centered=True, momentum=0.9),
    ),
    ("mxnet2_rmsprop", dict(), dict(centered=True, momentum=0.5), dict(centered=True, momentum=0.5, eps_placement="inside")),
    ("tensorflow_rmsprop", dict(learning_rate=0.1), dict(decay=0.5), dict(alpha=0.5)),
    ("timm_rmsprop_tf", dict(), dict(decoupled_decay=True, weight_decay=0.5), dict(decoupled_weight_decay=True, weight_decay=0.5)),
    ("puzzlelib_rmsprop", dict(), dict(learnRate=0.1, factor=0.5), dict(lr=0.1, alpha=0.5)),
    ("puzzlelib_rmsprop_graves", dict(), dict(momRate=0.1), dict(momentum=0.1)),
    ("puzzlelib_smorms3", dict(), dict(learnRate=0.1, epsilon=1e-3), dict(lr=0.1, eps=1e-3)),
    ("graves2013", dict(), dict(), dict()),
    ("theano_rmsprop", dict(), dict(), dict()),
    ("torch_rmsprop", dict(), dict(alpha=0.5, centered=True), dict(alpha=0.5, centered=True)),
    ("torch7_rmsprop", dict(), dict(weightDecay=0.1, initialMean=1.0), dict(weight_decay=0.1, initial_square_avg=1.0)),
    ("chainer_rmsprop", dict(), dict(eps=0.1, eps_inside_sqrt=True), dict(eps=0.1, eps_placement="inside")),
    ("chainer_rmsprop_graves", dict(), dict(alpha=0.5), dict(alpha=0.5)),
    ("chainer_smorms3", dict(), dict(lr=0.1), dict(lr=0.1)),
    ("paddle_rmsprop", dict(learning_rate=0.1), dict(rho=0.5, weight_decay=0.1), dict(alpha=0.5, weight_decay=0.1)),
    ("mindspore_rmsprop", dict(), dict(loss_scale=4.0, decay=0.5), dict(rescale_grad=0.25, alpha=0.5)),
    ("mlx_rmsprop", dict(learning_rate=0.1), dict(alpha=0.5), dict(alpha=0.5)),
    ("jax_rmsprop", dict(step_size=0.1), dict(step_size=0.2, gamma=0.5), dict(lr=0.2, alpha=0.5)),
    ("jax_rmsprop_momentum", dict(step_size=0.1), dict(momentum=0.5), dict(momentum=0.5)),
    ("keras2_rmsprop", dict(), dict(momentum=0.5, epsilon=None), dict(momentum=0.5, eps_placement="inside")),
    (
        "keras2_rmsprop",
        dict(),
        dict(clipnorm=2.0, clipvalue=1.0),
        dict(clip_grad_norm=2.0, clip_norm_over="parameter", clip_grad_value=1.0),
    ),
    ("tf_slim_rmsprop", dict(), dict(moving_average_decay=0.5), dict(ema_decay=0.5, ema_warmup=True)),
    ("lasagne_rmsprop", dict(), dict(rho=0.5), dict(alpha=0.5)),
    ("blocks_rmsprop", dict(), dict(max_scaling=4.0), dict(eps=0.25)),
    ("caffe_rmsprop", dict(base_lr=0.1), dict(clip_gradients=8.0, iter_size=4), dict(clip_grad_norm=2.0, rescale_grad=0.25)),
    ("dl4j_rmsprop", dict(), dict(epsilon=0.5), dict(eps=0.5, initial_square_avg=0.5)),
    ("flux_rmsprop", dict(), dict(centred=True), dict(centered=True)),
    ("dqn2015", dict(), dict(wc=0.1, minibatch_size=1), dict(weight_decay=0.1, rescale_grad=1.0)),
    ("dqn_zoo", dict(), dict(optimizer_epsilon=0.5), dict(eps=0.5)),
    ("dopamine", dict(), dict(centered=False), dict(centered=False)),
    ("a3c2016", dict(), dict(eta=0.1, clip_norm=40.0), dict(lr=0.1, clip_grad_norm=40.0)),
    ("impala2018", dict(), dict(clip_norm=40.0, decay=0.5), dict(clip_grad_norm=40.0, alpha=0.5)),
    ("efficientnet", dict(), dict(train_batch_size=4096, moving_average_decay=0.5), dict(lr=0.256, ema_decay=0.5)),
    ("tf_slim_rmsprop", dict(), dict(moving_average_decay=0), dict()),
    ("caffe_rmsprop", dict(base_lr=0.1, clip_gradients=8.0), dict(clip_gradients=None), dict(clip_grad_norm=None)),
    ("efficientnet", dict(), dict(moving_average_decay=None), dict(ema_decay=None, ema_warmup=False)),
    ("mobilenet_v3", dict(), dict(rmsprop_momentum=0.5), dict(momentum=0.5)),
    ("nasnet", dict(learning_rate=0.1), dict(opt_epsilon=0.5), dict(eps=0.5)),
]


def options_of(group: dict) -> dict:
    return {key: value for key, value in group.items() if key != "params"}


@pytest.mark.parametrize(("name", "arguments", "of_group", "differs"), GROUPS, ids=[f"{name}-{g}" for g, (name, *_) in enumerate(GROUPS)])
def test_groups_in_the_names_of_the_source(name, arguments, of_group, differs):
    """A group is what an optimizer with those arguments has, however it comes in; a user's own keys stay."""
    make = getattr(presets, name)
    expected = options_of(make(parameters([(2,)]), **{**arguments, **of_group}).param_groups[0])
    plain = make([{"params": parameters([(2,)])}, {"params": parameters([(3,)]), "lr_scale": 0.5, **of_group}], **arguments)
    expected["seed"] = plain.defaults["seed"]  # another in each optimizer
    assert plain.param_groups[1] == {"params": plain.param_groups[1]["params"], "lr_scale": 0.5, **expected}
    assert options_of(plain.param_groups[0]) == plain.defaults == {**expected, **{key: plain.defaults[key] for key in differs}}
    assert {key: expected[key] for key in differs} == differs
    for optimizer in (plain, copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        assert type(optimizer) is type(plain)
        added = {"params": parameters([(4,)]), **of_group}
        optimizer.add_param_group(added)
        assert options_of(optimizer.param_groups[2]) == expected
        params = [param for group in optimizer.param_groups for param in group["params"]]
        random_grads(params)
        optimizer.step()
        copy.deepcopy(optimizer).load_state_dict(optimizer.state_dict())


def test_every_preset_translates():
    exported = {name for name, value in vars(presets).items() if inspect.isfunction(value) and hasattr(value, "__wrapped__")}
    assert exported == {name for name, *_ in GROUPS} == {member.name for member in presets.find()}


def test_groups_in_the_names_of_the_class():
    """As they always could; groups of another optimizer are such."""
    (param,) = parameters([(2,)])
    group = dict(params=[param], lr=0.1, alpha=0.8)
    first = presets.keras_rmsprop([group])
    assert (first.param_groups[0]["lr"], first.param_groups[0]["alpha"]) == (0.1, 0.8)
    second = presets.keras_rmsprop(first.param_groups, 0.5)
    assert options_of(second.param_groups[0]) == options_of(first.param_groups[0])
    for make in (presets.mxnet_rmsprop, presets.mxnet2_rmsprop):
        first = make([param], centered=True, epsilon=0.5, **({"gamma2": 0.5} if make is presets.mxnet_rmsprop else {"momentum": 0.5}))
        assert options_of(make(first.param_groups).param_groups[0]) == options_of(first.param_groups[0]) == first.defaults


def test_a_group_with_both_names_of_different_options():
    """What its names leave as it was they do not ask for, even where the preset computes it anew."""
    group = dict(params=parameters([(2,)]), learning_rate=0.1, rescale_grad=0.5)
    optimizer = presets.neon_rmsprop([group], batch_size=4)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rescale_grad"]) == (0.1, 0.5)


def test_a_group_with_both_names():
    with pytest.raises(ValueError, match=r"has lr=0\.2, but by the names of keras_rmsprop, learning_rate=0\.1, it is 0\.1: leave one out"):
        presets.keras_rmsprop([dict(params=parameters([(2,)]), lr=0.2, learning_rate=0.1)])


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (dict(clipnorm=1.0, clipvalue=2.0), r"clipnorm=1.0 and clipvalue=2.0.*only one"),
        (dict(learning_rate=-1), "Invalid learning rate: -1"),
        (dict(clipnorm="1"), "clip_grad_norm='1'"),
    ],
    ids=str,
)
def test_wrong_group_of_a_preset(group, message):
    optimizer = presets.keras_rmsprop(parameters([(2,)]))
    for attempt in (
        lambda: presets.keras_rmsprop([{"params": parameters([(2,)]), **group}]),
        lambda: optimizer.add_param_group({"params": parameters([(2,)]), **group}),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert len(optimizer.param_groups) == 1


def test_a_name_of_the_source_set_later():
    optimizer = presets.keras_rmsprop(parameters([(2,)]))
    for key in ("learning_rate", "rho"):
        optimizer.param_groups[0][key] = 0.5
        with pytest.warns(
            UserWarning, match=rf"'{key}', which is no option of FusedRMSProp: set an option of it; .*arguments of keras_rmsprop"
        ):
            optimizer.step()
    with pytest.warns(UserWarning, match="did you mean 'clipvalue'"):
        optimizer.add_param_group(dict(params=parameters([(2,)]), clipvalu=0.5))


def test_a_generator_of_groups_and_named_parameters():
    model = torch.nn.Linear(2, 2)
    assert presets.keras_rmsprop(model.named_parameters(), 0.5).param_groups[0]["param_names"] == ["weight", "bias"]
    groups = ({"params": [named], "rho": rho} for named, rho in zip(model.named_parameters(), (0.5, 0.6), strict=True))
    optimizer = presets.keras_rmsprop(groups)
    assert [(group["param_names"], group["alpha"]) for group in optimizer.param_groups] == [(["weight"], 0.5), (["bias"], 0.6)]
    with pytest.raises(TypeError, match="params argument"):
        presets.keras_rmsprop(model.weight)
