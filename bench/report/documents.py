"""The tables of the documents: each stands after a marker that names its file of figures, and comes from that file alone.

<!-- from bench/results/cpu-AMD_EPYC/step.json: torch -->

The table "provenance" says of most files where their figures come from. What presets are comes from their code:
<!-- from fusedrms/presets: presets -->.
"""

import pathlib
from collections.abc import Callable

from bench.common.arguments import ROOT
from bench.common.store import load
from bench.gpu import headline
from bench.report import provenance, steps
from bench.studies import bits, drift, group_size, modes, one_pass, own_rules, shards, versions
from bench.studies.against import table as against
from bench.studies.family import table as family
from bench.studies.precision import table as precision
from fusedrms.tools.files import write

PAGES = ("README.md", "docs/*.md")
BEGIN, END = "<!-- from ", " -->"
SOURCES = (provenance, steps, precision, drift, modes, bits, group_size, one_pass, own_rules, shards, headline, versions, against, family)
TABLES: dict[str, Callable[[dict], list[str]]] = {name: made for source in SOURCES for name, made in source.TABLES.items()}


def marked(line: str) -> tuple[str, str] | None:
    """The file and the table that a marker names; None if the line is none."""
    if not (line.startswith(BEGIN) and line.endswith(END)):
        return None
    path, _, name = line.removeprefix(BEGIN).removesuffix(END).rpartition(": ")
    if name not in TABLES:
        raise ValueError(f"{line}: there is no table {name!r}; there are {', '.join(TABLES)}")
    return path, name


def filled(text: str, root: pathlib.Path = ROOT) -> str:
    """A document with the lines of each marked table made anew."""
    lines: list[str] = []
    stale = False
    for line in text.split("\n"):
        stale = stale and line.startswith("|")
        if stale:
            continue
        lines.append(line)
        if marker := marked(line):
            path, name = marker
            lines += TABLES[name](load(root / path) if path.endswith(".json") else {})
            stale = True
    return "\n".join(lines)


def refill(root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """Write the tables of all documents; those that have changed."""
    changed = []
    for page in (page for pattern in PAGES for page in sorted(root.glob(pattern))):
        old = page.read_text()
        if (new := filled(old, root)) != old:
            write(page, new)
            changed.append(page)
    return changed
