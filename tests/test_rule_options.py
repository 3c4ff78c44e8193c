"""What all rules share, with declared ones: each option held against the rule in float64, as a user wrote it."""

import pytest
import torch

import fusedrms
from cases import BF16, F16, F32, F64
from fusedrms.rules.tracing import run
from made_rules import Adagrad, AdamW, Everything, Lion, Nothing
from sample import exhaustive
from sized import Sized, evaluate, exactly
from tools import copy_grads, exact, parameter, parameters, random_grads, set_grad, step_and_check

C64, C128 = torch.complex64, torch.complex128
DECAY = dict(weight_decay=0.5)
LEAN = dict(seed=0, lr=1e-2)
OPTIONS = {
    "none": (AdamW, F32, {}),
    "coupled decay": (AdamW, F32, dict(DECAY, decoupled_weight_decay=False)),
    "decoupled decay": (AdamW, F32, DECAY),
    "corrected decay": (AdamW, F32, dict(DECAY, corrected_weight_decay=True, max_lr_snapshot=0.3)),
    "clip value": (AdamW, F32, dict(clip_grad_value=0.5, maximize=True)),
    "clip after decay": (AdamW, F32, dict(DECAY, clip_grad_value=0.5, clip_after_decay=True, decoupled_weight_decay=False)),
    "clip weights": (AdamW, F32, dict(clip_weights=0.75, rescale_grad=0.125)),
    "clip norm": (AdamW, F32, dict(clip_grad_norm=0.1, clip_grad_value=1.0)),
    "clip each norm": (AdamW, F32, dict(clip_grad_norm=0.1, clip_norm_over="parameter")),
    "clip update norm": (AdamW, F32, dict(clip_grad_norm=0.1, clip_norm_on="update")),
    "average": (AdamW, F32, dict(ema_decay=0.25, ema_warmup=True)),
    "caution": (AdamW, F32, dict(caution=True)),
    "capturable": (AdamW, F32, dict(capturable=True)),
    "tensors": (
        AdamW,
        F32,
        dict(lr=torch.tensor(0.1), betas=(torch.tensor(0.8), 0.99), eps=torch.tensor([1e-3]), weight_decay=torch.tensor(0.3)),
    ),
    "float64": (AdamW, F64, dict(DECAY, clip_grad_norm=0.1)),
    "complex": (AdamW, C64, dict(DECAY, clip_grad_norm=0.1)),
    "float16": (AdamW, F16, dict(master_weights="float32", lr=0.1)),
    "stochastic": (AdamW, BF16, dict(LEAN, stochastic_rounding=True)),
    "split": (AdamW, BF16, dict(LEAN, master_weights="split", ema_decay=0.5)),
    "split24, 4-bit": (AdamW, BF16, dict(LEAN, master_weights="split24", state_dtype="4bit")),
    "split, 8-bit": (AdamW, BF16, dict(LEAN, master_weights="split", state_dtype="8bit", clip_grad_norm=0.1)),
    "signs, 8-bit": (Lion, BF16, dict(LEAN, master_weights="split", state_dtype="8bit")),
    "a sum": (Adagrad, F32, dict(initial_accumulator_value=0.5, lr_decay=0.5, clip_grad_norm=1.0)),
    "five states": (Everything, F32, DECAY),
    "flags": (Everything, F32, dict(amsgrad=True, nesterov=True, a3=-1, ema_decay=0.5)),
    "five states, 8-bit": (Everything, BF16, dict(LEAN, state_dtype="8bit", master_weights="split")),
    "no state": (Nothing, F32, dict(DECAY, caution=False, clip_grad_norm=0.1)),
    "no state, split": (Nothing, BF16, dict(LEAN, master_weights="split", state_dtype="8bit")),
}
RARE = {
    "complex128": (AdamW, C128, DECAY),
    "float16, unmastered": (AdamW, F16, {}),
    "bfloat16": (AdamW, BF16, {}),
    "float32 master": (AdamW, BF16, dict(LEAN, master_weights="float32", state_dtype="8bit")),
    "bfloat16 states": (AdamW, F32, dict(LEAN, state_dtype=BF16)),
    "4-bit states": (AdamW, F32, dict(LEAN, state_dtype="4bit")),
    "caution, 8-bit": (AdamW, F32, dict(LEAN, state_dtype="8bit", caution=True)),
    "one flag": (Everything, F32, dict(nesterov=True)),
    "five states, 4-bit": (Everything, F32, dict(LEAN, state_dtype="4bit", caution=True)),
    "five float64 states": (Everything, F64, dict(amsgrad=True)),
    "cautious signs": (Lion, F32, dict(caution=True, weight_decay=0.1, decoupled_weight_decay=False)),
    "no state, cautious": (Nothing, F64, dict(caution=True)),
}
CASES = OPTIONS | RARE


