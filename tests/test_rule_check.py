"""Rules of a user's own before their first step: all who compute one are compared; check(), and the tools that find one by its place."""

import threading

import numba
import numpy as np
import pytest
import torch

import fusedrms
from fusedrms import FusedSMORMS3, Number, State
from fusedrms.kernels import lang, launch
from fusedrms.kernels.cpu import language
from fusedrms.kernels.gpu import values as interpreter
from fusedrms.kernels.lang import quotient, tl
from fusedrms.rules import compared
from fusedrms.rules.declared import Written
from fusedrms.rules.source import function_of
from traced_rules import BETAS, CASES, Case

CPU = torch.device("cpu")
compiles = pytest.mark.skipif(lang.interpreted(), reason="the interpreter compiles nothing")
needs_triton = pytest.mark.skipif(
    lang.triton is None or not interpreter.puts_back(), reason="Triton's interpreter cannot run beside its compiler here"
)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    """Where there is one, also of tests/simulated, rules on a CPU are not compared with Triton's interpreter."""
    monkeypatch.setattr(launch.devices, "gpus", lambda kind=None: [])


def lion(grad, param, state, lr, n):
    return lr * torch.sign(torch.lerp(grad, state.m, n.beta1)), state.replace(m=torch.lerp(grad, state.m, n.beta2))


def centered(grad, param, state, lr, n):
    """The difference of two squares: of a constant gradient nothing but rounding is left."""
    m, v = torch.lerp(grad, state.m, n.beta1), torch.lerp(grad * grad, state.v, n.beta1)
    return lr * grad / (torch.sqrt(torch.clamp(v - m * m, min=0.0)) + n.eps), state.replace(m=m, v=v)


def cancelled(grad, param, state, lr, n):
    """Little is left of a gradient in float32."""
    return lr * ((grad + 1e4) - 1e4), state


def threshold(grad, param, state, lr, n):
    return lr * torch.where(grad.abs() > n.eps, grad**3 / (grad**2 + param**4 + n.eps), torch.log(1 + grad.abs())), state


def first_step(grad, param, state, lr, n):
    m = torch.where(n.step == 1, grad, torch.lerp(grad, state.m, n.beta1))
    return lr * torch.exp(-m.abs()) * m / n.step, state.replace(m=m)


def of_other_dtypes(grad, param, state, lr, n):
    """A rule computes in one dtype, whatever it says, and whatever torch makes of comparisons and numbers."""
    up, down = grad > 0, (grad < 0).float() * 0.1
    step = up * 0.1 + (up | (param > 0)) / 3 + torch.where(up, 0.3, 0.7) + down.to(torch.bfloat16) + 0.1 * (~up).to(grad.dtype)
    return lr * step.half() * grad, state


def literals(grad, param, state, lr, n):
    """Which float32 has not all digits of."""
    m = 0.9 * state.m + 0.1 * torch.maximum(grad, 0.3 * param)
    rate = torch.where(lr > 0.7, lr * 0.3 + 0.1, 0.6 * lr)
    return rate * torch.where(m > 0.1, 0.7, torch.clamp(m, min=-0.3) / 3) + torch.where(grad > 0.2, 0.1, 0.3) * lr, state.replace(m=m)


def nothing_kept(grad, param, state, lr, n):
    return grad, state


RULES = CASES | {
    "centered": Case(centered, ("m", "v"), BETAS),
    "centered, without memory": Case(centered, ("m", "v"), dict(beta1=0.0, eps=1e-3)),
    "cancelled": Case(cancelled, (), {}),
    "threshold": Case(threshold, (), dict(eps=1e-8)),
    "first step": Case(first_step, ("m",), BETAS),
    "nothing kept": Case(nothing_kept, (), {}),
    "literals": Case(literals, ("m",), {}),
    "of other dtypes": Case(of_other_dtypes, (), {}),
}
VAGUE = "cancelled", "centered, without memory", "special", "every word"  # where rounding may leave a result no digit
Lion = fusedrms.rule(states=["m"], beta1=0.9, beta2=0.999)(lion)
ADAMW = dict(exp_avg=State(), exp_avg_sq=State(nonnegative=True))


def subject(name, lr=1e-3, factor=1.0):
    """factor: of all numbers."""
    case = RULES[name]
    states = {state: State(nonnegative=state in case.nonnegative) for state in case.states}
    declared = Written(case.function, states, {one: Number(value) for one, value in case.numbers.items()}, case.static)
    return compared.subject_of(declared, dict(lr=lr, **case.static) | {one: factor * value for one, value in case.numbers.items()})


