"""The code in the documents runs as it stands there."""

import pathlib
import re

import pytest
import torch

from tools import parameters, random_grads

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ["README.md", "docs/coming_from.md", "docs/precision.md"]


def run_blocks(page: str) -> dict:
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M):
        exec(block, names)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_blocks(page):
    assert run_blocks(page)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_every_row_of_coming_from():
    names = run_blocks("docs/coming_from.md")
    text = (ROOT / "docs/coming_from.md").read_text()
    calls = re.findall(r"^\|[^|]*\|[^|]*\| `([^`|]*\(.*?\))` \|", text, re.M)
    presets = {name for name in vars(names["presets"]) if f"presets.{name}(" in text}
    assert len(calls) == 14
    assert len(presets) == 11
    for call in calls:
        params = parameters([(3,), (2, 2)])
        random_grads(params)
        before = [param.detach().clone() for param in params]
        made = eval(call, {**names, "params": params, "optimizer": names["FusedRMSProp"](params)})
        getattr(made, "optimizer", made).step()  # of a schedule, its optimizer's
        assert all(not torch.equal(p, q) for p, q in zip(params, before, strict=True))
