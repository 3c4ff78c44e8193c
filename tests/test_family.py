"""Which presets are the same by default, and what docs/family.md says of two variants of a rule."""

import itertools
import math
import sys

import pytest
import torch

from fusedrms import FusedRMSProp, presets
from fusedrms.kernels import lang
from fusedrms.presets.preset import Preset
from tools import parameter, refused, stepped

groups = pytest.importorskip("bench.studies.family.groups")
study = pytest.importorskip("bench.studies.family.__main__")
table = pytest.importorskip("bench.studies.family.table")
store = pytest.importorskip("bench.common.store")
arguments = pytest.importorskip("bench.common.arguments")

pytestmark = pytest.mark.skipif(lang.interpreted(), reason="the rules run there in other tests")

F64 = torch.float64
PLACES = "outside", "inside", "floor"


def run(grads, optimizer=FusedRMSProp, start=1.0, dtype=torch.float32, **options):
    """What a parameter is after each gradient."""
    param = parameter(torch.full_like(grads[0], start, dtype=dtype))
    optimizer = optimizer([param], **options)
    values = []
    for grad in grads:
        param.grad = grad.to(dtype)
        optimizer.step()
        values.append(param.detach().clone())
    return torch.stack(values)


def steps(grads, **options):
    """How far it went each time, in float64, from 0 on."""
    return -run(grads, start=0.0, dtype=F64, **options).diff(dim=0, prepend=torch.zeros(1, len(grads[0]), dtype=F64))


def first(grad, **options):
    """The first step, of a square average that forgets all else: v = g²."""
    return steps([grad], alpha=0.0, lr=1.0, **options)[0]


@pytest.fixture
def grads():
    return [torch.randn(1000) for _ in range(20)]


def test_groups():
    found = groups.equal_by_default()
    assert sorted(itertools.chain(*found)) == sorted(study.PRESETS)
    for group in (
        ["chainer_rmsprop_graves", "graves2013", "puzzlelib_rmsprop_graves", "theano_rmsprop"],
        ["chainer_smorms3", "puzzlelib_smorms3"],
        ["dqn2015"],
    ):
        assert group in found
    assert {"torch_rmsprop", "torch7_rmsprop", "mlx_rmsprop"} <= set(next(group for group in found if "torch_rmsprop" in group))
    same = groups.alike(dict(a=("1", "2"), c=("1", "3"), d=("1", "2")), [["a", "b"], ["c"], ["d"]])
    assert same == [[["a", "b"], ["d"]], [["c"]]]
    assert min((name for group in found for name in group), key=groups.kinship) == "torch_rmsprop"


def test_the_results_are_of_all_presets_as_they_are():
    """`python -m bench.studies.family` makes them anew."""
    results = store.load(arguments.RESULTS / "family.json")
    assert sorted(names for group in results["groups"] for names in group["presets"]) == groups.equal_by_default()
    for group in results["groups"]:
        for key in table.ABOUT:
            assert group[key] == "; ".join(dict.fromkeys(groups.about(names[0])[key] for names in group["presets"]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--seeds 0", "--seeds 0: must be at least 1"),
        ("--seeds x", "invalid int"),
        ("--output {file}", "name a directory that can be written"),
    ],
)
def test_wrong_arguments(given, said, monkeypatch, capsys, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("gymnasium")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["family", *given.format(file=tmp_path / "file").split()])
    refused(lambda _: study.main(), "", said, capsys)


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["family"])
    monkeypatch.setitem(sys.modules, "sklearn", None)
    refused(lambda _: study.main(), "", "not installed; pip install -c constraints.txt", capsys)


def test_what_diverged_is_said():
    values = [1.0, None, 3.0]
    assert table.median(values) is None
    assert table.median([1.0, 2.0, 9.0]) == 2
    assert table._ratio(values, [1.0, 1.0, 1.0]) == table._difference(values, [1.0, 1.0, 1.0]) == "diverged"
    assert table._ratio([1.0, 2.0, 9.0], [1.0, 4.0, 3.0]) == "2 (1×)"
    assert study.figures([study.Result(dict(a=math.nan), ""), study.Result(dict(a=0.123456), "")]) == dict(a=[None, 0.12346])


