"""fusedrms memory: bytes that agree with what was counted, models' sizes, and what it says of wrong arguments."""

import json
import pathlib
import re
import shlex
import sys

import pytest
import torch
from rich.console import Console

from fusedrms.kernels import lang
from fusedrms.tools import footprint, models, printing
from fusedrms.tools.cli import main
from fusedrms.tools.variants import MODES, RULES, make, parse_mode
from tools import refused

pytestmark = pytest.mark.skipif(lang.interpreted(), reason="the commands are about compiled kernels")

PAGE = (pathlib.Path(__file__).parent.parent / "docs/scaling.md").read_text()
KEYS = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads")
TIED = dict(tie_word_embeddings=True)
OF_128 = dict(head_dim=128)
A3B = dict(OF_128, num_experts=128, moe_intermediate_size=768, decoder_sparse_step=1, mlp_only_layers=[])
A2_7B = dict(num_experts=60, moe_intermediate_size=1408, shared_expert_intermediate_size=5632)
PUBLISHED = {  # parameters of each, tied ones counted once; its config's model_type, numbers by KEYS, and other numbers
    "Llama 2 7B": (6_738_415_616, "llama", (4096, 32, 11008, 32000, 32, 32), {}),
    "Llama 3 8B": (8_030_261_248, "llama", (4096, 32, 14336, 128256, 32, 8), {}),
    "Llama 3 70B": (70_553_706_496, "llama", (8192, 80, 28672, 128256, 64, 8), {}),
    "Llama 3.1 405B": (405_853_388_800, "llama", (16384, 126, 53248, 128256, 128, 8), {}),
    "Llama 3.2 1B": (1_235_814_400, "llama", (2048, 16, 8192, 128256, 32, 8), {**TIED, "head_dim": 64}),
    "Qwen2.5 0.5B": (494_032_768, "qwen2", (896, 24, 4864, 151936, 14, 2), TIED),
    "Qwen2.5 7B": (7_615_616_512, "qwen2", (3584, 28, 18944, 152064, 28, 4), {}),
    "Qwen3 0.6B": (596_049_920, "qwen3", (1024, 28, 3072, 151936, 16, 8), {**TIED, **OF_128}),
    "Qwen3 8B": (8_190_735_360, "qwen3", (4096, 36, 12288, 151936, 32, 8), OF_128),
    "Mistral 7B": (7_241_732_096, "mistral", (4096, 32, 14336, 32000, 32, 8), {}),
    "Mistral Nemo": (12_247_782_400, "mistral", (5120, 40, 14336, 131072, 32, 8), OF_128),
    "Mixtral 8x7B": (46_702_792_704, "mixtral", (4096, 32, 14336, 32000, 32, 8), dict(num_local_experts=8)),
    "Qwen3 30B-A3B": (30_532_122_624, "qwen3_moe", (2048, 48, 6144, 151936, 32, 4), A3B),
    "Qwen1.5 MoE A2.7B": (14_315_784_192, "qwen2_moe", (2048, 24, 5632, 151936, 16, 16), A2_7B),
}
SMALL = dict(zip(KEYS, (8, 2, 16, 32, 4, 2), strict=True), model_type="llama")


