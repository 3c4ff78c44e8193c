"""examples/own_rules.py: each rule beside its paper's code in float64, and beside torch's optimizer where torch has it.

tests/integrations/test_timm.py has timm's beside them.
"""

import ast
import inspect
import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import papers
from cases import F32, F64
from fusedrms.kernels import lang
from papers import MUTATIONS, USED
from sized import Sized, exactly
from tools import copy_grads, exact, parameters, set_grad, twins

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "own_rules.py"
if lang.interpreted():
    pytest.skip("about the Numba driver", allow_module_level=True)
sys.path.append(str(SCRIPT.parent))
own_rules = pytest.importorskip("own_rules")

UNIT = {F32: 2.0**-24, F64: 2.0**-53}
SHAPES = [(33, 5), (), (1025,), (0,), (7,)]
STEPS = 50
SLACK = {F32: 2, F64: 4}  # terms of second order; in float64 the reference rounds too, and numbers are made of several roundings


def rule_of(name: str) -> type[torch.optim.Optimizer]:
    return getattr(own_rules, name)


def many_magnitudes(params) -> None:
    """From below every epsilon here to far above, of either sign, and some zeros."""
    for param in params:
        grad = torch.randn(param.shape, dtype=F64) * 10.0 ** torch.randint(-9, 4, param.shape)
        set_grad(param, (grad * (torch.rand(param.shape) > 0.05)).to(param.dtype))


def flat(tensors) -> np.ndarray:
    return np.concatenate([exact(tensor).ravel() for tensor in tensors])


class Course:
    """What a rule has made of 50 random gradients: parameters and states before and after each step."""

    def __init__(self, name: str, dtype: torch.dtype):
        self.name, self.dtype, self.options = name, dtype, USED[name][1]
        torch.manual_seed(0)
        params = parameters(SHAPES, dtype=dtype)
        optimizer = rule_of(name)(params, **self.options)
        states = optimizer.kinds
        own = {key: value for key, value in optimizer.param_groups[0].items() if key in inspect.signature(USED[name][0]).parameters}
        self.arguments = own
        zeros = {state: np.zeros(flat(params).size) for state in states}
        self.points, self.grads = [(flat(params), zeros)], []
        for _ in range(STEPS):
            many_magnitudes(params)
            self.grads.append(flat([param.grad for param in params]))
            optimizer.step()
            self.points.append((flat(params), {state: flat(optimizer.state[param][state] for param in params) for state in states}))

    def worst(self, reference, whole: bool) -> float:
        """The largest error, of what may be; whole: of all steps in a row, not of each from where the last one has ended."""
        unit, worst = UNIT[self.dtype], 0.0
        p, s = self.points[0]
        at = exactly(p), {name: exactly(value) for name, value in s.items()}
        for t, grad in enumerate(self.grads, 1):
            if not whole:
                p, s = self.points[t - 1]
                at = exactly(p), {name: exactly(value) for name, value in s.items()}
            at = reference(at[0], exactly(grad), at[1], t, unit, **self.arguments)
            p, s = self.points[t]
            for found, right in ((p, at[0]), *((s[name], at[1][name]) for name in s)):
                worst = max(worst, _over(found, right, SLACK[self.dtype] * unit))
        return worst


def _over(found: np.ndarray, right: Sized, unit: float) -> float:
    error = np.abs(found - right.value)
    return float(np.max(np.divide(error, unit * right.error, out=np.where(error > 0, np.inf, 0.0), where=right.error > 0)))


@pytest.fixture(scope="module")
def courses():
    found = {}

    def course(name: str, dtype: torch.dtype) -> Course:
        if (name, dtype) not in found:
            found[name, dtype] = Course(name, dtype)
        return found[name, dtype]

    return course


@pytest.mark.parametrize("name", USED)
def test_short(name):
    """A rule is what its paper has, in 12 lines at most."""
    lines, _ = inspect.getsourcelines(rule_of(name).declared.function)
    assert len(lines) <= 12
    assert lines[0].startswith("@fusedrms.rule(")
    (function,) = ast.parse(textwrap.dedent("".join(lines))).body
    assert ast.get_docstring(function).count("\n") == 0


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", USED)
def test_as_the_paper(name, dtype, courses):
    """Each step from where the last one has ended, and all of them in a row."""
    course = courses(name, dtype)
    assert course.worst(USED[name][0], whole=False) <= 1
    assert course.worst(USED[name][0], whole=True) <= 1