def made(dtype, device="cpu") -> list[torch.nn.Parameter]:
    """0-d, empty, not contiguous, dense in another order."""
    torch.manual_seed(0)
    plain = parameters([(), (0,), (1025,)], device, dtype)
    transposed, last = parameters([(5, 33), (2, 3, 4, 5)], device, dtype)
    return [*plain, parameter(transposed.detach().t()), parameter(last.detach().contiguous(memory_format=torch.channels_last))]


@pytest.mark.interpret
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the interpreter
@pytest.mark.parametrize("name", [*OPTIONS, *map(exhaustive, RARE)])
def test_option(name, device):
    cls, dtype, options = CASES[name]
    params = made(dtype, device)
    optimizer = cls(params, **{"lr": 0.1, **options})
    for step in range(3):
        random_grads(params)
        if step == 1:
            set_grad(params[3], params[3].grad.contiguous())  # in another order than its parameter
        step_and_check(optimizer)


@pytest.mark.parametrize("options", [{}, dict(amsgrad=True, nesterov=True)], ids=str)
def test_references_agree(options):
    """The rule as tests read it, and as the package runs it on tensors."""
    optimizer = Everything(parameters([(7,)]), **options)
    (group,) = optimizer.param_groups
    numbers = {name: group[name] for name in (*Everything.declared.numbers, *Everything.declared.flags)}
    grad, param = torch.randn(2, 9, dtype=F64)
    state = {name: torch.rand(9, dtype=F64) for name in Everything.kinds}
    update, new = run(Everything.declared.function, grad, param, state=state, lr=0.1, numbers=numbers, step=3)
    kept = {name: exactly(exact(value)) for name, value in state.items()}
    given = dict(state=kept, lr=0.1, numbers={**numbers, "step": 3.0})
    found, states = evaluate(Everything.declared.function, Sized(exact(grad)), exactly(exact(param)), **given)
    torch.testing.assert_close(torch.from_numpy(found.value), update)
    for name, value in new.items():
        torch.testing.assert_close(torch.from_numpy(states[name].value), value)


def test_groups():
    """With other numbers and flags, which change between steps, and parameters whose steps differ."""
    first, second, third = (made(F32) for _ in range(3))
    optimizer = Everything(
        [dict(params=first), dict(params=second, beta1=0.5, lr=0.3, weight_decay=0.1), dict(params=third, amsgrad=True, nesterov=True)]
    )
    for step in range(5):
        random_grads(first + second + third)
        if step % 2:
            first[2].grad = None
        optimizer.param_groups[0]["beta2"] = 0.5 + 0.1 * step
        optimizer.param_groups[1]["lr"] /= 2
        if step == 3:
            optimizer.param_groups[1]["amsgrad"] = True
        step_and_check(optimizer)


def pair(cls, device, **options):
    ours = made(F32, device)
    theirs = [parameter(param.detach().clone()) for param in ours]
    return cls(ours, **options), cls(theirs, **options), ours, theirs


def same(a, b, ours, theirs) -> None:
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert a.state[p].keys() == b.state[q].keys()
        assert all(torch.equal(value.cpu(), b.state[q][key].cpu()) for key, value in a.state[p].items())  # steps are counted on either


