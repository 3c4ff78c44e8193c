"""Wrong options: an error that names the option, its value and what is allowed, and nothing has changed."""

import copy
import math
import reprlib

import numpy as np
import pytest
import torch

from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.kernels import devices
from tools import parameter, parameters, random_grads

ALLOWED = (
    r"finite number|must be True or False|must be '|must be torch|whole number|leave one of the two out|set momentum > 0|set alpha < 1"
)


def wrong(value, but=()):
    """That value of each option that must be a finite number, but for some."""
    options = [
        dict(lr=value),
        dict(eps=value),
        dict(weight_decay=value),
        dict(rescale_grad=value),
        dict(clip_grad_value=value),
        dict(clip_grad_norm=value),
        dict(clip_weights=value),
    ]
    return [each for each in options if not each.keys() & set(but)]


FAMILY_ONLY = [
    *[{option: value} for option in ("alpha", "momentum", "initial_square_avg") for value in (-1.0, math.nan, math.inf, 10**5000)],
    *[{option: value} for option in ("centered", "lr_in_momentum", "nesterov", "bias_correction") for value in ("yes", 2, None)],
    *[{option: value} for option in ("eps_placement", "clip_norm_on") for value in ("middle", "Inside", None, 1, [])],
    dict(nesterov=True),
    dict(nesterov=True, momentum=0.0),
    dict(bias_correction=True, alpha=1.0),
    dict(bias_correction=True, alpha=1.5),
    dict(alpha=1.5),
]


ALL = [
    *wrong(-1.0),
    *wrong(math.nan),
    *wrong(math.inf, but=["clip_grad_norm"]),  # which measures a norm then
    *wrong(10**400),  # no float holds it
    *[{option: value} for option in ("rescale_grad", "clip_grad_value", "clip_grad_norm", "clip_weights") for value in (0, "1", [])],
    *[{option: value} for option in ("maximize", "decoupled_weight_decay", "clip_after_decay") for value in ("yes", 2, None)],
    *[dict(clip_norm_over=value) for value in ("group", None, 3)],
    *[dict(skip_above=value) for value in (5.0, (1.0, 100), (5.0, 1), (math.nan, 100), (5.0, 1.5), "5", [5.0])],
    dict(rescale_grad=None),
    dict(seed=-1),
    *[dict(seed=value) for value in (1.5, True, "0", 2**64)],
    *[{option: 10**5000} for option in ("seed", "maximize", "skip_nonfinite", "clip_norm_over")],  # more digits than Python prints
]


# never taken from a checkpoint
STORAGE = [
    *[dict(stochastic_rounding=value) for value in ("yes", 2, None)],
    *[dict(master_weights=value) for value in ("bfloat16", "split8", True, torch.float32, 32)],
    *[dict(master_weights=value, stochastic_rounding=True) for value in ("float32", "split", "split24")],
    *[dict(state_dtype=value) for value in ("int8", "2bit", "bfloat16", torch.float16, torch.float64, 8, None, [], np.zeros(2), 10**5000)],
]


def shown(value) -> str:
    return (
        reprlib.repr(value)
        if isinstance(value, type)
        else ", ".join(f"{key}={str(v)[:20]}" for key, v in value.items() if not huge(v)) or "huge"
    )


def huge(value) -> bool:
    return isinstance(value, int) and value.bit_length() > 1024


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        *[(FusedRMSProp, options) for options in ALL + FAMILY_ONLY + STORAGE],
        *[(optimizer, options) for optimizer in (FusedRMSPropGraves, FusedSMORMS3) for options in ALL + STORAGE],
    ],
    ids=shown,
)
def test_wrong_options(optimizer, options):
    """Refused in the constructor, a parameter group, an added one, a checkpoint; named with what is allowed."""
    name = {"lr": "learning rate", "eps": "epsilon"}.get(next(iter(options)), next(iter(options)))
    allowed = rf"({ALLOWED})"
    (param,) = parameters([(2,)])
    good = optimizer([param])
    refused = [
        lambda: optimizer([param], **options),
        lambda: optimizer([dict(params=[param], **options)]),
        lambda: good.add_param_group(dict(params=parameters([(3,)]), **options)),
        lambda: good.load_state_dict({**good.state_dict(), "param_groups": [{**good.state_dict()["param_groups"][0], **options}]}),
    ]
    if any(options is each for each in STORAGE):
        refused.pop()()
    for attempt in refused:
        with pytest.raises(ValueError, match=rf"{name}.*{allowed}"):
            attempt()
    assert len(good.param_groups) == 1
    assert all(
        good.param_groups[0][option] is good.defaults[option] for option in ("lr", "stochastic_rounding", "master_weights", "state_dtype")
    )


@pytest.mark.parametrize("options", [*ALL, *FAMILY_ONLY, *STORAGE, dict(lr=-1e-7), dict(lr=torch.tensor(-1e-7))], ids=shown)
@pytest.mark.parametrize("first_step", [True, False], ids=["first step", "later"])
def test_wrong_options_in_a_group_later(options, first_step):
    """Set by hand: still an error before anything has changed, and mended, it goes on."""
    (param,) = parameters([(2,)])
    optimizer = FusedRMSProp([param])
    (group,) = optimizer.param_groups
    random_grads([param])
    if not first_step:
        optimizer.step()
    before, good = param.detach().clone(), dict(group)
    group.update(options)
    for _ in range(2):
        with pytest.raises(ValueError, match=ALLOWED):
            optimizer.step()
    assert torch.equal(param, before)
    group.update(good)
    optimizer.step()
    assert not torch.equal(param, before)