@pytest.mark.interpret
@pytest.mark.parametrize(("lr", "factor"), [(1e-3, 1.0), (0.5, 0.7), (30.0, 0.0)])
@pytest.mark.parametrize("name", RULES)
def test_no_false_alarm(name, lr, factor, device):
    for seed in range(3):
        compared.check_drivers(subject(name, lr, factor), device, seed)


@pytest.mark.interpret
@pytest.mark.parametrize("name", [name for name in RULES if name not in VAGUE])
def test_most_is_compared(name):
    """Nearly all results are known to six digits in float64; drivers are a few units apart in float32."""
    found = compared.cases(subject(name), CPU)
    for case in found:
        base = next(iter(case.results.values()))
        assert (case.bounds["float64"] <= 1e-6 * np.abs(base) + 1e-300).mean() > 0.95
    apart = compared.apart(found)
    assert apart is None or apart < 8


@pytest.mark.parametrize("name", RULES)
def test_all_is_float32(name):
    """Numba widens what an integer or a float64 is in: such arithmetic takes twice as long, and rounds otherwise."""
    one = subject(name)
    compared.check_drivers(one, CPU)
    signatures = language.compile_rule(one.rule.function, numba.float32).nopython_signatures
    assert not any("64" in str(signature.return_type) for signature in signatures)


def _twice(x, y):
    return x / y + x / y


def _faulty(monkeypatch, wrong):
    """A driver of another making: what Numba takes for quotient()."""
    language.compile_rule.cache_clear()
    monkeypatch.setitem(language._BUILT_IN, quotient, numba.njit(wrong, error_model="numpy"))


def _own(name):
    """AdamW under a name of its own, by which machine code is kept: of a fault none may be found later."""

    def rule(grad, param, state, lr, n):
        return CASES["adamw"].function(grad, param, state, lr, n)

    rule.__name__ = name
    return fusedrms.rule(states=ADAMW, **BETAS)(rule)


@pytest.fixture
def clean():
    yield
    language.compile_rule.cache_clear()


def _parameter():
    param = torch.nn.Parameter(torch.linspace(-1, 1, 50))
    param.grad = torch.linspace(2, -3, 50)
    return param


def test_fault_of_numba(monkeypatch, clean):
    cls, param = _own("faulty_numba"), _parameter()
    before = param.detach().clone()
    _faulty(monkeypatch, _twice)
    optimizer = cls([param])
    with pytest.raises(
        RuntimeError, match=r"'faulty_numba'.*Numba in float64 differs in the update of element.*Numba in float64: .*grad=.*beta1=0.9"
    ):
        optimizer.step()
    assert torch.equal(param, before)
    assert not optimizer.state
    with pytest.raises(RuntimeError, match="differs"):  # nor later
        optimizer.step()


@pytest.mark.interpret
@needs_triton
@pytest.mark.parametrize(("name", "wrong"), [("update", 1.0001), ("exp_avg_sq", 0.999)])
def test_fault_of_triton(name, wrong, monkeypatch):
    from fusedrms.kernels.gpu import values

    one = subject("adamw")
    other = one.traced.source.replace("return ", f"return {wrong} * " if name == "update" else "return ")
    if name != "update":
        new = one.traced.source.rpartition("(")[2].split(", ")[1].strip("()\n ")
        other = other.replace(f", {new})", f", {new} * {wrong})")
    assert other != one.traced.source
    wrong_name = f"{one.rule.name}_wrong"  # Triton finds sources by their names
    function = function_of(other.replace(one.rule.name, wrong_name), wrong_name)
    monkeypatch.setattr(values, "RULES", {one.rule.name: one.rule._replace(function=function)})
    with pytest.raises(RuntimeError, match=f"Triton in float64 differs in the (state ')?{name}"):
        compared.check_drivers(one, CPU)


def test_fault_of_the_tracer(monkeypatch):
    run = compared.run
    monkeypatch.setattr(compared, "run", lambda *args, **numbers: (lambda update, new: (update * 1.000001, new))(*run(*args, **numbers)))
    with pytest.raises(RuntimeError, match="Numba in float64 differs in the update"):
        compared.check_drivers(subject("centered"), CPU)


