"""Keys of parameter groups: misspelt options are warned of, a user's own keys are not, presets know their source's names."""

import copy
import inspect
import pickle
import warnings

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, presets
from fusedrms.engine.naming import closest
from tools import parameters, random_grads

MISSPELT = {
    "lr": ["LR", "l_r", "Lr", "learning_rate", "learningRate", "learning-rate", "lerning_rate", "learnRate"],
    "eps": ["EPS", "epsilon", "Epsilon", "epsilom"],
    "alpha": ["alhpa", "aplha", "Alpha", "alpa", "alphas"],
    "momentum": ["moment", "momentun", "mometum", "momemtum", "Momentum"],
    "centered": ["center", "centred", "centerd"],
    "maximize": ["maximise", "maximise_"],
    "nesterov": ["nestrov", "use_nesterov_"[4:], "nesterow"],
    "weight_decay": ["weigth_decay", "wight_decay", "weightdecay", "weight-decay", "weightDecay", "weight_deacy", "wieght_decay"],
    "decoupled_weight_decay": ["decoupled_decay", "decoupled_weigth_decay"],
    "clip_grad_norm": ["clip_gradnorm", "clip_norm", "clipnorm", "clip_grad", "clip_grad_norm_"],
    "clip_grad_value": ["clip_gradvalue", "clipvalue", "clip_value", "clip_grad_val"],
    "clip_weights": ["clip_weight", "clipweights"],
    "rescale_grad": ["rescale_grads", "rescalegrad"],
    "stochastic_rounding": ["stochastic_round", "stochastik_rounding"],
    "master_weights": ["master_weight"],
    "skip_nonfinite": ["skip_non_finite"],
    "bias_correction": ["bias_corection", "bias_correct"],
    "seed": ["Seed"],
}
# what others set, read or document in the groups of any optimizer
OWN = [
    *["initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr", "swap_lr", "param_names"],  # torch
    *["lr_scale", "wd_scale", "fix_lr", "layer_id", "group_name", "lookahead_alpha", "lookahead_k", "lookahead_step"],  # timm
    *["lr_mult", "decay_mult", "wd_mult", "wd_multiplier", "lr_multiplier", "lr_factor", "bias_lr_factor", "weight_decay_bias"],
    *["is_decoupled_lr", "is_expert_parallel", "pre_lr_mult", "pre_wd_mult", "start_wd", "end_wd"],  # Megatron
    *["rho", "adaptive", "train_mode", "lr_max", "weight_sum", "weight_lr_power", "scheduled_lr", "r", "k", "d"],  # SAM, schedule-free
    *["rank", "update_proj_gap", "scale", "proj_type", "use_muon", "ns_steps", "betas", "amsgrad", "trust_ratio", "fused"],
    *["max_grad_norm", "max_grad_norm_ratio", "grad_norm", "param_norm", "warmup_steps", "total_steps", "lr_decay", "lr_decay_rate"],
    *["name", "layer", "tag", "fix", "frozen", "decay", "no_decay", "wd", "mom", "moe", "t", "step", "index", "label", "dtype", "speed"],
    *["weights", "weight", "gradient", "norm", "value", "clip", "lr0", "lrf", "beta", "gamma", "feed", "epoch", "id", "modules", "depth"],
    *["weight_decay_scale", "epsilon_greedy", "max_learning_rate", "momentum_decay", "apply_weight_decay", "use_weight_decay"],
]


@pytest.mark.parametrize(("option", "key"), [(option, key) for option, keys in MISSPELT.items() for key in keys])
def test_misspelt_option(option, key):
    """Wherever a group comes from: the constructor, add_param_group, a user's hand; once, and the step is made."""
    (param,), (other,) = parameters([(2,)]), parameters([(3,)])
    said = rf"parameter group {{}} has '{key}', which is no option of FusedRMSProp: did you mean '{option}'\?"
    with pytest.warns(UserWarning, match=said.format(0)):
        FusedRMSProp([{"params": [param], key: 0.5}])
    optimizer = FusedRMSProp([param])
    optimizer.step()
    with pytest.warns(UserWarning, match=said.format(1)):
        optimizer.add_param_group({"params": [other], key: 0.5})
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    optimizer.param_groups[0][key] = 0.5
    before = param.detach().clone()
    with pytest.warns(UserWarning, match=said.format(0)):
        optimizer.step()
    assert not torch.equal(param, before)
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.step()


@pytest.mark.parametrize("optimizer", [FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3])
def test_keys_of_users_are_free(optimizer):
    """pytest makes every warning an error."""
    (param,), (other,) = parameters([(2,)]), parameters([(3,)])
    own = dict.fromkeys(OWN, 1.0) | {3: 4}
    own.pop("param_names")
    made = optimizer([{"params": [param], **own}])
    made.add_param_group({"params": [other], **own})
    random_grads([param, other])
    made.step()
    made.param_groups[0] |= {f"{key}_": 2 for key in OWN}
    made.step()
    assert made.param_groups[1]["lr_scale"] == 1.0