@pytest.mark.parametrize(("name", "k"), [(name, k) for name, changes in MUTATIONS.items() for k in range(len(changes))])
def test_another_rule_is_seen(name, k, courses):
    """What a rule could have wrong is at least ten times as far away as rounding may be."""
    reference, (old, new) = USED[name][0], MUTATIONS[name][k]
    source = inspect.getsource(reference)
    assert old in source
    scope = dict(vars(papers))
    exec(source.replace(old, new), scope)
    assert max(courses(name, dtype).worst(scope[reference.__name__], whole=False) for dtype in (F32, F64)) > 10


TORCHS = {"AdamW": torch.optim.AdamW, "Adagrad": torch.optim.Adagrad}


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", TORCHS)
def test_as_torchs(name, dtype, courses):
    """torch's own is as far from the reference as rounding may bring it."""
    course = courses(name, dtype)
    torch.manual_seed(0)
    params = parameters(SHAPES, dtype=dtype)
    theirs = TORCHS[name](params, **course.arguments, foreach=False)
    reference, unit = USED[name][0], UNIT[dtype]
    p, s = course.points[0]
    at = exactly(p), {state: exactly(value) for state, value in s.items()}
    for t in range(1, STEPS + 1):
        many_magnitudes(params)
        at = reference(at[0], exactly(flat([param.grad for param in params])), at[1], t, unit, **course.arguments)
        theirs.step()
        assert _over(flat(params), at[0], SLACK[dtype] * unit) <= 1
        assert _over(course.points[t][0], at[0], SLACK[dtype] * unit) <= 1


@pytest.mark.parametrize("name", TORCHS)
def test_torchs_checkpoint(name):
    """Its states and options load under their names, and both go on alike."""
    ours = parameters([(33, 5), (7,)])
    theirs = twins(ours)
    options = dict(betas=(0.8, 0.95)) if name == "AdamW" else dict(lr_decay=0.1)
    trained, optimizer = TORCHS[name](theirs, lr=1e-2, **options), rule_of(name)(ours, lr=1e-3)
    for step in range(6):
        if step == 3:
            optimizer.load_state_dict(trained.state_dict())
            for p, q in zip(ours, theirs, strict=True):
                p.data.copy_(q.data)
        many_magnitudes(theirs)
        if step >= 3:
            copy_grads(theirs, ours)
            optimizer.step()
        trained.step()
    assert {key: optimizer.param_groups[0][key] for key in options} == options
    assert optimizer.param_groups[0]["lr"] == 1e-2
    for p, q in zip(ours, theirs, strict=True):
        assert optimizer.state[p]["step"] == trained.state[q]["step"] == 6
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
        for state in optimizer.kinds:
            torch.testing.assert_close(optimizer.state[p][state], trained.state[q][state], rtol=1e-5, atol=0)


def test_one_cycle():
    """A schedule that cycles torch's betas finds them, and both optimizers go on alike."""
    ours = parameters([(33,)], dtype=F64)
    theirs = twins(ours)
    optimizers = own_rules.AdamW(ours), torch.optim.AdamW(theirs)
    schedules = [torch.optim.lr_scheduler.OneCycleLR(each, max_lr=0.1, total_steps=12) for each in optimizers]
    for _ in range(10):
        many_magnitudes(ours)
        copy_grads(ours, theirs)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        a, b = (optimizer.param_groups[0] for optimizer in optimizers)
        assert (a["lr"], a["betas"]) == (b["lr"], b["betas"])
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", TORCHS)
def test_defaults_are_torchs(name):
    def defaults(cls) -> dict:
        return {key: one.default for key, one in inspect.signature(cls).parameters.items()}

    ours, theirs = defaults(rule_of(name)), defaults(TORCHS[name])
    shared = ("params", "differentiable", "capturable", "foreach", "maximize")
    theirs = {key: value for key, value in theirs.items() if key not in ("amsgrad", "fused", *shared)}
    assert {key: ours[key] for key in theirs} == theirs
    assert bool(ours["decoupled_weight_decay"]) == (name == "AdamW")


def test_adans_proximal_decay():
    """As timm's and Adan's own default: p = (p - lr * u) / (1 + lr * weight_decay)."""
    lr, decay = 0.1, 0.5
    a = parameters([(33,)], dtype=F64)
    b = twins(a)
    ours, plain = own_rules.Adan(a, lr=lr / (1 + lr * decay), weight_decay=decay), own_rules.Adan(b, lr=lr)
    for _ in range(5):
        many_magnitudes(a)
        copy_grads(a, b)
        ours.step()
        plain.step()
        b[0].data /= 1 + lr * decay
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-15)


def test_script():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    ended = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=300, env=environment)
    assert ended.returncode == 0, ended.stderr
    for name in USED:
        (line,) = (line for line in ended.stdout.splitlines() if name in line)
        _, _, before, after, _ = line.replace("│", " ").split()
        assert float(after) < float(before) / 5
