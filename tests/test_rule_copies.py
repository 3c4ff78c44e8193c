"""Optimizers of declared rules that are saved, loaded, copied and sent to other processes, and where a rule may be written."""

import copy
import io
import linecache
import os
import pathlib
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch

import fusedrms
from cases import BF16, F32
from fusedrms.kernels import lang
from made_rules import AdamW, Everything, Nothing
from sample import exhaustive
from tools import parameter, parameters, random_grads, step_both, twins

if lang.interpreted():
    pytest.skip("about the Numba driver", allow_module_level=True)

ROOT = pathlib.Path(__file__).parent.parent
SHAPES = [(3, 4), (), (1025,), (0,)]
LEAN = dict(master_weights="split", state_dtype="8bit")
OPTIONS = {
    "AdamW": (AdamW, F32, dict(lr=0.1, betas=(0.5, 0.9), clip_grad_norm=1.0)),
    "lean": (AdamW, BF16, dict(LEAN, lr=0.1, seed=5)),
    "everything": (Everything, F32, dict(amsgrad=True, nesterov=True, a3=-0.5, ema_decay=0.5)),
    "no state": (Nothing, F32, dict(lr=0.1)),
}
RARE = {"everything, lean": (Everything, BF16, dict(LEAN, ema_decay=0.5, seed=5))}
CASES = OPTIONS | RARE


def trained(name: str, steps: int = 3):
    cls, dtype, options = CASES[name]
    params = parameters(SHAPES, dtype=dtype)
    optimizer = cls(params, **options)
    for _ in range(steps):
        random_grads(params)
        optimizer.step()
    return optimizer, params


def go_on(a, b, ours, theirs) -> None:
    """Bit for bit."""
    step_both(a, b, ours, theirs, steps=3)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert a.state[p].keys() == b.state[q].keys()
        assert all(torch.equal(value, b.state[q][key]) for key, value in a.state[p].items())


def through_a_file(value, weights_only: bool):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


cases = pytest.mark.parametrize("name", [*OPTIONS, *map(exhaustive, RARE)])


@cases
def test_resumed(name):
    """Options that change numbers come with the checkpoint, flags of the rule too; how values are stored stays."""
    cls, _, options = CASES[name]
    a, params = trained(name)
    others = twins(params)
    b = cls(others, lr=123.0, **{key: value for key, value in options.items() if key in (*LEAN, "ema_decay")})
    b.load_state_dict(through_a_file(a.state_dict(), weights_only=True))
    apart = dict.fromkeys(("params", "seed"))  # a seed of nothing is in no checkpoint
    assert {**b.param_groups[0], **apart} == {**a.param_groups[0], **apart}
    go_on(a, b, params, others)


@cases
@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), lambda one: through_a_file(one, False)])
def test_copied(name, way):
    a, params = trained(name)
    b = way(a)
    assert type(b) is type(a)
    go_on(a, b, params, b.param_groups[0]["params"])


def test_states_of_another_rule():
    """A checkpoint that lacks a state is refused, by name."""
    a = AdamW(params := parameters(SHAPES))
    random_grads(params)
    a.step()
    b = Everything(twins(params))
    with pytest.raises(ValueError, match="no 'max_exp_avg_sq'"):
        b.load_state_dict(a.state_dict())


def one_step(cls, **options) -> float:
    param = parameter(torch.zeros(3))
    param.grad = torch.ones(3)
    cls([param], lr=1.0, **options).step()
    return param[0].item()


