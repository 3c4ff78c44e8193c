"""timm: create_optimizer_v2 with our names, beside its own."""

import builtins
import copy
import inspect
import pathlib
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from timm.optim import AdaBelief, Adan, Lion, create_optimizer, create_optimizer_v2, list_optimizers
from timm.optim.rmsprop_tf import RMSpropTF
from timm.scheduler import CosineLRScheduler

import fusedrms.presets
import fusedrms.timm
from pages import distance, run, values
from test_docs import run_blocks

sys.path.append(str(pathlib.Path(__file__).parents[2] / "examples"))
import own_rules

pytestmark = pytest.mark.filterwarnings("default")  # timm's own are its
STEPS = 6
BOUND = STEPS * 2**-22  # weights below 2, a few roundings a step
PAIRS = {"fusedrmsprop": "rmsprop", "fusedrmsproptf": "rmsproptf", "fusedrmsproptfw": "rmsproptfw"}


@pytest.fixture(autouse=True)
def _registered():
    fusedrms.timm.register()


def tiny() -> torch.nn.Sequential:
    """With what timm's groups tell apart: layers, biases, weights of one dimension.

    A bias before the norm would have a gradient of rounding.
    """
    torch.manual_seed(1)
    stem = torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4)
    model = torch.nn.Sequential(*stem, torch.nn.Flatten(), torch.nn.Linear(144, 8), torch.nn.GELU(), torch.nn.Linear(8, 4))
    model.pretrained_cfg = dict(classifier="5")
    model.group_matcher = lambda coarse: dict(stem=r"^[01]\.", blocks=r"^(\d+)\.")
    return model


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(STEPS)]


def trained(make: Callable[[torch.nn.Module], torch.optim.Optimizer]) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """With timm's schedule, which multiplies the rate of each group by its lr_scale."""
    model = tiny()
    optimizer = make(model)
    schedule = CosineLRScheduler(optimizer, t_initial=STEPS, warmup_t=2, warmup_lr_init=1e-3)
    for k, inputs in enumerate(batches()):
        torch.nn.functional.cross_entropy(model(inputs), torch.arange(8) % 4).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step(k + 1)
    return model, optimizer


def test_page():
    model = tiny()
    names = run("timm", model=model)
    options = names["optimizer"].param_groups[1]
    assert (options["lr"], options["weight_decay"], options["momentum"], options["alpha"]) == (1e-2, 1e-4, 0.9, 0.9)
    assert (options["state_dtype"], options["initial_square_avg"], options["eps_placement"]) == (torch.bfloat16, 1.0, "inside")
    assert names["optimizer"].param_groups[0]["weight_decay"] == 0
    assert set(PAIRS) <= set(list_optimizers("fused*"))


def test_another_call_changes_nothing(caplog):
    assert set(fusedrms.timm.register()) >= set(PAIRS)
    assert not caplog.records


@pytest.mark.parametrize(("ours", "theirs"), PAIRS.items())
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(layer_decay=0.6),
        dict(layer_decay=0.6, layer_decay_min_scale=0.4, momentum=0.5, eps=1e-3, alpha=0.8),
        dict(filter_bias_and_bn=False, momentum=0.0, foreach=False),
        dict(centered=True, eps=1e-2),
    ],
    ids=str,
)
def test_as_timm(ours, theirs, options):
    """Groups without decay, layers with rates of their own, options: all arrive as with timm's own."""
    given = {**dict(lr=1e-2, weight_decay=0.05), **options}
    model, optimizer = trained(lambda model: create_optimizer_v2(model, ours, **given))
    other, reference = trained(lambda model: create_optimizer_v2(model, theirs, **given))
    assert type(optimizer) is fusedrms.FusedRMSProp
    assert distance(model, other) < BOUND
    assert distance(model, tiny()) > 100 * BOUND
    for group, expected in zip(optimizer.param_groups, reference.param_groups, strict=True):
        for name in group.keys() & expected.keys() - {"params", "foreach", "max_lr_snapshot"}:
            assert group[name] == expected[name], name


def test_arguments():
    """The preset has timm's, in its order, with its defaults."""
    ours, theirs = (
        [(name, parameter.default) for name, parameter in inspect.signature(optimizer).parameters.items()]
        for optimizer in (fusedrms.presets.timm_rmsprop_tf, RMSpropTF)
    )
    assert ours == theirs


@pytest.mark.parametrize(
    "given",
    [
        dict(caution=True),
        dict(caution=True, lr_in_momentum=False, centered=True, eps=1e-2),
        dict(decoupled_decay=True, corrected_weight_decay=True),
        dict(decoupled_decay=True, corrected_weight_decay=True, caution=True, foreach=False),
        dict(corrected_weight_decay=True, caution=True, momentum=0.0),  # neither has an effect then
    ],
    ids=str,
)
def test_caution_and_corrected_decay(given):
    """Under a schedule, by which timm's corrected decay is relative to the rate that the optimizer was made with."""
    given = {**dict(lr=1e-2, momentum=0.9, weight_decay=0.5), **given}
    model, _ = trained(lambda model: fusedrms.presets.timm_rmsprop_tf(model.parameters(), **given))
    other, _ = trained(lambda model: RMSpropTF(model.parameters(), **given))
    assert distance(model, other) < 4 * BOUND  # a mask divides, and weights decay by much
    assert distance(model, tiny()) > 100 * BOUND


