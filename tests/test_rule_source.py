"""Rules that users write, traced: the text of their source, the host's numbers, and that both are the same in every process."""

import inspect
import linecache
import math
import pickle
import re

import numpy as np
import pytest
import torch
from numba.core import types as nt

from fusedrms.kernels.cpu.language import compile_rule
from fusedrms.rules.source import function_of
from fusedrms.rules.tracing import Traced, trace
from test_rule_tracing import traced
from traced_rules import BETAS, CASES

ADAMW = """\
(grad, param, state, lr, n):
    (old_exp_avg, old_exp_avg_sq) = state
    (n_number_0, n_beta1, n_number_2, n_beta2, n_number_4, n_eps, n_number_6) = n
    v2 = n_number_0 * grad
    new_exp_avg = tl.fma(n_beta1, old_exp_avg, v2)
    v4 = n_number_2 * grad
    v5 = v4 * grad
    new_exp_avg_sq = tl.fma(n_beta2, old_exp_avg_sq, v5)
    v7 = new_exp_avg_sq * n_number_4
    v8 = tl.sqrt(v7)
    v9 = v8 + n_eps
    v10 = lr * n_number_6
    v11 = v10 * new_exp_avg
    update = quotient(v11, v9)
    return update, (new_exp_avg, new_exp_avg_sq)
"""


def lines(update, static=None, **numbers) -> str:
    """The assignments of a rule with the states s and v, of which v is never negative, with short names; states are kept."""
    made = trace(
        lambda grad, param, state, lr, n: (update(grad, param, state, lr, n), state.replace(s=state.s, v=state.v)),
        name="rule",
        states=["s", "v"],
        numbers=dict(k=False, eps=True, **numbers),
        static=static,
        nonnegative_states=["v"],
    )
    text = [line.strip() for line in made.source.splitlines() if " = " in line and not line.endswith((" = n", " = state"))]
    return "; ".join(re.sub(r"\b(old|n)_", "", line) for line in text)


# the update, and what becomes of it
FUSED = {
    "product first": (lambda g, p, s, lr, n: g * p + s.s, "update = tl.fma(grad, param, s)"),
    "product last": (lambda g, p, s, lr, n: s.s + g * p, "update = tl.fma(grad, param, s)"),
    "two products": (lambda g, p, s, lr, n: g * p + s.s * s.v, "v2 = s * v; update = tl.fma(grad, param, v2)"),
    "minus": (lambda g, p, s, lr, n: g * p - s.s, "v1 = s * -1.0; update = tl.fma(grad, param, v1)"),
    "minus an option": (lambda g, p, s, lr, n: g * p - n.k, "update = tl.fma(grad, param, number_0)"),
    "from": (lambda g, p, s, lr, n: s.s - g * p, "v1 = grad * -1.0; update = tl.fma(v1, param, s)"),
    "from, by an option": (lambda g, p, s, lr, n: s.s - g * n.k, "update = tl.fma(grad, number_0, s)"),
    "from, by a literal": (lambda g, p, s, lr, n: s.s - 2 * g, "update = tl.fma(grad, -2.0, s)"),
    "literal first": (lambda g, p, s, lr, n: 2 * g + s.s, "update = tl.fma(grad, 2.0, s)"),
    "of an option": (lambda g, p, s, lr, n: n.k * g + 1, "update = tl.fma(k, grad, 1.0)"),
    "negative product": (lambda g, p, s, lr, n: s.s - -(g * p), "update = tl.fma(grad, param, s)"),
    "of lr": (lambda g, p, s, lr, n: lr * n.k + g, "update = tl.fma(lr, k, grad)"),
    "twice negative": (lambda g, p, s, lr, n: torch.neg(-g) + p, "update = grad + param"),
    "common": (lambda g, p, s, lr, n: torch.sqrt(g + p) * torch.sqrt(g + p), "v1 = grad + param; v2 = tl.sqrt(v1); update = v2 * v2"),
    "as written": (lambda g, p, s, lr, n: (1 - n.k) * g * n.eps, "v2 = number_0 * grad; update = v2 * eps"),
    "by an option": (lambda g, p, s, lr, n: g / n.k, "update = grad * number_0"),
    "by a literal": (lambda g, p, s, lr, n: g / 4, "update = grad * 0.25"),
    "by any": (lambda g, p, s, lr, n: g / p, "update = grad / param"),
    "by a root": (lambda g, p, s, lr, n: g / (s.s.sqrt() + n.eps), "v2 = tl.sqrt(s); v3 = v2 + eps; update = quotient(grad, v3)"),
    "by a root less": (lambda g, p, s, lr, n: g / (s.s.sqrt() - n.eps), "v2 = tl.sqrt(s); v3 = v2 - eps; update = grad / v3"),
    "by a state": (lambda g, p, s, lr, n: g / s.v, "update = quotient(grad, v)"),
    "by a square": (lambda g, p, s, lr, n: 1 / g**2, "v1 = grad * grad; update = quotient(1.0, v1)"),
    "cube": (lambda g, p, s, lr, n: g**3, "v1 = grad * grad; update = grad * v1"),
    "fourth": (lambda g, p, s, lr, n: g**4, "v1 = grad * grad; update = v1 * v1"),
    "root": (lambda g, p, s, lr, n: g**0.5, "update = tl.sqrt(grad)"),
    "infinite": (lambda g, p, s, lr, n: torch.clamp(g, max=math.inf), "update = smaller(grad, INFINITY)"),
    "where not": (lambda g, p, s, lr, n: torch.where(~(g > 0), p, g), "v1 = grad > 0.0; update = tl.where(v1, grad, param)"),
    "where literals": (
        lambda g, p, s, lr, n: torch.where(g > 0, 1, 2),
        "t = grad > 0.0; t = like(grad, 1.0); update = tl.where(t, t, 2.0)",
    ),
    "where an option": (lambda g, p, s, lr, n: torch.where(n.k > 1, p, g), "v1 = number_0 != 0.0; update = tl.where(v1, param, grad)"),
    "host's alone": (lambda g, p, s, lr, n: g * torch.where(n.k > 1, n.k, n.eps).clamp(max=1).sqrt(), "update = grad * number_0"),
    "literals alone": (lambda g, p, s, lr, n: g * (torch.zeros_like(g) + 2).sqrt().mul(0.5), f"update = grad * {math.sqrt(2) / 2!r}"),
    "unused": (lambda g, p, s, lr, n: [g * p, torch.sqrt(g), g + p][2], "update = grad + param"),
    "numpy": (lambda g, p, s, lr, n: np.float32(0.5) * np.sqrt(g) + np.array(2), "v1 = tl.sqrt(grad); update = tl.fma(v1, 0.5, 2.0)"),
    "static": (lambda g, p, s, lr, n: g + p if n.nesterov and n.mode == "a" else g, "update = grad + param"),
}