def test_eps_inside_and_outside():
    """The root of eps outside makes 0.71 to 1 times the steps of eps inside; the same number does not."""
    grad = torch.cat([torch.logspace(-8, 8, 200, dtype=F64), torch.tensor([0.1], dtype=F64).sqrt()])
    cases = (0.1, "inside"), (0.1**0.5, "outside"), (0.1, "outside")
    inside, outside, same = (first(grad, eps=eps, eps_placement=place) for eps, place in cases)
    ratio = outside / inside
    assert ratio.max() <= 1 + 1e-12
    assert ratio.min() >= 0.5**0.5 - 1e-12
    assert ratio[[0, -1]].tolist() == pytest.approx([1, 0.5**0.5], rel=1e-6)
    assert (same / inside)[0].item() == pytest.approx(0.1**-0.5, rel=1e-6)
    floor = first(grad, eps=0.1, eps_placement="floor")
    assert ((same / floor >= 0.5 - 1e-12) & (same / floor <= 1 + 1e-12)).all()


@pytest.mark.parametrize("centered", [False, True])
def test_lr_inside_and_outside_of_the_momentum(centered, grads):
    options = dict(momentum=0.9, centered=centered, lr=2.0**-7)
    assert torch.equal(run(grads, start=0.0, **options), run(grads, start=0.0, lr_in_momentum=True, **options))


def test_a_changed_lr():
    """Outside it counts at once; inside the old one goes with momentum**t."""
    for inside in (False, True):
        param = parameter(torch.zeros(1, dtype=F64))
        optimizer = FusedRMSProp([param], lr=1.0, alpha=0.0, eps=0, momentum=0.9, lr_in_momentum=inside)
        for n in range(410):
            before = param.item()
            optimizer.param_groups[0]["lr"] = 1.0 if n < 400 else 0.1
            param.grad = torch.ones_like(param)
            optimizer.step()
        expected = 0.1 + (0.9 * 0.9**10 if inside else 0)  # of a step with the old rate, 1 / (1 - 0.9)
        assert (before - param.item()) * (1 - 0.9) == pytest.approx(expected, rel=1e-9)


def test_start():
    """alpha**t of the start is left after t steps; from 0 the first step is lr / sqrt(1 - alpha), corrected lr."""
    for alpha, n, most in ((0.9, 44, 3.17), (0.95, 90, 4.48), (0.99, 459, 10.01)):
        assert alpha**n < 0.01 < alpha ** (n - 1)
        optimizer, param = stepped(torch.zeros(1, dtype=F64), 0.0, alpha=alpha, initial_square_avg=1.0)
        for _ in range(n - 1):
            optimizer.step()
        assert optimizer.state[param]["square_avg"].item() == pytest.approx(alpha**n, rel=1e-9)
        grad = torch.tensor([-0.01, 0.003])
        zero, corrected, one = (
            steps([grad], lr=1.0, alpha=alpha, eps=0, **options)[0]
            for options in ({}, dict(bias_correction=True), dict(initial_square_avg=1.0))
        )
        assert zero.abs().tolist() == pytest.approx([(1 - alpha) ** -0.5] * 2, rel=1e-9)
        assert zero.abs().max() < most
        assert corrected.tolist() == pytest.approx([-1, 1], rel=1e-9)
        assert one.tolist() == pytest.approx([g / (alpha + (1 - alpha) * g * g) ** 0.5 for g in grad.double().tolist()], rel=1e-9)


def test_filled_with_the_start(grads):
    """What another framework's user does who needs a start of 1."""
    param = parameter(torch.ones(1000, dtype=F64))
    theirs = torch.optim.RMSprop([param])
    theirs.state[param] = dict(step=torch.tensor(0.0), square_avg=torch.ones_like(param))
    ours = run(grads, dtype=F64, initial_square_avg=1.0)
    for grad, expected in zip(grads, ours, strict=True):
        param.grad = grad.double()
        theirs.step()
        torch.testing.assert_close(param.detach(), expected, rtol=1e-12, atol=1e-14)


