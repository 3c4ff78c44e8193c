"""What presets are, found out by calling them; the command that shows it."""

import json
import shlex
import sys

import pytest
import torch

from fusedrms import presets
from fusedrms.presets.family import equations, made, named, options_of
from fusedrms.presets.preset import PRESETS
from fusedrms.tools import presets as command
from fusedrms.tools.cli import main
from tools import parameters


def names(words: str) -> list[str]:
    return [member.name for member in presets.find(words)]


def member(name: str):
    return next(each for each in presets.find() if each.name == name)


def test_find():
    assert names("dqn") == ["dopamine", "dqn2015", "dqn_zoo"]
    assert names("DQN  jax") == ["dopamine", "dqn_zoo"]
    assert {"impala2018", "tensorflow_rmsprop"} <= set(names("impala"))
    assert names("a3c") == ["a3c2016"]
    assert names("no such thing") == []
    assert names("") == sorted(PRESETS)
    with pytest.raises(TypeError, match="words=3: it must be text"):
        presets.find(3)


@pytest.mark.parametrize("name", PRESETS)
def test_a_member(name):
    """Its words are those of the optimizer that it makes, whose source it names."""
    found, options = member(name), options_of(PRESETS[name])
    assert found.make is getattr(presets, name)
    assert found.system
    assert found.version
    assert found.about.endswith(".")
    (param,) = parameters([(3,)])
    optimizer = made(PRESETS[name], [param], 0.125)
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.125
    assert {key: group[key] for key in options.keys() - {"lr", "seed", "max_lr_snapshot"}} == {
        key: options[key] for key in options.keys() - {"lr", "seed", "max_lr_snapshot"}
    }
    if "eps_placement" in group:
        assert found.eps.partition(";")[0] == group["eps_placement"]
        assert found.start.partition(" ")[0] == f"{group['initial_square_avg']:g}"


def test_what_arguments_change():
    """Each of these was read from a source."""
    assert member("mxnet2_rmsprop").eps == "outside; inside with centered"
    assert member("keras2_rmsprop").eps == "outside; inside with momentum"
    assert member("optax_rmsprop").eps == "inside; outside with eps_in_sqrt=False"
    assert member("blocks_rmsprop").eps == "floor"
    assert member("dl4j_rmsprop").start == "1e-08 or epsilon"
    assert member("torch7_rmsprop").start == "0 or initialMean"
    assert set(member("timm_rmsprop_tf").decay.split(", ")) == {"L2", "decoupled"}
    assert set(member("keras_rmsprop").clipping.split(", ")) == {"value", "norm", "norm of each"}
    assert member("puzzlelib_smorms3").averages == "SMORMS3"
    assert member("tensorflow_rmsprop").numbers == "α 0.9, ε 1e-10"
    said = "keras2_rmsprop: tf.keras 2, legacy, 2.15.0: plain, momentum, centered · ε outside; inside with momentum · lr inside of momentum"
    assert repr(presets.find("keras2")[0]).startswith(f"<{said}")


def test_equations():
    said = {name: equations(options_of(preset)) for name, preset in PRESETS.items()}
    assert said["torch_rmsprop"] == "v ← α·v + (1 − α)·g²; w ← w − lr·g / (√v + ε)"
    assert said["dqn2015"] == "g ← 32·g; v ← α·v + (1 − α)·g²; m ← α·m + (1 − α)·g; w ← w − lr·g / √(v − m² + ε)"
    assert said["efficientnet"] == "v ← α·v + (1 − α)·g², from 1; b ← μ·b + lr·g / √(v + ε); w ← w − b"
    assert said["neon_rmsprop"].endswith("w ← w − lr·g / (√(v + ε) + ε)")
    assert said["blocks_rmsprop"].endswith("w ← w − lr·g / max(√v, ε)")
    assert equations(options_of(PRESETS["torch_rmsprop"], centered=True, momentum=0.9)).endswith("g / (√(v − m²) + ε); w ← w − lr·b")


@pytest.mark.parametrize(
    ("word", "name"),
    [("torch", "torch_rmsprop"), ("keras", "keras_rmsprop"), ("dqn_", "dqn_zoo"), ("nasnet", "nasnet"), ("jax", "jax_rmsprop")],
)
def test_named(word, name):
    assert named(word) is PRESETS[name]


def run(capsys, arguments: str) -> tuple[int, str, str]:
    code = main(["presets", *shlex.split(arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_table(capsys):
    code, out, _ = run(capsys, "")
    assert code == 0
    assert all(name in out for name in PRESETS)
    code, out, _ = run(capsys, "impala --json")
    found = {row["name"]: row for row in json.loads(out)}["impala2018"]
    assert found["version"] == "scalable_agent, 6c0c8a7"
    assert (found["options"]["eps"], found["options"]["initial_square_avg"]) == (0.1, 1.0)


def test_diff(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "both.png"
    code, out, _ = run(capsys, f"--diff tensorflow torch --steps 20 --output {path}")
    assert code == 0
    assert "w ← w − lr·g / √(v + ε)" in out
    assert "initial_square_avg" in out
    assert "rescale_grad" not in out
    assert path.read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(capsys, f"--diff dqn2015 dqn_zoo --steps 20 --json --output {path}")
    found = json.loads(out)
    assert found["differs"] == {"eps": [0.01, 0.01 / 32**2], "rescale_grad": [32.0, 1.0]}
    _, out, _ = run(capsys, f"--diff tf torch --steps 3 --lr 1e30 --json --output {path}")
    assert "NaN" not in out
    assert "Infinity" not in out
    first, second = (torch.tensor(found["losses"][name]) for name in found["presets"])
    assert len(first) == 21
    assert torch.allclose(first, second, rtol=1e-4)  # the same rule, of sums and of means


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("zzz", "no preset is about 'zzz': fusedrms presets lists all"),
        ("--diff torch torch_rmsprop", "both are torch_rmsprop"),
        ("--diff puzzlelib_rmsprop_ torchx", "'torchx' is not a preset: take one of"),
        ("--diff tf torch --steps 0", "--steps 0"),
        ("--diff tf torch --lr nan", "--lr nan"),
        ("--diff m torch", "'m' begins several presets: take one of mindspore_rmsprop, mlx_rmsprop"),
        ("--diff '' torch", "'' is not a preset"),
        ("dqn --diff tf torch", "leave 'dqn' out"),
        ("--diff tf torch --steps 2 --output /dev/null/x.png", "--output /dev/null/x.png: "),
    ],
)
def test_wrong_arguments(capsys, arguments, said):
    code, out, err = run(capsys, arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_no_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = run(capsys, f"--diff tf torch --steps 2 --output {tmp_path / 'x.png'}")
    assert code == 2
    assert "pip install matplotlib" in err
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "--diff tf torch --steps 2")
    assert code == 0
    assert "no plot: it needs matplotlib" in out
    code, out, _ = run(capsys, "--diff tf torch --steps 2 --json")
    assert json.loads(out)["plot"] is None
    assert not list(tmp_path.iterdir())
    assert command.differing(PRESETS["mlx_rmsprop"], PRESETS["flux_rmsprop"]).keys() == {"lr", "alpha"}
