"""The code in the documents runs as it stands there, and their links hold."""

import contextlib
import io
import os
import pathlib
import re
import subprocess
import sys
from functools import cache
from urllib.parse import unquote

import pytest
import torch

from fusedrms.rules.words import WORDS
from tools import parameters, random_grads

ROOT = pathlib.Path(__file__).parent.parent
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PAGES = [
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.parent.name != "gallery" and page.name != "trainers.md" and "\n```python\n" in page.read_text()
]  # the gallery comes from executed scripts; tests/integrations run what trainers.md has

DOCUMENTS = sorted(
    str(page.relative_to(ROOT)) for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench/results").rglob("*.md"))
)
FENCE = re.compile(r"^( *)(```+).*?^\1\2", re.S | re.M)


def run_blocks(page: str) -> dict:
    """The names of all blocks. A block ```text right after one is what it prints."""
    names: dict = {}
    for block, printed in re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", (ROOT / page).read_text(), re.S | re.M):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(block, names)
        assert printed in ("", out.getvalue())
    return names


@pytest.mark.parametrize("page", PAGES)
def test_blocks(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where some save a checkpoint
    assert run_blocks(page)


@cache
def anchors_of(path: pathlib.Path) -> list[str]:
    """GitHub's, of its headings, and those of the API reference."""
    text = FENCE.sub("", path.read_text())
    headings = [re.sub(r"[`*]|\]\([^)]*\)", "", heading) for heading in re.findall(r"^#+ +(.*?) *$", text, re.M)]
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings] + re.findall(r"^::: ([\w.]+)", text, re.M)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links(document):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", (ROOT / document).read_text()))
    for link in re.findall(r"\]\(([^)\s]+)", text):
        if not link.startswith(("https://", "mailto:")):
            path, _, anchor = unquote(link).partition("#")
            target = (ROOT / document).parent / path if path else ROOT / document
            assert target.is_file(), f"{link}: no such file"
            if anchor and target.suffix == ".md":
                known = anchors_of(target)
                member = any(anchor.startswith(f"{name}.") for name in known)
                # of equal headings GitHub's anchors are not the site's
                assert known.count(anchor) == 1 or (member and anchor not in known), f"{link}: {known.count(anchor)} such headings"


def test_project_address():
    """Whatever names it has the one of mkdocs.yml."""
    address = re.compile(r"https://github\.com/[\w-]+/fusedrms\b")
    files = [path for suffix in ("md", "toml", "yml", "cff") for path in (*ROOT.glob(f"*.{suffix}"), *ROOT.glob(f".github/**/*.{suffix}"))]
    named = {str(path.relative_to(ROOT)): set(address.findall(path.read_text())) for path in files}
    assert len(named["mkdocs.yml"]) == 1
    assert named["README.md"]
    assert set().union(*named.values()) == named["mkdocs.yml"]


def test_words_of_rules():
    """The page has a name of every word that a rule may say, and no other."""
    (listed,) = re.findall(r"<!-- the words -->\n(.*?)\n\n", (ROOT / "docs/rules.md").read_text(), re.S)
    named = set(re.findall(r"[a-z_0-9]{2,}", " ".join(re.findall(r"`([^`]*)`", listed))))
    assert named <= WORDS.keys()
    assert {WORDS[name] for name in named} >= {word for name, word in WORDS.items() if not name.startswith("_")}


def run_program(block: str, folder: pathlib.Path, *launcher: str) -> str:
    """What a block prints that is a program of its own."""
    (folder / "block.py").write_text(block)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "block.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_program_that_starts_processes(tmp_path):
    text = (ROOT / "docs/reinforcement_learning.md").read_text()
    ((block, printed),) = re.findall(r"^```python script\n(.*?)^```\n\n```text\n(.*?)^```", text, re.S | re.M)
    assert run_program(block, tmp_path) == printed


@pytest.mark.exhaustive
def test_blocks_of_several_processes(tmp_path):
    blocks = re.findall(r"^```python torchrun\n(.*?)^```", (ROOT / "docs/several_gpus.md").read_text(), re.S | re.M)
    for block in blocks:  # a thread of gloo that still holds a tensor aborts Python's end
        run_program(f"{block}\nimport os\nos._exit(0)", tmp_path, *TORCHRUN)
    assert len(list((tmp_path / "checkpoint").glob("*.distcp"))) == 2


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_every_row_of_coming_from():
    names = run_blocks("docs/coming_from.md")
    text = (ROOT / "docs/coming_from.md").read_text()
    calls = re.findall(r"^\|[^|]*\|[^|]*\| `([^`|]*\(.*?\))` \|", text, re.M)
    named = {member.name for member in names["presets"].find()}
    assert {name for name in named if any(f"presets.{name}(" in call for call in calls)} == named - {"torch_rmsprop"}
    for call in calls:
        params = parameters([(3,), (2, 2)])
        random_grads(params)
        before = [param.detach().clone() for param in params]
        made = eval(call, {**names, "params": params, "optimizer": names["FusedRMSProp"](params)})
        getattr(made, "optimizer", made).step()  # of a schedule, its optimizer's
        assert all(not torch.equal(p, q) for p, q in zip(params, before, strict=True))
