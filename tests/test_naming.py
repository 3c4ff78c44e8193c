"""Keys of parameter groups: misspelt options are warned of, a user's own keys are not."""

import copy
import inspect
import pickle
import warnings

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, presets
from fusedrms.engine.options.naming import closest
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
    "skip_above": ["skipabove", "skip-above", "skip_abov"],
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
        (FusedRMSProp, dict(epsilon=1.0), r"^FusedRMSProp\.__init__\(\) .* 'epsilon'; did you mean 'eps'\?$"),
        (FusedRMSProp, dict(betas=1.0), r"^FusedRMSProp\.__init__\(\) got an unexpected keyword argument 'betas'$"),
        (FusedSMORMS3, dict(learning_rate=0.5), r"^FusedSMORMS3\.__init__\(\) .* 'learning_rate'; did you mean 'lr'\?$"),
        (FusedSMORMS3, dict(alpha=0.5), r"FusedSMORMS3\.__init__\(\) .* 'alpha'"),
        (presets.keras_rmsprop, dict(lr=0.5), r"keras_rmsprop\(\) .* 'lr'; did you mean 'learning_rate'\?"),
        (presets.keras_rmsprop, dict(clip_norm=0.5), r"keras_rmsprop\(\) .* 'clip_norm'; did you mean 'clipnorm'\?"),
        (presets.optax_rmsprop, dict(), r"optax_rmsprop\(\) missing a required argument: 'learning_rate'"),
        (presets.graves2013, dict(lr=1.0), r"'lr', which .* group, graves2013\(\[dict\(params=params, lr=\.\.\.\)\]\)$"),
        (presets.efficientnet, dict(ema_decay=0.9), "'ema_decay', which is none of its arguments: put it into a parameter group"),
        (presets.efficientnet, dict(betas=0.9), r"efficientnet\(\) .* 'betas'$"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_unknown_keyword(make, options, message):
    with pytest.raises(TypeError, match=message):
        make(parameters([(2,)]), **options)


@pytest.mark.parametrize(
    "model", [torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2))], ids=lambda model: type(model).__name__
)
def test_a_model_in_place_of_its_parameters(model):
    with pytest.raises(TypeError, match=rf"params is a {type(model).__name__}, a model: pass its parameters\(\)"):
        FusedRMSProp(model)


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
