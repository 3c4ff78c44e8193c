"""Options of groups as they are kept: Python's numbers, and all of them, from wherever a group comes."""

import copy
import io
import math
import pickle
from typing import Literal, get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor
from typing_extensions import Unpack

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3, presets
from fusedrms.engine.options.types import EpsPlacement, GravesOptions
from fusedrms.rmsprop import EPS
from tools import parameters, random_grads

NUMBERS = dict(
    lr=np.float64(0.1),
    alpha=np.float32(0.5),
    eps=np.array(1e-3),
    weight_decay=np.longdouble(0.25),
    momentum=np.float16(0.5),
    centered=np.bool_(True),
    clip_grad_norm=np.array([2.0]),
    eps_placement=np.str_("inside"),
    seed=np.int64(3),
)


def reloaded(state_dict: dict) -> dict:
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def pythons(values: dict) -> bool:
    return all(type(value) in (int, float, bool, str, type(None), torch.dtype, torch.Tensor) for value in values.values())


def test_numbers_of_numpy():
    """From a constructor, a group, an added one, another's checkpoint, and a user's hand: each checkpoint is read with weights_only."""
    (param,), (other,) = parameters([(2,)]), parameters([(3,)])
    expected = {**dict.fromkeys(NUMBERS), **{key: value.item() for key, value in NUMBERS.items()}, "weight_decay": 0.25}
    made = FusedRMSProp([param], **NUMBERS)
    assert {key: made.defaults[key] for key in NUMBERS} == expected
    assert pythons(made.defaults)
    for optimizer in (made, FusedRMSProp([dict(params=[param], **NUMBERS)])):
        optimizer.add_param_group(dict(params=[other], **NUMBERS))
        random_grads([param, other])
        optimizer.step()
        for group in optimizer.param_groups:
            assert {key: group[key] for key in NUMBERS} == expected
            assert pythons({key: group[key] for key in optimizer.defaults})
        saved = reloaded(optimizer.state_dict())
        taken = FusedRMSProp([dict(params=[p]) for p in parameters([(2,), (3,)])])
        taken.load_state_dict({**saved, "param_groups": [{**group, **NUMBERS} for group in saved["param_groups"]]})
        assert all(pythons({key: group[key] for key in taken.defaults}) for group in taken.param_groups)
        optimizer.param_groups[0] |= {**NUMBERS, "lr_scale": np.float64(0.5), "initial_lr": np.array(0.1)}
        optimizer.step()
        again = reloaded(optimizer.state_dict())
        assert again["param_groups"][0] == {**saved["param_groups"][0], "lr_scale": 0.5, "initial_lr": 0.1}


@pytest.mark.parametrize("name", ["keras_rmsprop", "mxnet_rmsprop", "neon_rmsprop"])
def test_numbers_of_numpy_for_presets(name):
    """A limit that is off is off in either form."""
    limits = dict(keras_rmsprop="clipvalue", mxnet_rmsprop="clip_gradient", neon_rmsprop="gradient_clip_value")
    arguments = {limits[name]: np.float32(0.0), "learning_rate": np.float64(0.1)}
    for optimizer in (
        getattr(presets, name)(parameters([(2,)]), **arguments),
        getattr(presets, name)([dict(params=parameters([(2,)]), **arguments)]),
    ):
        assert optimizer.param_groups[0]["clip_grad_value"] is None
        assert pythons({key: value for key, value in optimizer.param_groups[0].items() if key != "params"})


def test_a_tensor_rate_stays_one():
    lr = torch.tensor(0.1)
    optimizer = FusedRMSProp(parameters([(2,)]), lr)
    optimizer.add_param_group(dict(params=parameters([(2,)]), lr=lr))
    assert all(group["lr"] is lr for group in optimizer.param_groups)
    loaded = FusedRMSProp([dict(params=p) for p in parameters([(2,), (2,)])])
    loaded.load_state_dict(reloaded(optimizer.state_dict()))
    assert all(isinstance(group["lr"], torch.Tensor) for group in loaded.param_groups)