def test_no_key_of_a_scheduler_warns():
    (param,) = parameters([(2,)])
    optimizer = FusedRMSProp([param], momentum=0.5)
    lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=10)
    lr_scheduler.CyclicLR(optimizer, 1e-3, 1e-2)
    SWALR(optimizer, 0.1)
    optimizer.step()
    assert {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"} <= optimizer.param_groups[0].keys()


def test_options_of_torch_are_not_taken_for_others():
    """Groups that were written for another optimizer."""
    names = frozenset(inspect.signature(FusedRMSProp).parameters) - {"params"}
    classes = [cls for cls in vars(torch.optim).values() if inspect.isclass(cls)]
    options = {key for cls in classes for key in inspect.signature(cls).parameters} - names
    assert "amsgrad" in options
    assert not [key for key in options if closest(key, names)]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            FusedRMSPropGraves,
            dict(clip_gradnorm=1.0),
            r"FusedRMSPropGraves\.__init__\(\) .* 'clip_gradnorm'; did you mean 'clip_grad_norm'\?",
        ),
        (FusedRMSPropGraves, dict(learning_rate=1.0), r"FusedRMSPropGraves\.__init__\(\) .* 'learning_rate'; did you mean 'lr'\?"),
        (FusedRMSPropGraves, dict(betas=1.0), r"FusedRMSPropGraves\.__init__\(\) got an unexpected keyword argument 'betas'$"),
        (FusedSMORMS3, dict(alpha=0.5), r"FusedSMORMS3\.__init__\(\) .* 'alpha'"),
        (presets.keras_rmsprop, dict(lr=0.5), r"keras_rmsprop\(\) .* 'lr'; did you mean 'learning_rate'\?"),
        (presets.keras_rmsprop, dict(clip_norm=0.5), r"keras_rmsprop\(\) .* 'clip_norm'; did you mean 'clipnorm'\?"),
        (presets.optax_rmsprop, dict(), r"optax_rmsprop\(\) missing a required argument: 'learning_rate'"),
        (presets.graves2013, dict(lr=1.0), r"graves2013\(\) .* 'lr'$"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_unknown_keyword(make, options, message):
    with pytest.raises(TypeError, match=message):
        make(parameters([(2,)]), **options)


@pytest.mark.parametrize("make", [FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3])
def test_defaults_make_the_same_again(make):
    first = make(parameters([(2,)]), weight_decay=0.5)
    assert make(parameters([(2,)]), **first.defaults).defaults == first.defaults
    assert (
        make(parameters([(2,)]), **{key: value for key, value in first.param_groups[0].items() if key != "params"}).defaults
        == first.defaults
    )


@pytest.mark.parametrize(("option", "value"), [("centered", False), ("eps_placement", "outside"), ("lr_in_momentum", False)])
def test_graves_is_defined_by_its_options(option, value):
    """Wherever a group comes from: the constructor, a group, an added one, a user's hand, another's checkpoint."""
    params = parameters([(2,)])
    optimizer = FusedRMSPropGraves(params)
    random_grads(params)
    optimizer.step()
    before = params[0].detach().clone()
    own = {key: optimizer.defaults[key] for key in ("centered", "eps_placement", "lr_in_momentum")}
    others = FusedRMSProp(parameters([(2,)]), momentum=0.9, **{**own, option: value}).state_dict()

    def by_hand():
        optimizer.param_groups[0][option] = value
        optimizer.step()

    for attempt in (
        lambda: FusedRMSPropGraves(params, **{option: value}),
        lambda: FusedRMSPropGraves([{"params": params, option: value}]),
        lambda: presets.graves2013([{"params": params, option: value}]),
        lambda: optimizer.add_param_group({"params": parameters([(3,)]), option: value}),
        lambda: optimizer.load_state_dict({**others, "param_groups": [{**others["param_groups"][0], option: value}]}),
        by_hand,
    ):
        message = rf"{option}={value!r} .*FusedRMSPropGraves.*leave .* out, or use FusedRMSProp|holds a momentum_buffer without lr"
        with pytest.raises(ValueError, match=message):
            attempt()
    assert torch.equal(params[0], before)
    optimizer.param_groups[0] |= own
    optimizer.step()
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        copied.step()
    optimizer.load_state_dict(FusedRMSProp(params, momentum=0.9, **own).state_dict())


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


def test_warned_once():
    (param,) = parameters([(2,)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = FusedRMSProp([dict(params=[param], clip_gradnorm=1.0)])
        for step in range(4):
            optimizer.param_groups[0]["alpha"] = 0.5 + step / 10
            random_grads([param])
            optimizer.step()
    assert len(caught) == 1