@pytest.mark.parametrize("own", [dict(caution=True), dict(decoupled_weight_decay=True, corrected_weight_decay=True)], ids=str)
def test_options_through_the_registry(own):
    _, optimizer = trained(lambda model: create_optimizer_v2(model, "fusedrmsproptf", lr=1e-2, weight_decay=0.05, **own))
    assert all(group[name] == value for group in optimizer.param_groups for name, value in own.items())


def test_lookahead():
    """timm writes its own keys into groups and states, of which one changes at each step."""
    model, optimizer = trained(lambda model: create_optimizer_v2(model, "lookahead_fusedrmsproptf", lr=1e-2))
    other, _ = trained(lambda model: create_optimizer_v2(model, "lookahead_rmsproptf", lr=1e-2))
    assert optimizer.param_groups[0]["lookahead_step"] == STEPS
    assert distance(model, other) < BOUND


@pytest.mark.parametrize(("name", "cls"), [("fusedrmspropgraves", fusedrms.FusedRMSPropGraves), ("fusedsmorms3", fusedrms.FusedSMORMS3)])
def test_classes(name, cls):
    given = dict(lr=1e-3, eps=1e-5)
    model, optimizer = trained(lambda model: create_optimizer_v2(model, name, **given))
    other, _ = trained(lambda model: cls(model.parameters(), **given))
    assert type(optimizer) is cls
    assert torch.equal(values(model), values(other))


def test_arguments_of_a_script():
    """opt_eps and opt_args, as timm's train.py has them from its command line; a rate that is not given."""
    given = SimpleNamespace(opt="fusedrmsproptf", lr=None, weight_decay=1e-5, momentum=0.8, opt_eps=1e-3, opt_args=dict(clip_grad_norm=1.0))
    (group, _) = create_optimizer(given, tiny()).param_groups
    assert (group["lr"], group["momentum"], group["eps"], group["clip_grad_norm"], group["alpha"]) == (1e-2, 0.8, 1e-3, 1.0, 0.9)


@pytest.mark.filterwarnings("error:parameter group")
@pytest.mark.parametrize("name", ["rmsproptf", "rmsproptfw"])
def test_resume(name):
    """A checkpoint goes from timm's to ours, with how weights decay, and the run goes on as it would."""
    first, theirs = trained(lambda model: create_optimizer_v2(model, name, lr=1e-2, weight_decay=0.05))
    second = tiny()
    second.load_state_dict(first.state_dict())
    ours = create_optimizer_v2(second, "fusedrmsproptf", lr=1e-2, weight_decay=0.05)
    ours.load_state_dict(theirs.state_dict())
    for model, optimizer in (first, theirs), (second, ours):
        for inputs in batches():
            model(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert distance(first, second) < 2 * BOUND


@pytest.mark.parametrize("own", [dict(), dict(decoupled_decay=True), dict(lr_in_momentum=False)], ids=str)
def test_there_and_back(own):
    """From timm's own optimizer into the preset and from that into another of timm's: all go on alike."""
    given = dict(lr=1e-2, momentum=0.9, weight_decay=0.05)
    first, theirs = trained(lambda model: RMSpropTF(model.parameters(), **given, **own))
    second, third = tiny(), tiny()
    ours = fusedrms.presets.timm_rmsprop_tf(second.parameters())
    back = RMSpropTF(third.parameters())
    second.load_state_dict(first.state_dict())
    third.load_state_dict(first.state_dict())
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    back.load_state_dict(copy.deepcopy(run_blocks("docs/migrating.md")["to_timm"](ours.state_dict())))
    for model, optimizer in (first, theirs), (second, ours), (third, back):
        for inputs in batches():
            model(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert distance(first, second) < 2 * BOUND
    assert distance(first, third) < 2 * BOUND


def test_without_timm(monkeypatch):
    imported = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("timm"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"install timm 1\.0\.12 or later"):
        fusedrms.timm.register()


OWN = {
    "Lion": (Lion, {}, {}),
    "AdaBelief": (AdaBelief, {}, dict(rectify=False)),
    "Adan": (Adan, {}, dict(no_prox=True)),
    "Adan, proximal": (Adan, dict(lr=1e-2 / (1 + 1e-2 * 0.5)), {}),
}


@pytest.mark.parametrize("case", OWN)
def test_own_rules(case):
    """Those of examples/own_rules.py, in float64, with gradients of many magnitudes."""
    theirs, ours, more = OWN[case]
    given = dict(lr=1e-2, weight_decay=0.5)
    params, others = ([torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)) for shape in ((33, 5), (), (7,))] for _ in range(2))
    optimizers = getattr(own_rules, theirs.__name__)(params, **given | ours), theirs(others, **given, **more)
    for _ in range(50):
        for param, other in zip(params, others, strict=True):
            param.grad = torch.randn(param.shape, dtype=torch.float64) * 10.0 ** torch.randint(-6, 3, param.shape)
            other.grad = param.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(params, others, rtol=1e-11, atol=1e-12)