@pytest.mark.parametrize("lr", [-1e-20, -1e-9, torch.tensor(-1e-9)], ids=repr)
def test_a_schedule_may_end_below_zero(lr):
    """By a rounding error, as torch's cosine does; torch takes such a rate. Copies and checkpoints take it too, constructors do not."""
    (param,) = parameters([(2,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    optimizer.param_groups[0]["lr"] = lr
    optimizer.step()
    assert torch.isfinite(param).all()
    copy.deepcopy(optimizer).load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="Invalid learning rate"):
        FusedRMSProp([param], lr)


@pytest.mark.parametrize("lr", ["1e-3", None, [], torch.ones(2), 1j])
def test_a_rate_that_is_no_number(lr):
    (param,) = parameters([(2,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    before = param.detach().clone()
    optimizer.param_groups[0]["lr"] = lr
    for _ in range(2):
        with pytest.raises(
            (TypeError, ValueError), match=r"parameter group 0: (Invalid learning rate: .*pass a number|Tensor lr must be 1-element)"
        ):
            optimizer.step()
    assert torch.equal(param, before)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_tensor_rate_that_becomes_wrong_in_place(value):
    params = parameters([(2,), (3,)])
    lr = torch.tensor(0.1)
    optimizer = FusedRMSProp([dict(params=params[:1]), dict(params=params[1:], lr=lr)])
    random_grads(params)
    optimizer.step()
    before = [param.detach().clone() for param in params]
    lr.fill_(value)
    with pytest.raises(ValueError, match=f"parameter group 1: Invalid learning rate: {value}"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert optimizer.state[params[0]]["step"].item() == 1
    lr.fill_(0.1)
    optimizer.step()
    assert not torch.equal(params[1], before[1])


def test_a_rate_on_a_gpu_is_not_read(monkeypatch):
    """That would wait for the GPU. A meta tensor cannot be read at all."""
    monkeypatch.setattr(devices, "KINDS", {"meta": None})
    lr = torch.empty((), device="meta")
    optimizer = FusedRMSProp(parameters([(2,)]), lr=lr)
    optimizer.add_param_group(dict(params=parameters([(2,)]), lr=lr))
    optimizer.param_groups[0]["lr"] = lr.clone()
    assert optimizer._recipes()[0].common[0] is optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match="1-element"):
        optimizer.add_param_group(dict(params=parameters([(2,)]), lr=torch.empty(2, device="meta")))


@pytest.mark.parametrize("option", [*FusedRMSProp(parameters([(1,)])).defaults, "params"])
def test_a_group_made_by_hand(option):
    params = parameters([(2,), (3,)])
    optimizer = FusedRMSProp([dict(params=[param]) for param in params])
    random_grads(params)
    optimizer.step()
    before = [param.detach().clone() for param in params]
    optimizer.param_groups[1] = {key: value for key, value in optimizer.param_groups[1].items() if key != option}
    with pytest.raises(
        ValueError, match=rf"parameter group 1 has no '{option}': set optimizer\.param_groups\[1\]\['{option}'\].*add_param_group"
    ):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    optimizer.param_groups[1][option] = optimizer.defaults.get(option, [])
    optimizer.step()


@pytest.mark.parametrize("change", [list.pop, lambda params: params.append(parameter(torch.ones(1)))], ids=["pop", "append"])
@pytest.mark.parametrize("first_step", [True, False], ids=["first step", "later"])
def test_names_and_parameters_in_other_numbers(change, first_step):
    model = torch.nn.Linear(2, 2)
    optimizer = FusedRMSProp(model.named_parameters())
    random_grads(model.parameters())
    if not first_step:
        optimizer.step()
    saved = optimizer.state_dict()
    before = model.weight.detach().clone()
    change(optimizer.param_groups[0]["params"])
    nameless = {key: value for key, value in saved["param_groups"][0].items() if key != "param_names"}
    nameless["params"] = list(range(len(optimizer.param_groups[0]["params"])))
    for attempt in (
        optimizer.step,
        optimizer.state_dict,
        lambda: optimizer.load_state_dict({"state": {}, "param_groups": [nameless]}),
    ):
        with pytest.raises(
            ValueError, match=r"parameter group 0 has [13] params but 2 param_names: change both .* or delete 'param_names'"
        ):
            attempt()
    assert torch.equal(model.weight, before)
    del optimizer.param_groups[0]["param_names"]
    optimizer.step()
    if change is list.pop and not first_step:
        with pytest.raises(ValueError, match=r"state of a tensor of shape \(2,\) that is in no parameter group.*state\.pop"):
            optimizer.state_dict()
        optimizer.state.pop(model.bias)
    optimizer.load_state_dict(optimizer.state_dict())