def test_a_cell_that_is_run_again():
    """As a notebook has it: no file; another body under the same name is another kernel, the same one the same kernel."""

    def run(body: str, number: int, options: str = ""):
        source = f"import fusedrms\n@fusedrms.rule({options})\ndef Cell(grad, param, state, lr, n):\n    {body}\n"
        name = f"<ipython-input-{number}-abc>"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        scope = {"__name__": "__main__"}
        exec(compile(source, name, "exec"), scope)
        return scope["Cell"]

    first, again = (run("return lr * grad, state", number) for number in (1, 3))
    other = run("return lr * n.factor * grad, state", 2, "factor=0.5")
    assert [one_step(each) for each in (first, other, again, other)] == [-1.0, -0.5, -1.0, -0.5]
    names = [each([parameter(torch.zeros(1))])._recipes()[0].rule for each in (first, other, again)]
    assert names[0] == names[2] != names[1]
    wrong = "return lr * grad.norm(), state"
    with pytest.raises(TypeError, match=r"rule 'Cell', <ipython-input-4-abc> line 4, \"return lr \* grad.norm\(\), state\": norm"):
        run(wrong, 4)


def test_no_source_at_all():
    """Of a function that exec() has made there is no line to quote, and none is needed."""
    scope = {}
    exec("import fusedrms\n@fusedrms.rule()\ndef Sourceless(grad, param, state, lr, n):\n    return lr * grad * 0.25, state\n", scope)
    assert one_step(scope["Sourceless"]) == -0.25


def test_a_closure():
    """A number of the function's own surroundings is a literal; another one makes another kernel."""

    def declared(factor):
        @fusedrms.rule()
        def Scaled(grad, param, state, lr, n):
            return lr * factor * grad, state

        return Scaled

    assert [one_step(declared(factor)) for factor in (0.25, 0.5, torch.tensor(2.0))] == [-0.25, -0.5, -2.0]


SCRIPT = """
import pickle, torch, fusedrms
torch.manual_seed(0)

@fusedrms.rule(states=["m"], beta=0.9, nesterov=False)
def Own(grad, param, state, lr, n):
    m = n.beta * state.m + grad
    return lr * (n.beta * m + grad if n.nesterov else m), state.replace(m=m)

def steps(optimizer, count):
    for _ in range(count):
        for param in optimizer.param_groups[0]["params"]:
            param.grad = torch.full_like(param, 0.5)
        optimizer.step()
    return optimizer.param_groups[0]["params"][0].tolist()

def work(rank, optimizer, file):
    torch.save(steps(optimizer, 2), file)

if __name__ == "__main__":
    optimizer = Own([torch.nn.Parameter(torch.zeros(5))], lr=0.25, nesterov=True)
    steps(optimizer, 2)
    again = pickle.loads(pickle.dumps(optimizer))
    assert type(again) is Own and Own.__module__ == "__main__"
    torch.multiprocessing.spawn(work, (pickle.loads(pickle.dumps(optimizer)), "found"), nprocs=1)
    found = torch.load("found")
    assert steps(again, 2) == steps(optimizer, 2) == found
    print("agreed")
"""


def ended(script: pathlib.Path) -> str:
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": path}, cwd=script.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_in_main(tmp_path):
    """A script's own rule, pickled, and sent to a process that is spawned, which runs the script anew."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    assert ended(script) == "agreed\n"


def step_shared(rank: int, optimizer, grad: float) -> None:
    """Two steps of a process."""
    for _ in range(2):
        for param in optimizer.param_groups[0]["params"]:
            param.grad = torch.full_like(param, grad)
        optimizer.step()


def test_shared_memory():
    """A rule of a module, in one process after another, as in one alone."""
    params = [parameter(torch.ones(5).share_memory_()), parameter(torch.ones(2, 3).share_memory_())]
    others = twins(params)
    optimizer, plain = AdamW(params, lr=0.1).share_memory(lock=True), AdamW(others, lr=0.1)
    torch.multiprocessing.spawn(step_shared, (optimizer, 1.0), nprocs=1)
    step_shared(0, plain, 1.0)
    for each in (optimizer, plain):
        step_shared(0, each, -0.25)
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        assert optimizer.state[p]["step"] == 4
        assert all(torch.equal(optimizer.state[p][name], plain.state[q][name]) for name in AdamW.kinds)
