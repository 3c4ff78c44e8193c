"""The code of docs/trainers.md, and what all trainers are held to."""

import pathlib
import re
from typing import Any

import torch

PAGE = pathlib.Path(__file__).parents[2] / "docs/trainers.md"


def code(heading: str, kind: str = "python") -> str:
    """The block of a kind that stands below a heading."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(rf"^```{kind}\n(.*?)^```", section, re.S | re.M)
    return block


def run(heading: str, changes: dict[str, str] | None = None, kind: str = "python", **names: Any) -> dict[str, Any]:
    """Run it, with parts of it replaced, and return its names."""
    block = code(heading, kind)
    for old, new in (changes or {}).items():
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    exec(block, names)
    return names


def values(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([param.detach().flatten() for param in model.parameters()])


def distance(a: torch.nn.Module, b: torch.nn.Module) -> float:
    return (values(a) - values(b)).abs().max().item()