@pytest.mark.parametrize("value", [np.ones(2), np.array(math.nan), np.array("fast"), np.float32(-1)], ids=repr)
@pytest.mark.parametrize("option", ["lr", "alpha", "rescale_grad", "clip_grad_norm"])
def test_wrong_numbers_of_numpy(option, value):
    with pytest.raises((TypeError, ValueError), match=f"({option}|learning rate).*number"):
        FusedRMSProp(parameters([(2,)]), **{option: value})


class Mine(FusedRMSProp):
    """As users write them: an argument of its own, other defaults."""

    def __init__(self, params, warmup=3, alpha=0.5, **options):
        super().__init__(params, alpha=alpha, **options)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (FusedRMSProp, FusedRMSProp(parameters([(1,)])).defaults),
        (FusedRMSPropGraves, FusedRMSPropGraves(parameters([(1,)])).defaults),
        (FusedSMORMS3, FusedSMORMS3(parameters([(1,)])).defaults),
        (Mine, Mine(parameters([(1,)])).defaults),
        (presets.keras_rmsprop, presets.keras_rmsprop(parameters([(1,)])).defaults),
    ],
)
def test_a_pickle_without_newer_options(make, expected):
    """As torch's: what a pickle lacks is what its class has by default; a copy and a step do as if it had been there."""
    optimizer = make(parameters([(2,)]))
    params = optimizer.param_groups[0]["params"]
    random_grads(params)
    optimizer.step()
    for option in expected.keys() - {"seed"}:
        old = pickle.loads(pickle.dumps(optimizer))
        del old.defaults[option], old.param_groups[0][option]
        for taken in (pickle.loads(pickle.dumps(old)), copy.deepcopy(old)):
            assert taken.param_groups[0][option] == taken.defaults[option] == expected[option]
            assert {key: value for key, value in taken.param_groups[0].items() if key != "params"} == optimizer.defaults
            random_grads(taken.param_groups[0]["params"])
            taken.step()
    old.defaults = {}
    old.param_groups[0] = {"params": old.param_groups[0]["params"]}
    assert {key: value for key, value in pickle.loads(pickle.dumps(old)).param_groups[0].items() if key != "params"} == {
        **expected,
        "seed": 0,
    }


def test_a_checkpoint_without_newer_options():
    """They stay as they are in the optimizer that loads it, or come from its defaults where its group was made by hand."""
    optimizer = FusedRMSProp(parameters([(2,)]), skip_nonfinite=True)
    saved = FusedRMSProp(parameters([(2,)])).state_dict()
    del saved["param_groups"][0]["alpha"]
    del optimizer.param_groups[0]["alpha"]
    optimizer.load_state_dict(saved)
    assert (optimizer.param_groups[0]["skip_nonfinite"], optimizer.param_groups[0]["alpha"]) == (True, 0.99)


def test_what_type_checkers_are_told():
    """Of an option the same by each class, and what the option takes."""
    ours, smorms3, graves = (get_type_hints(cls.__init__) for cls in (FusedRMSProp, FusedSMORMS3, FusedRMSPropGraves))
    assert smorms3.items() <= ours.items()
    fixed = {name: Literal[value] for name, value in FusedRMSPropGraves._fixed.items()}
    assert graves.pop("options") == Unpack[GravesOptions]
    assert {**graves, **get_type_hints(GravesOptions)} == {**ours, **fixed}
    assert set(get_args(EpsPlacement)) == EPS.keys()
    for name, hint in ours.items():
        values = [value for each in (hint, *get_args(hint)) for value in get_args(each) if isinstance(value, str)]
        values += [torch.tensor(0.5)] if Tensor in get_args(hint) else []
        for value in values:
            FusedRMSProp(parameters([(2,)]), **{name: value})
