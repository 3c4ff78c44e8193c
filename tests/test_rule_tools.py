"""The tools take rules of a user's own by their place; and a traced rule is as lean as one that is written by hand."""

import json
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

import fusedrms
from fusedrms import State
from fusedrms.engine.tables import configs
from fusedrms.kernels import lang, launch
from fusedrms.kernels.lang import jit, quotient, tl
from fusedrms.kernels.rule import RULES, Rule
from fusedrms.kernels.rules import ema, ema_of_square, normal
from fusedrms.tools import cli, inspect, tune
from fusedrms.tools.variants import Variant, find, variant, variant_of

CPU = torch.device("cpu")
STATES = dict(exp_avg=State(), exp_avg_sq=State(nonnegative=True))
compiles = pytest.mark.skipif(lang.interpreted(), reason="the interpreter compiles nothing")
needs_triton = pytest.mark.skipif(lang.triton is None, reason="Triton exists on Linux only")

SOURCE = """
import torch, fusedrms

@fusedrms.rule(states=["exp_avg"], beta1=0.9)
def Own(grad, param, state, lr, n):
    exp_avg = torch.lerp(grad, state.exp_avg, n.beta1)
    return lr * torch.sign(exp_avg), state.replace(exp_avg=exp_avg)

helper = 3
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "users_rules.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "lacking.py").write_text("import not_there")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@compiles
def test_inspect(place, capsys):
    words = "users_rules:Own,rmsprop,users_rules.py:Own"
    assert cli.main(["inspect", "--json", "--rule", words, "--target", "cpu", "--mode", "float32", "--asm", "asm"]) == 0
    assert [row["rule"] for row in json.loads(capsys.readouterr().out)] == words.split(",")
    name = variant("users_rules:Own", "float32").rule
    assert name == variant("users_rules.py:Own", "float32").rule
    assert (place / "asm" / f"{name}.float32.cpu.s").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("Own", "MODULE:NAME or FILE.py:NAME"),
        ("users_rules:Owm", "did you mean 'Own'|it has Own"),
        ("users_rules:helper", "helper is 3, not an optimizer class of fusedrms: it has Own"),
        ("fusedrms.rules.optimizer:RuleOptimizer", "not an optimizer class of fusedrms"),
        ("nowhere:Own", "no module 'nowhere'"),
        ("nowhere.py:Own", "no file nowhere.py"),
        ("broken:Own", "ZeroDivisionError"),
        ("lacking.py:Own", "No module named 'not_there'"),
    ],
)
@pytest.mark.parametrize("command", ["inspect --target cpu --rule", "compile --rules", "tune --rules", "memory --parameters 1e9 --rule"])
def test_wrong_words(place, capsys, command, word, said):
    find.cache_clear()
    assert cli.main([*command.split(), word]) == 2
    assert re.search(said, capsys.readouterr().err)


@compiles
def test_another_process(place):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        row = pool.submit(inspect._row_elsewhere, variant("users_rules.py:Own", "float32"), "cpu", True).result()
    assert row.rule == "users_rules.py:Own"
    assert row.vectorised


def test_tuned(place, monkeypatch):
    """Rows go by the rule's own name, which says all of its source."""
    one = variant("users_rules:Own", "float32")
    name, config = configs.device_name(CPU), launch.CPUConfig(2048, 1 << 20)
    key = configs.Key(one.rule, one.storage.label, True, "small")
    tune.save(place / f"{name}.json", tune.describe(CPU, "test"), {key: configs.Row(config, 2.0, 1.0)})
    monkeypatch.setattr(configs, "directories", lambda: [place])
    configs.rows_for.cache_clear()
    try:
        expected = configs.default_config(CPU, one.storage, 64) if lang.interpreted() else config
        assert configs.choose(one.rule, CPU, one.storage, True, np.array([64])) == expected
    finally:
        configs.rows_for.cache_clear()


@fusedrms.rule(states=STATES, beta1=0.9, beta2=0.999, eps=1e-8)
def AdamW(grad, param, state, lr, n):
    exp_avg = torch.lerp(grad, state.exp_avg, n.beta1)
    exp_avg_sq = n.beta2 * state.exp_avg_sq + (1 - n.beta2) * grad * grad
    root = torch.sqrt(exp_avg_sq) / torch.sqrt(1 - n.beta2**n.step) + n.eps
    return lr / (1 - n.beta1**n.step) * exp_avg / root, state.replace(exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)


@jit
def adamw_by_hand(grad, param, state, lr, n):
    """As it would stand in kernels/rules.py."""
    exp_avg, exp_avg_sq = state
    beta1, weight1, beta2, weight2, eps, correction1, correction2 = n
    exp_avg = ema(exp_avg, grad, beta1, weight1)
    exp_avg_sq = ema_of_square(exp_avg_sq, grad, beta2, weight2)
    root = tl.fma(tl.sqrt(exp_avg_sq), correction2, normal(eps))
    return quotient(lr * correction1 * exp_avg, root), (exp_avg, exp_avg_sq)


@compiles
@needs_triton
@pytest.mark.parametrize("mode", ["float32", "bfloat16+split+8bit"])
def test_as_lean_as_by_hand(mode, monkeypatch):
    """Instructions of a traced AdamW, for each parameter."""
    numbers = "beta1", "weight1", "beta2", "weight2", "eps", "correction1", "correction2"
    monkeypatch.setitem(RULES, "adamw_by_hand", Rule("adamw_by_hand", adamw_by_hand, STATES, numbers, {}))
    traced = variant_of((AdamW, {}), "AdamW", mode)
    by_hand = Variant("adamw_by_hand", mode, traced.storage, "adamw_by_hand")
    own, least = (inspect.row(one, "sm_90", True) for one in (traced, by_hand))
    assert own.instructions <= 1.05 * least.instructions, (own.instructions, least.instructions)
    assert not own.problems