@pytest.mark.parametrize("name", FUSED)
def test_arithmetic(name):
    update, text = FUSED[name]
    found = lines(update, static=dict(nesterov=True, mode="a"))
    numbered = lambda line: re.sub(r"\b(v\d+|t)\b", "t", line)  # noqa: E731 - which number it is says nothing
    assert numbered(found) == numbered(text)


def test_adamw():
    made = traced(CASES["adamw"])
    assert made.source == f"def {made.name}{ADAMW}"
    assert re.fullmatch(r"adamw_[0-9a-f]{12}", made.name)
    assert made.numbers == ("number_0", "beta1", "number_2", "beta2", "number_4", "eps", "number_6")
    assert made.per_step == ("number_4", "number_6")


@pytest.mark.parametrize("name", CASES)
def test_same_again(name):
    made = traced(CASES[name])
    assert made == traced(CASES[name])
    made.static_numbers, made.numbers_at  # noqa: B018 - functions, which a pickle leaves out
    loaded = pickle.loads(pickle.dumps(made))
    assert loaded == made
    assert loaded.static_numbers(CASES[name].numbers) == pytest.approx(made.static_numbers(CASES[name].numbers), nan_ok=True)


def test_names_of_the_users_own():
    """Whatever they are, they meet no other name."""
    states = ["v0", "grad", "lr", "tl", "n", "update", "quotient", "new_v0", "class"]
    numbers = ["number_0", "v1", "state", "old_v0"]

    def rule(grad, param, state, lr, n):
        changed = {name: getattr(state, name) + n.v1 * n.number_0 * (1 - n.state) * n.old_v0 for name in states}
        return grad * changed["class"], state.replace(**changed)

    made = trace(rule, name="a rule", states=states, numbers=dict.fromkeys(numbers, False))
    assert len(set(made.numbers)) == len(made.numbers)
    assert made.name.startswith("a_rule_")
    function = function_of(made.source, made.name)
    function = compile_rule(function, nt.float64)
    values = dict(zip(made.numbers, made.static_numbers(dict(zip(numbers, (2.0, 3.0, 0.5, 4.0), strict=True))), strict=True))
    update, new = function(5.0, 0.0, tuple(map(float, range(9))), 1.0, tuple(values.values()))
    assert new == tuple(index + 12.0 for index in range(9))
    assert update == 5 * (8 + 12)


