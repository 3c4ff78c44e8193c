"""Unsupported input: an error that names the thing, its value and the remedy, and nothing has changed."""

import copy
import math
import reprlib

import numpy as np
import pytest
import torch

import gpu
from fusedrms import FusedRMSProp, FusedRMSPropGraves, FusedSMORMS3
from fusedrms.kernels import devices
from tools import parameter, parameters, random_grads, set_grad

ALLOWED = r"finite number|must be True or False|must be '|must be torch|whole number|leave one of them out|set momentum > 0|set alpha < 1"


def wrong(value):
    return [
        dict(lr=value),
        dict(eps=value),
        dict(weight_decay=value),
        dict(rescale_grad=value),
        dict(clip_grad_value=value),
        dict(clip_grad_norm=value),
        dict(clip_weights=value),
    ]


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
    *wrong(math.inf),
    *wrong(10**400),  # no float holds it
    *[{option: value} for option in ("rescale_grad", "clip_grad_value", "clip_grad_norm", "clip_weights") for value in (0, "1", [])],
    *[{option: value} for option in ("maximize", "decoupled_weight_decay", "clip_after_decay") for value in ("yes", 2, None)],
    *[dict(clip_norm_over=value) for value in ("group", None, 3)],
    dict(rescale_grad=None),
    dict(seed=-1),
    *[dict(seed=value) for value in (1.5, True, "0", 2**64)],
]
# never taken from a checkpoint
STORAGE = [
    *[dict(stochastic_rounding=value) for value in ("yes", 2, None)],
    *[dict(master_weights=value) for value in ("bfloat16", True, torch.float32, 32)],
    *[dict(master_weights=value, stochastic_rounding=True) for value in ("float32", "split")],
    *[dict(state_dtype=value) for value in ("int8", "bfloat16", torch.float16, torch.float64, 8, None, [], np.zeros(2))],
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


def sparse(p):
    p.grad = torch.zeros_like(p).to_sparse()


def other_shape(p):
    p.data = torch.zeros(7)


def wide_gradient(p):
    p.grad.data = p.grad.double()


def complex_gradient(p):
    p.grad.data = p.grad.to(torch.complex64)


def float8(p):
    p.grad = None
    p.data = p.data.to(torch.float8_e4m3fn)
    p.grad = torch.zeros_like(p)


def integer_gradient(p):
    p.grad.data = p.grad.int()


def expanded(p):
    p.data = torch.zeros(1).expand(4, 3)


ERRORS = {
    sparse: r"weight\.grad is torch\.sparse_coo; FusedRMSProp takes dense .*sparse=False in nn\.Embedding",
    other_shape: r"weight\.grad has shape \(4, 3\) but weight \(7,\)",
    wide_gradient: r"weight\.grad is torch\.float64 but weight torch\.float32; convert",
    complex_gradient: r"weight\.grad is torch\.complex64 but weight torch\.float32",
    float8: r"weight has dtype torch\.float8_e4m3fn; FusedRMSProp takes torch\.float32",
    integer_gradient: r"weight\.grad has dtype torch\.int32",
    expanded: r"weight is expanded.*contiguous\(\)",
}


@pytest.mark.parametrize("first_step", [True, False], ids=["first step", "later"])
@pytest.mark.parametrize("spoil", ERRORS, ids=lambda spoil: spoil.__name__)
def test_error_before_any_change(spoil, first_step):
    good, bad = parameters([(5,)]) + parameters([(4, 3)])
    optimizer = FusedRMSProp([("bias", good), ("weight", bad)])
    random_grads([good, bad])
    if not first_step:
        optimizer.step()
    before = good.detach().clone()
    state = {key: value.clone() for key, value in optimizer.state[good].items()} if not first_step else {}
    spoil(bad)
    with pytest.raises(RuntimeError, match=ERRORS[spoil]):
        optimizer.step()
    assert torch.equal(good, before)
    assert optimizer.state[good].keys() == state.keys()
    assert all(torch.equal(optimizer.state[good][key], value) for key, value in state.items())
    bad.data = torch.zeros(2)  # mended, it goes on
    bad.grad = None
    random_grads([bad])
    optimizer.state.pop(bad, None)
    optimizer.step()
    assert not torch.equal(good, before)


def test_a_parameter_listed_twice_by_hand():
    (param,) = parameters([(2,)])
    optimizer = FusedRMSProp([param])
    optimizer.param_groups[0]["params"].append(param)
    random_grads([param])
    with pytest.raises(RuntimeError, match="listed twice"):
        optimizer.step()


def test_overlapping_strides():
    param = parameter(torch.randn(10).as_strided((3, 3), (2, 1)))
    random_grads([param])
    with pytest.raises(RuntimeError, match="share one address"):
        FusedRMSProp([param]).step()


def test_made_up_gradient():
    class Temporary(torch.nn.Parameter):
        grad = property(lambda self: torch.ones(2))

    with pytest.raises(RuntimeError, match="makes up its grad"):
        FusedRMSProp([Temporary(torch.ones(2))]).step()


def test_numbers_where_there_are_no_names():
    params = parameters([(2,), (2,), (2,)])
    optimizer = FusedRMSProp([dict(params=params[:2]), dict(params=params[2:])])
    random_grads(params)
    sparse(params[2])
    with pytest.raises(RuntimeError, match=r"^params\[2\]\.grad is"):
        optimizer.step()


def test_conjugate_parameter():
    param = parameter(torch.randn(3, dtype=torch.complex64).conj())
    set_grad(param, torch.randn(3, dtype=torch.complex64))
    with pytest.raises(RuntimeError, match="resolve_conj"):
        FusedRMSProp([param]).step()


def test_meta_parameter():
    param = parameter(torch.empty(3, device="meta"))
    optimizer = FusedRMSProp([param])  # as deferred initialisation makes it
    optimizer.step()
    param.grad = torch.empty(3, device="meta")
    with pytest.raises(RuntimeError, match=r"params\[0\] is a meta tensor.*to_empty"):
        optimizer.step()


def test_state_of_another_shape():
    """As pruning leaves it behind."""
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    param.data = param.data[:4].clone()
    param.grad = None
    random_grads([param])
    before = param.detach().clone()
    with pytest.raises(ValueError, match=r"square_avg of params\[0\] has shape \(6,\).*state\.clear"):
        optimizer.step()
    assert torch.equal(param, before)


STEPS = {
    "text": ("3", r"the value '3'"),
    "none": (None, r"the value None"),
    "two": (torch.zeros(2, device="cpu"), r"shape \(2,\)"),
    "complex": (torch.tensor(1j, device="cpu"), "torch.complex64"),
    "without memory": (torch.zeros((), device="meta"), "on meta"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_count_that_is_no_number(step):
    params = parameters([(6,), (2,)])
    optimizer = FusedRMSProp(params)
    random_grads(params)
    optimizer.step()
    value, what = STEPS[step]
    optimizer.state[params[1]]["step"] = value
    before = params[0].detach().clone()
    with pytest.raises(ValueError, match=rf"the step of params\[1\] has .*{what}.*one real number.*state\.clear"):
        optimizer.step()
    assert torch.equal(params[0], before)
    assert optimizer.state[params[0]]["step"] == 1
    with pytest.raises(ValueError, match=r"the step of params\[1\].*one real number"):
        optimizer.prepare()
    if value is not None:
        checkpoint = FusedRMSProp(params).state_dict()
        checkpoint["state"] = {1: dict(square_avg=torch.ones(2, device="cpu"), step=value)}
        with pytest.raises(ValueError, match=rf"the step of params\[1\] has .*{what}.*one real number"):
            optimizer.load_state_dict(checkpoint)


@pytest.mark.parametrize("step", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_count_that_no_parameter_reaches(step, as_tensor):
    params = parameters([(6,), (2,)])
    optimizer = FusedRMSProp(params, bias_correction=True)
    random_grads(params)
    optimizer.step()
    checkpoint = optimizer.state_dict()
    value = torch.tensor(step, device="cpu") if as_tensor else step
    checkpoint["state"][1] = {**checkpoint["state"][1], "step": value}
    before = [param.detach().clone() for param in params]
    message = rf"the step of params\[1\] has the value {step}; it is a finite number >= 0.*state\.clear"
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(checkpoint)
    assert optimizer.state[params[1]]["step"] == 1
    optimizer.state[params[1]]["step"] = value
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert all(map(torch.equal, params, before))
    assert optimizer.state[params[0]]["step"] == 1


def test_text_in_a_state_stays():
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    optimizer.state[param]["origin"] = "imported"
    other = FusedRMSProp([param])
    other.load_state_dict(optimizer.state_dict())
    assert other.state[param]["origin"] == "imported"


def test_a_count_of_pythons_is_shared():
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.step()
    optimizer.state[param]["step"] = 3
    optimizer.share_memory()
    assert optimizer.state[param]["step"].is_shared() or param.is_cuda
    optimizer.step()
    assert optimizer.state[param]["step"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [(torch.Tensor.to_sparse, "torch.sparse_coo"), (lambda value: value.to("meta"), "on meta")],
    ids=["sparse", "meta"],
)
def test_a_state_that_takes_no_values(change, message):
    params = parameters([(6,), (2,)])
    optimizer = FusedRMSProp(params)
    random_grads(params)
    optimizer.step()
    optimizer.state[params[1]]["square_avg"] = change(optimizer.state[params[1]]["square_avg"])
    before = params[0].detach().clone()
    with pytest.raises(ValueError, match=rf"the square_avg of params\[1\] is .*{message}.*state\.clear"):
        optimizer.step()
    assert torch.equal(params[0], before)


def test_a_state_that_is_no_dict():
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    optimizer.state[param] = [1.0]
    with pytest.raises(ValueError, match=r"the state of params\[0\] is \[1\.0\], no dict.*state\.clear"):
        optimizer.step()


@pytest.mark.parametrize("first_step", [True, False], ids=["first step", "later"])
def test_a_parameter_that_is_no_tensor(first_step):
    (param,) = parameters([(6,)])
    optimizer = FusedRMSProp([param])
    random_grads([param])
    if not first_step:
        optimizer.step()
    optimizer.param_groups[0]["params"].append("weight")
    before = param.detach().clone()
    with pytest.raises(TypeError, match=r"parameter group 0 lists 'weight', no tensor: take it out"):
        optimizer.step()
    assert torch.equal(param, before)


@gpu.real  # its tensors take no data of others
@pytest.mark.gpu
def test_gradient_on_another_device():
    param = parameter(torch.randn(3, device=gpu.DEVICE))
    random_grads([param])
    param.data = param.data.cpu()
    with pytest.raises(RuntimeError, match=r"params\[0\]\.grad is on " + str(gpu.DEVICE) + r" but params\[0\] on cpu"):
        FusedRMSProp([param]).step()
