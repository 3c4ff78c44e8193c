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
    ("keras_rmsprop", dict(), dict(clipnorm=-1.0, weight_decay=None), dict(clip_norm_over="parameter")),
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
    made = {name for name, value in vars(presets).items() if inspect.isfunction(value) and hasattr(value, "__wrapped__")}
    assert made == {name for name, *_ in GROUPS}


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