def test_other_rules_have_other_names():
    names = {traced(case).name for case in CASES.values()}
    assert len(names) == len(CASES)


def test_source_is_found():
    """As Triton looks for it."""
    made = traced(CASES["lion"])
    function = function_of(made.source, made.name)
    assert function is function_of(made.source, made.name)
    linecache.checkcache()
    assert inspect.getsource(function.fn) == made.source
    assert function.fn.__module__ == "fusedrms.kernels.lang"


def per_step(update, **numbers) -> Traced:
    def rule(grad, param, state, lr, n):
        return grad * update(n), state

    return trace(rule, name="rule", numbers=dict.fromkeys(numbers, False))


# an expression, options, step, and its value
HOST = {
    "correction": (lambda n: 1 / (1 - n.beta**n.step), dict(beta=0.9), 3, 1 / (1 - 0.9**3)),
    "not corrected": (lambda n: 1 / (1 - n.beta**n.step), dict(beta=0.9), 0, math.inf),
    "0 / 0": (lambda n: n.beta / (n.step - n.step), dict(beta=0.0), 3, math.nan),
    "-1 / 0": (lambda n: -n.beta / (n.step - n.step), dict(beta=1.0), 3, -math.inf),
    "overflow": (lambda n: n.beta**n.step, dict(beta=10.0), 400, math.inf),
    "exp": (lambda n: torch.exp(n.beta * n.step), dict(beta=10.0), 400, math.inf),
    "log": (lambda n: torch.log(n.step), {}, 0, -math.inf),
    "root": (lambda n: torch.sqrt(n.beta - n.step), dict(beta=0.0), 4, math.nan),
    "root of a negative": (lambda n: (n.beta - n.step) ** 0.5, dict(beta=0.0), 4, math.nan),
    "inverse root": (lambda n: torch.rsqrt(n.step), {}, 4, 0.5),
    "warmup": (lambda n: torch.minimum(n.step / n.warmup, torch.ones_like(n.step)), dict(warmup=10), 4, 0.4),
    "warm": (lambda n: torch.clamp(n.step / n.warmup, max=1), dict(warmup=10), 40, 1.0),
    "where": (lambda n: torch.where((n.step > 3) & ~(n.step == 7), 2.0, 0.1), {}, 7, 0.1),
    "sign": (lambda n: torch.sign(3 - n.step) + abs(1 - n.step) + (n.step >= 5), {}, 5, 4.0),
    "NaN": (lambda n: torch.clamp(n.k * n.step, min=0), dict(k=math.nan), 5, math.nan),
    "no step": (lambda n: 1 - n.beta + 0 * n.step, dict(beta=0.999), 5, 1 - 0.999),
}


@pytest.mark.parametrize("tensors", [(), ("step",), ("options",), ("step", "options")], ids=str)
@pytest.mark.parametrize("name", HOST)
def test_numbers_of_a_step(name, tensors):
    update, options, step, value = HOST[name]
    made = per_step(update, **options)
    (number,) = made.numbers
    assert made.per_step == (number,)
    assert math.isnan(made.static_numbers(options)[0])
    if "options" in tensors:
        options = {name: torch.tensor(float(one), dtype=torch.float64) for name, one in options.items()}
    (found,) = made.numbers_at(options, torch.tensor(float(step), dtype=torch.float64) if "step" in tensors else step).values()
    assert isinstance(found, torch.Tensor) == ("step" in tensors or ("options" in tensors and bool(options)))
    assert getattr(found, "dtype", torch.float64) == torch.float64
    assert float(found) == pytest.approx(value, rel=1e-15, nan_ok=True)


def test_numbers_of_tensors_are_not_read(monkeypatch):
    made = traced(CASES["adamw"])
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in BETAS.items()}
    for name in ("item", "__float__", "__bool__", "__int__", "tolist", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda *args: pytest.fail("a tensor was read"))
    assert len(made.numbers_at(tensors, torch.tensor(3.0, dtype=torch.float64))) == 2
    assert len(made.static_numbers(tensors)) == len(made.numbers)