def test_what_alpha_does_is_mostly_its_start():
    """On the quadratic a smaller alpha has the higher loss; without the start less than half of that is left."""
    problems = pytest.importorskip("bench.studies.family.problems")

    def loss(alpha, corrected):
        preset = Preset(lambda params: FusedRMSProp(params, alpha=alpha, bias_correction=corrected), FusedRMSProp, "", "")
        results = [problems.run_quadratic(preset, 0.01, seed) for seed in range(5)]
        return table.median([result.figures["quadratic"] for result in results])

    more, corrected = (loss(0.9, also) / loss(0.99, also) - 1 for also in (False, True))
    assert 0 < corrected < more / 2


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_sums_and_means(place, centered, grads):
    """Gradients n times as large: eps n**2 times inside, n times outside; weight decay and limits n times."""
    options = dict(centered=centered, eps_placement=place)
    means = run(grads, eps=0.05, weight_decay=0.01, clip_grad_value=1.0, **options)
    eps = 0.05 * (32**2 if place == "inside" else 32)
    sums = [32 * grad for grad in grads]
    assert torch.equal(means, run(sums, eps=eps, weight_decay=0.32, clip_grad_value=32.0, **options))
    assert torch.equal(means, run(sums, eps=0.05, weight_decay=0.01, clip_grad_value=1.0, rescale_grad=1 / 32, **options))
    assert not torch.equal(means, run(sums, eps=0.05, weight_decay=0.32, clip_grad_value=32.0, **options))


def test_dqn(grads):
    """The published code multiplies by 32 what dqn_zoo leaves a mean."""
    ours = run(grads, presets.dqn2015, lr=0.01)
    assert torch.equal(ours, run(grads, presets.dqn_zoo, learning_rate=0.01))
    assert torch.equal(ours, run([32 * grad for grad in grads], presets.dqn2015, lr=0.01, minibatch_size=1))


def test_scale_without_eps(grads):
    """What multiplies all gradients by the same cancels; so does the value of a limit that each exceeds."""
    assert torch.equal(run(grads, eps=0), run(grads, eps=0, rescale_grad=2.0**-5))
    assert torch.equal(run(grads, eps=0, clip_grad_norm=1.0), run(grads, eps=0, clip_grad_norm=2.0**-5))


def test_l2_and_decoupled():
    """Without a gradient decoupled decay is a factor, the size of an L2 penalty hardly matters."""
    zeros = [torch.zeros(1, dtype=F64)] * 10
    decoupled = run(zeros, dtype=F64, lr=0.1, weight_decay=0.01, decoupled_weight_decay=True)
    assert decoupled.flatten().tolist() == pytest.approx([(1 - 0.1 * 0.01) ** t for t in range(1, 11)], rel=1e-12)
    for decay in (1e-2, 1e-4):
        found = run(zeros[:1], dtype=F64, lr=0.01, weight_decay=decay)
        assert 1 - found.item() == pytest.approx(0.01 / (1 - 0.99) ** 0.5, rel=1e-8 / (0.1 * decay))


def test_order_of_clipping(grads):
    """It matters where there is an L2 penalty, and a value above the limit."""
    runs = {
        (decay, limit): [run(grads, weight_decay=decay, clip_grad_value=limit, clip_after_decay=after) for after in (False, True)]
        for decay in (0.0, 0.1)
        for limit in (1.0, 100.0)
    }
    same = {case: torch.equal(*both) for case, both in runs.items()}
    assert same == {(0.0, 1.0): True, (0.0, 100.0): True, (0.1, 1.0): False, (0.1, 100.0): True}


def test_momentum():
    """In the long run it makes 1 / (1 - momentum) times the step."""
    grads = [torch.ones(1)] * 3000
    plain, with_momentum = (steps(grads, momentum=momentum)[-1].item() for momentum in (0, 0.9))
    assert with_momentum / plain == pytest.approx(10, rel=1e-9)


def test_centered():
    """A gradient that stays makes the variance 0; eps alone limits the step then, which torch's rounding can make NaN."""
    grad = torch.randn(4096)
    centered = dict(alpha=0.5, centered=True)
    inside, outside = (
        steps([grad.double()] * 100, lr=1.0, eps=0.01, eps_placement=place, **centered)[-1] for place in ("inside", "outside")
    )
    torch.testing.assert_close(inside, grad.double() / 0.1, rtol=1e-6, atol=0)
    torch.testing.assert_close(outside, grad.double() / 0.01, rtol=1e-4, atol=0)
    assert run([grad] * 60, **centered).isfinite().all()
    assert run([grad] * 60, torch.optim.RMSprop, **centered).isnan().any()