def test_fault_in_float32_alone(monkeypatch, clean):
    def wrong(rule, values, numbers):
        results = numba_alone(rule, values, numbers)
        return results * np.float32(1.00001) if values.dtype == np.float32 else results

    numba_alone = launch.value_drivers(CPU)["numba"]
    monkeypatch.setattr(compared, "value_drivers", lambda device: dict(numba=wrong))
    with pytest.raises(RuntimeError, match="Numba in float32 differs"):
        compared.check_drivers(subject("adamw"), CPU)


def test_once(monkeypatch):
    """Before a first step, not where a state is loaded or looked at."""
    asked = []
    monkeypatch.setattr(
        compared, "check_drivers", lambda one, device, seed=0: asked.append((one.rule.name, dict(one.flags), one.options["beta1"]))
    )
    monkeypatch.setattr(compared, "_compared", set())

    @fusedrms.rule(states=["m"], nesterov=False, beta1=0.9)
    def flagged(grad, param, state, lr, n):
        m = n.beta1 * state.m + grad
        return lr * (grad + n.beta1 * m if n.nesterov else m), state.replace(m=m)

    param = _parameter()
    optimizer = flagged([param], beta1=torch.tensor(0.8))
    optimizer.load_state_dict(optimizer.state_dict())
    assert not asked
    optimizer.step()
    optimizer.step()
    flagged([_parameter()]).step()
    assert [flags for _, flags, _ in asked] == [dict(nesterov=False)]
    assert asked[0][2] == pytest.approx(0.8)
    flagged([_parameter()], nesterov=True).step()
    assert [flags for _, flags, _ in asked][1:] == [dict(nesterov=True)]
    FusedSMORMS3([_parameter()]).step()
    assert len(asked) == 2


def lion_in_numpy(grad, param, state, lr, n):
    return lr * np.sign(n.beta1 * state["m"] + (1 - n["beta1"]) * grad), dict(m=n.beta2 * state["m"] + (1 - n.beta2) * grad)


def adamw_in_numpy(grad, param, state, lr, n):
    m = n.beta1 * state["exp_avg"] + (1 - n.beta1) * grad
    v = n.beta2 * state["exp_avg_sq"] + (1 - n.beta2) * grad**2
    return lr * (m / (1 - n.beta1**n.step)) / (np.sqrt(v / (1 - n.beta2**n.step)) + n.eps), dict(exp_avg=m, exp_avg_sq=v)


def smorms3_in_numpy(grad, param, state, lr, n):
    r = 1 / (state["mem"] + 1)
    v, m = (1 - r) * state["square_avg"] + r * grad**2, (1 - r) * state["grad_avg"] + r * grad
    x = m * m / (v + n.eps)
    return grad * np.minimum(lr, x) / (np.sqrt(v) + n.eps), dict(square_avg=v, grad_avg=m, mem=1 + state["mem"] * (1 - x))


@compiles
@pytest.mark.parametrize(("cls", "reference"), [(Lion, lion_in_numpy), (_own("AdamW"), adamw_in_numpy), (FusedSMORMS3, smorms3_in_numpy)])
def test_check(cls, reference, capsys):
    targets = ("sm_90", "cpu") if lang.triton else ("cpu",)
    rows = cls.check(reference, modes=("float32",), targets=targets)
    assert [(row.rule, row.target) for row in rows] == [(cls.__name__, target) for target in targets]
    printed = capsys.readouterr().out
    assert cls.__name__ in printed
    assert "the reference agree" in printed
    assert ("units in the last place" in printed) == (len(launch.value_drivers(CPU)) > 1)


@pytest.mark.interpret
def test_check_says_what_differs():
    def wrong(grad, param, state, lr, n):
        update, new = lion_in_numpy(grad, param, state, lr, n)
        return update, dict(m=np.where(n.step > 2, new["m"] * (1 + 1e-9), new["m"]))

    with pytest.raises(
        AssertionError, match=r"reference differ in the state 'm' of element \d+ at step 3. the function in torch: .*; the reference: .*m="
    ):
        Lion.check(wrong, targets=())
    with pytest.raises(TypeError, match="let it return the update and all states"):
        Lion.check(lambda grad, param, state, lr, n: grad, targets=())


def test_threads():
    """While one has Triton's language changed for its interpreter, another compiles."""
    before, default, failed = dict(vars(tl)), torch.get_default_dtype(), []

    def compare(name):
        try:
            compared.check_drivers(subject(name), CPU)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=compare, args=(name,)) for name in list(RULES)[:5]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert all(vars(tl)[name] is value for name, value in before.items())
    assert torch.get_default_dtype() == default