@pytest.mark.parametrize(
    "option", [dict(skip_nonfinite=True), dict(skip_above=(5.0, 2)), dict(skip_nonfinite=True, capturable=True)], ids=str
)
def test_skipped(option, device):
    """A step that was left out never was: the steps of bias corrections neither."""
    a, b, ours, theirs = pair(AdamW, device, **option)
    for step in range(6):
        random_grads(ours)
        copy_grads(ours, theirs)
        if step in (2, 4):
            ours[2].grad[3] = float("nan") if "skip_nonfinite" in option else 1e4
            before = [param.detach().clone() for param in ours]
            a.step()
            assert all(map(torch.equal, before, ours))
        else:
            a.step()
            b.step()
    assert a.skipped_steps == 2
    same(a, b, ours, theirs)


def test_scaler(device):
    """A power of two; an infinite gradient is a step less."""
    a, b, ours, theirs = pair(AdamW, device, clip_grad_norm=0.1)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, growth_interval=10**6)
    scaler.scale(torch.ones((), device=device))
    for step in range(4):
        random_grads(ours)
        copy_grads(ours, theirs)
        for param in ours:
            param.grad *= scaler.get_scale()
        if step == 2:
            ours[0].grad.fill_(float("inf"))
        else:
            b.step()
        scaler.step(a)
        scaler.update()
    same(a, b, ours, theirs)


@pytest.mark.parametrize("cls", [AdamW, exhaustive(Everything)])
def test_in_backward(cls):
    """As a step after it."""
    models = [torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    fusedrms.apply_in_backward(models[0], cls, lr=1e-2, weight_decay=0.1)
    optimizer = cls(models[1].parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        x = torch.randn(4, 3)
        for model in models:
            model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


def test_stats():
    params = [parameter(torch.randn(40)), parameter(torch.randn(3, 5))]
    optimizer = AdamW(params, lr=0.1, stats=True)
    for _ in range(2):
        random_grads(params)
        before = [param.detach().clone() for param in params]
        optimizer.step()
    found = optimizer.stats().as_dict()
    kept = [optimizer.state[param] for param in params]
    right = {
        "grad": [param.grad for param in params],
        "update": [param - old for param, old in zip(params, before, strict=True)],
        **{name: [state[name] for state in kept] for name in AdamW.kinds},
    }
    for name, tensors in right.items():
        norm = torch.cat([one.detach().double().ravel() for one in tensors]).norm()
        torch.testing.assert_close(found[f"{name}_norm"], norm.item(), rtol=1e-6, atol=0)


def test_two_that_compute_the_same():
    """Their states start from what each says, though they share a kernel."""

    def declared(start: float):
        @fusedrms.rule(states=dict(m=start), lr=1.0)
        def Started(grad, param, state, lr, n):
            return lr * state.m + 0 * grad, state.replace(m=state.m + grad)

        return Started

    for start in (0.0, 3.0):
        param = parameter(torch.zeros(3))
        optimizer = declared(start)([param])
        param.grad = torch.ones(3)
        optimizer.step()
        assert param.tolist() == [-start] * 3
        assert optimizer.state[param]["m"].tolist() == [start + 1] * 3


@pytest.mark.parametrize("name", ["grad_scale", "ema_weight", "initial_lr", "param_names"])
def test_names_of_others(name):
    with pytest.raises(ValueError, match=f"an option cannot be called '{name}'"):
        fusedrms.rule(**{name: 0.5})(Nothing.declared.function)


def test_many_states():
    """As many as there are independent random bits for, each in 8 bits."""

    def declared(count: int):
        @fusedrms.rule(states=[f"m{k}" for k in range(count)])
        def Many(grad, param, state, lr, n):
            means = {f"m{k}": 0.5 * getattr(state, f"m{k}") + 0.5 * grad for k in range(count)}
            return lr * sum(means.values()), state.replace(**means)

        return Many

    params = [parameter(torch.randn(130))]
    optimizer = declared(15)(params, state_dtype="8bit", seed=0)
    random_grads(params)
    optimizer.step()
    kept = optimizer.state[params[0]]
    codes = {tuple(kept[f"m{k}"].tolist()) for k in range(15)}
    assert len(codes) == 15  # each is rounded by bits of its own
    for k in range(15):
        assert (optimizer.state_dict()["state"][0][f"m{k}"] - 0.5 * params[0].grad).abs().max() < 0.05
    with pytest.raises(ValueError, match="a rule has 15 states at most, and this one has 16"):
        declared(16)