def config(tmp_path: pathlib.Path, values: object) -> pathlib.Path:
    path = tmp_path / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def printed(arguments: str, capsys) -> dict:
    assert main(["memory", *arguments.split(), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def found(report: dict) -> dict[str, dict]:
    return {row["name"]: row for row in report["rows"]}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes(name, tmp_path):
    numel, model_type, numbers, others = PUBLISHED[name]
    path = config(tmp_path, {"model_type": model_type, **dict(zip(KEYS, numbers, strict=True)), **others})
    assert models.numel(models.Config(path).shapes()) == models.numel(models.Config(tmp_path).shapes()) == numel


@pytest.mark.parametrize(
    ("others", "more"),
    [
        (dict(num_key_value_heads=None), 2 * 2 * (8 - 4) * 8),  # as many as there are heads
        (dict(attention_bias=True), 2 * (8 + 4 + 4 + 8)),
        (dict(mlp_bias=True), 2 * (16 + 16 + 8)),
        (dict(head_dim=4), 2 * 2 * (8 + 4) * 8),
        (TIED, -32 * 8),
        (dict(model_type="qwen2", attention_bias=False), 2 * (8 + 4 + 4)),
        (dict(model_type="qwen3_moe", head_dim=2, num_experts=3, moe_intermediate_size=4, mlp_only_layers=[1]), 2 * 4 + 3 * 8 - 3 * 8 * 4),
        (
            dict(model_type="qwen3_moe", head_dim=2, num_experts=3, moe_intermediate_size=4, decoder_sparse_step=2),
            2 * 4 + 3 * 8 - 3 * 8 * 4,
        ),
    ],
    ids=str,
)
def test_numbers_of_a_config(others, more, tmp_path):
    """Against the same without them: 2 layers, width 8."""
    plain = 2 * 32 * 8 + 8 + 2 * ((8 + 4 + 4 + 8) * 8 + 3 * 16 * 8 + 2 * 8)
    assert models.numel(models.Config(config(tmp_path, {**SMALL, **others})).shapes()) == plain + more


@pytest.mark.parametrize("rule", RULES)
def test_bytes_are_those_that_were_counted(rule):
    """By scaling.json, after a step; here before any."""
    shards, scaling = pytest.importorskip("bench.studies.shards"), pytest.importorskip("bench.studies.scaling")
    for mode, counted in shards.counted(scaling.load(scaling.COUNTS), rule).items():
        held = counted["bytes"]
        states = sum(value for key, value in held.items() if key not in shards.BESIDE)
        expected = held["parameters"], held["gradients"], held.get(shards.MASTER, 0), states
        way = footprint.mode(rule, mode)
        assert way.of((2**20,)).scaled(2**-20) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_shapes_are_exact(mode):
    """What prepare() makes of the first shards: 33 rows of 65, 1 of 1, 4 of 7."""
    shapes = models.parse("2*65x3,1x7,7")
    params = [torch.nn.Parameter(torch.zeros(shape, dtype=parse_mode(mode)[0])) for shape in ((33, 3), (33, 3), (1, 7), (4,))]
    optimizer = make("rmsprop_centered", mode, params)
    optimizer.prepare()
    memory = optimizer.memory()
    row = footprint.row(footprint.mode("rmsprop_centered", mode), shapes, 2, 1e9)
    assert row.held.total == memory.parameters * 2 + sum(n_bytes for key, n_bytes in memory.states.items() if key != "step")
    assert row.left == 1e9 - row.held.total


def test_a_job(capsys):
    """70e9 parameters on 8 H200 of 141 GB; by hand."""
    report = printed("--parameters 70e9 --gpus 8 --mode all", capsys)
    assert (report["parameters"], report["gpus"], report["gpu"], report["memory"]) == (70 * 10**9, 8, "H200", 141e9)
    rows = found(report)
    assert tuple(name for name, row in rows.items() if row["kind"] == "mode") == MODES
    assert rows["float32"]["bytes"]["total"] == 105e9
    assert rows["float32"]["left"] == 36e9
    assert rows["float32"]["largest"] == 8 * 141 * 10**9 // 12
    assert not rows["float64"]["fits"]
    assert rows["bfloat16+split+8bit"]["per_parameter"] == dict(parameters=2, gradients=2, masters=2, states=1.0625, total=7.0625)
    totals = {name: row["per_parameter"]["total"] for name, row in rows.items() if row["kind"] != "mode"}
    assert totals == {
        "torch RMSprop, float32": 12,
        "torch RMSprop, bfloat16": 6,
        "torch AdamW, float32": 16,
        "AdamW, mixed precision": 16,
        "FlashOptim AdamW": 7.125,
        "FlashOptim, no gradients": 5.125,
        "bitsandbytes RMSprop8bit": 5.015625,
        "bitsandbytes AdamW8bit": 6.03125,
        "torchao AdamW8bit": 6.03125,
        "torchao AdamW4bit": 5.0625,
    }
    assert all(source[1].startswith("https://") for row in rows.values() for source in row["sources"])
    assert all(row["sources"] for row in rows.values() if row["kind"] != "mode")


def test_rules_and_gradients(capsys):
    rows = found(printed("--parameters 1e9 --rule rmsprop_centered_momentum --mode float32,bfloat16+split+ema --in-backward", capsys))
    assert rows["float32"]["per_parameter"]["total"] == 4 + 3 * 4
    assert rows["bfloat16+split+ema"]["per_parameter"] == dict(parameters=2, gradients=0, masters=2, states=16, total=20)
    assert rows["torch RMSprop, bfloat16"]["per_parameter"]["total"] == 4 + 3 * 2
    assert not any("RMSprop," in name for name in found(printed("--parameters 1e9 --rule smorms3", capsys)))


@pytest.mark.parametrize("fits", [True, False])
def test_largest(fits, capsys):
    """It fits, and a thousandth more does not."""
    largest = found(printed("--parameters 1 --gpus 7 --memory 1e9", capsys))
    more = {name: row["largest"] * (1 if fits else 1.001) for name, row in largest.items()}
    for name, numel in more.items():
        assert found(printed(f"--parameters {numel} --gpus 7 --memory 1e9", capsys))[name]["fits"] == fits


def test_table_of_80_columns(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(printing, "console", lambda: Console(width=80))
    path = tmp_path / "memory.png"
    assert main(["memory", "--parameters", "405e9", "--gpus", "8", "--mode", "all", "--output", str(path)]) == 0
    shown = capsys.readouterr().out
    for mode in MODES:
        assert re.search(rf"^ {re.escape(mode)} ", shown, re.M)
    assert "no fit" in shown
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert printed("--parameters 1e9", capsys)["plot"] is None
    assert main(["memory", "--parameters", "1e9", "--output", str(tmp_path / "x.png")]) == 2
    assert "a plot needs matplotlib" in capsys.readouterr().err


def test_examples(capsys, tmp_path, monkeypatch):
    """Those of the page."""
    monkeypatch.chdir(tmp_path)
    config(tmp_path, SMALL)
    commands = re.findall(r"^fusedrms (memory .*?)(?: +#.*)?$", PAGE, re.M)
    assert len(commands) == 4
    for command in commands:
        assert main(shlex.split(command)) == 0
    assert (tmp_path / "memory.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "one of the arguments --parameters --config --shapes is required"),
        ("--parameters 70B", "'70B': give a number of at least 1, such as 70e9"),
        ("--parameters 1e9 --shapes 3", "not allowed with argument"),
        ("--shapes 3x", "'3x' is no shape"),
        ("--shapes 8,0x3", "'0x3' is no shape: give sizes of at least 1, such as 8192x1024, or 80*8192x1024"),
        ("--shapes *3", "'*3' is no shape"),
        ("--parameters 1e9 --gpus 0", "'0': give a whole number of at least 1"),
        ("--parameters 1e9 --gpus ²", "'²': give a whole number of at least 1"),
        ("--parameters 1e9 --gpu h300", "'h300' (choose from"),
        ("--parameters 1e9 --memory 0", "'0': give a number of at least 1"),
        ("--parameters 1e9 --memory 1e9 --gpu h100", "not allowed with argument"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    refused(main, f"memory {arguments}", said, capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--parameters 1e30", "the model has 2e+18 parameters or more: give one of at most 1e+18"),
        ("--shapes 4000000000x4000000000", "the model has 1.6e+19 parameters"),
        ("--parameters 1e9 --mode float8", "'float8' is not supported: it must be DTYPE"),
        ("--parameters 1e9 --rule adam", "'adam' is unknown: take one of"),
        ("--parameters 1e9 --mode float16+split", "master_weights='split' is for bfloat16"),
        ("--parameters 1e9 --mode ,", "at least one"),
        ("--parameters 1e9 --rule smorms3 --mode float64+8bit", "float64"),
        ("--parameters 1e9 --output /dev/null/x.png", "--output /dev/null/x.png"),
        ("--config /nowhere/config.json", "--config /nowhere/config.json: No such file or directory: give a model's config.json"),
    ],
)
def test_what_cannot_be_done(arguments, said, capsys):
    assert main(["memory", *arguments.split()]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("{", "it is not JSON"),
        ("[]", "it holds a JSON list, not an object"),
        ({}, "model_type None is not supported, only llama, mistral"),
        ({**SMALL, "model_type": "gemma3"}, "model_type 'gemma3' is not supported, only llama, mistral"),
        ({**SMALL, "model_type": ["llama"]}, "model_type ['llama'] is not supported, only"),
        (
            {key: value for key, value in SMALL.items() if key != "vocab_size"},
            "has no 'vocab_size'; it must be a whole number of at least 1",
        ),
        ({**SMALL, "hidden_size": "8"}, "'hidden_size' is '8'; it must be a whole number of at least 1; or use --parameters"),
        ({**SMALL, "num_hidden_layers": 0}, "'num_hidden_layers' is 0"),
        ({**SMALL, "num_hidden_layers": True}, "'num_hidden_layers' is True"),
        ({**SMALL, "head_dim": 2.5}, "'head_dim' is 2.5"),
        ({**SMALL, "model_type": "mistral", "num_key_value_heads": None}, "'num_key_value_heads' is None"),
        ({**SMALL, "model_type": "qwen3"}, "has no 'head_dim'"),
        ({**SMALL, "model_type": "mixtral"}, "has no 'num_local_experts'"),
        ({**SMALL, **A3B, "model_type": "qwen3_moe", "mlp_only_layers": 1}, "'mlp_only_layers' is 1; it must be a list of layers"),
    ],
    ids=str,
)
def test_wrong_configs(values, said, capsys, tmp_path):
    assert main(["memory", "--config", str(config(tmp_path, values))]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "config.json" in error
