"""What docs/scaling.md calculates from: counts that are still true, formulas, and what its command says."""

import pathlib
import re

import pytest

from fusedrms.kernels import lang
from fusedrms.tools import inspect
from fusedrms.tools.roofline import limit
from fusedrms.tools.variants import MODES, RULES, variant
from tools import refused

shards = pytest.importorskip("bench.studies.shards")
store = pytest.importorskip("bench.common.store")
scaling = pytest.importorskip("bench.studies.scaling")

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs/scaling.md").read_text()
RESULTS = store.load(scaling.COUNTS)
AGAIN = "count again: python -m bench.studies.scaling --count"


def cells(text: str) -> list[list[str]]:
    """Of the rows of tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.split("\n") if line.startswith("|")]


@pytest.mark.parametrize("rule", RULES)
def test_bytes(rule):
    found = shards.counted(RESULTS, rule)
    assert tuple(found) == MODES
    for mode, row in found.items():
        held = row["bytes"]
        assert sum(held.values()) == pytest.approx(2 * held["total"], abs=1e-3)
        assert held["tables"] + held["step"] < 0.002  # nothing beside what a table shows
        fixed = ("tables", "step", "total")  # by tensors, not by parameters
        now = scaling.held(rule, mode, 2**12)
        assert {**held, **dict.fromkeys(fixed)} == {**now, **dict.fromkeys(fixed)}, AGAIN
        assert row["moved"] == variant(rule, mode).storage.traffic, AGAIN


def test_bytes_of_the_readme():
    held = (row["bytes"] for row in shards.counted(RESULTS, "rmsprop").values())
    least = min(found["total"] - found["gradients"] for found in held)
    assert f"**{least:.2f} bytes a parameter.**" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("page", "heading", "n_modes"), [("large_models", "bfloat16", 7), ("precision", "Which to take", 5)])
def test_bytes_of_the_modes_to_take(page, heading, n_modes):
    """Held without the gradient and, where that is said, moved."""
    section = (ROOT / f"docs/{page}.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    words = {"float32": "master", "True": "stochastic"}
    rows = []
    for row in cells(section):
        options = re.findall(r'`[^`]*?(?:master_weights|stochastic_rounding)="?(\w+)"?(?:, state_dtype="(\w+)")?`', " ".join(row))
        numbers = [float(cell) for cell in row if re.fullmatch(r"[\d.]+", cell)]
        rows += [("+".join(["bfloat16", *(words.get(word, word) for word in found if word)]), numbers) for found in options if numbers]
    assert len(rows) == n_modes
    counted = shards.counted(RESULTS, "rmsprop")
    for mode, numbers in rows:
        held = counted[mode]["bytes"]
        known = [held["total"] - held["gradients"], counted[mode]["moved"]]
        assert numbers == pytest.approx(known[: len(numbers)], abs=0.03), mode


@pytest.mark.parametrize(("rule", "n_bytes"), RESULTS["foreach_moves"].items())
def test_bytes_of_foreach(rule, n_bytes):
    assert scaling.foreach_moves(rule) == n_bytes, AGAIN
    assert rule != "rmsprop" or n_bytes == 52  # as docs/scaling.md says


@pytest.mark.skipif(lang.triton is None or lang.interpreted(), reason="nothing compiles for GPUs here")
@pytest.mark.parametrize("mode", shards.SHOWN)
def test_instructions(mode):
    """Those of the tables; another Triton compiles other code."""
    if lang.triton.__version__ != RESULTS["triton"]:
        pytest.skip(f"counted with Triton {RESULTS['triton']}")
    gpu, row = shards.GPUS[shards.USUAL], shards.counted(RESULTS)[mode]
    now = limit(gpu, row["moved"], inspect.row(variant(shards.RULE, mode), gpu.target, True).instructions)
    then = limit(gpu, row["moved"], row["instructions"][gpu.target])
    assert now.by == then.by, AGAIN
    assert now.ns == pytest.approx(then.ns, rel=0.02), AGAIN


def test_formulas():
    gpu = shards.GPUS["h100"]._replace(memory=100e9, bandwidth=1e12, multiprocessors=100, clock=1e9)
    row = dict(bytes=dict(total=10.0), moved=20.0, instructions={gpu.target: 64.0})  # it could issue 256 meanwhile
    results = dict(host=dict(us={str(model.n_tensors): 300.0 for model in shards.MODELS}))
    assert shards.share(results, row, gpu, 80e9, 8) == pytest.approx((100, 0, 200, "memory"))
    assert shards.share(results, row, gpu, 88e9, 8).left == pytest.approx(-10)
    slow = {**row, "instructions": {gpu.target: 512.0}}
    assert shards.share(results, slow, gpu, 80e9, 8)[2:] == pytest.approx((400, "arithmetic"))
    assert shards.share(results, row, gpu, 1e9, 100)[2:] == pytest.approx((0.2, "host"))
    assert [shards.nearest(numel).name for numel in (1, 2e9, 7e9, 30e9, 1e12)] == ["1B", "1B", "8B", "13B", "405B"]


def test_tables():
    """By hand: float32 holds 12 bytes a parameter and moves 20, and an H200 moves 4.8 TB a second."""
    found = {(row[0], row[1]): row[2:] for row in cells(PAGE.partition("## Memory of a GPU")[2].partition("## A step")[0])}
    assert found["70B", "8"][0] == "105 GB (141)"
    assert found["70B", "64"][0] == "13.1 GB"
    assert found["405B", "8"][0] == "608 GB, does not fit"
    times = {(row[0], row[1]): row[3:] for row in cells(PAGE.partition("## A step")[2])}
    assert times["70B", "64"][0] == "4.56"
    assert times["405B", "8"][0] == "does not fit"
    assert times["1B", "1,024"][0] == "0.00407, host"
    assert len(found) == len(times) == 2 + len(shards.MODELS) * len(shards.COUNTS)


def test_words():
    """What the document says beside its tables."""
    assert "Calculated, not measured" in PAGE
    for gpu in shards.GPUS.values():
        assert re.search(rf"{gpu.name.split()[0]}\b[^.,]* {gpu.memory / shards.GB:g}\b", PAGE)
    assert RESULTS["device"] in PAGE


def test_examples(capsys):
    commands = re.findall(r"^python -m bench.studies.scaling (.*)$", PAGE, re.M)
    assert len(commands) == 2
    for command in commands:
        assert scaling.main(command.split()) == 0
        shown = capsys.readouterr().out
        assert [row[0] for row in cells(shown)[2:]] == list(MODES)
        assert "calculated lower bounds, not measured" in shown
    assert scaling.main(["--gpu", "H100", "--parameters", "70e9", "--gpus", "8"]) == 0
    rows = {row[0]: row[1:] for row in cells(capsys.readouterr().out)}
    assert rows["float32"][1:3] == ["105", "does not fit"]
    assert rows["bfloat16+split+8bit"][1:3] == ["61.8", "18.2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--gpu h300", "'h300' (choose from"),
        ("--parameters 70B", "'70B': give a number of at least 1, such as 70e9"),
        ("--parameters nan", "'nan': give a number"),
        ("--parameters inf", "'inf': give a number"),
        ("--parameters -1e9", "--parameters"),
        ("--gpus 0", "'0': give a whole number of at least 1, such as 64"),
        ("--gpus 2.5", "'2.5': give a whole number"),
        ("--rule adam", "'adam' (choose from"),
        ("--count --gpu h200", "--count and --time go alone"),
        ("--time --rule rmsprop", "--count and --time go alone"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    refused(scaling.main, arguments, said, capsys)
