"""Execute the scripts of examples/gallery/ and write a page of each, docs/gallery/NAME.md, with outputs and pictures.

    python -m bench.gallery                # all; make gallery installs what it needs before
    python -m bench.gallery gpt_bfloat16   # one

A script is in the percent format: `# %% [markdown]` begins a cell of text and `# %% TITLE` one of code, whose title is the
text of its pictures. Each is executed in a Jupyter kernel of its own. Its page is written once all cells have run.
"""

from __future__ import annotations

import base64
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from bench.common.arguments import ROOT, chosen, make_parser, writing
from bench.common.machine import machine
from fusedrms.tools.files import write

SCRIPTS, PAGES = ROOT / "examples/gallery", ROOT / "docs/gallery"
HELPER = "page"  # which all import
COLORS = re.compile("\x1b\\[[0-9;]*m")  # of a terminal
PATIENCE = 1200  # seconds for a cell
LOCK = Path(tempfile.gettempdir(), f"fusedrms-gallery-{os.getuid()}-{os.stat(ROOT).st_ino}.lock")  # of this checkout


class Cell(NamedTuple):
    title: str
    text: str
    is_code: bool


def names() -> list[str]:
    """The scripts that have a page."""
    return sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem != HELPER)


def cells(script: str) -> list[Cell]:
    """The cells of a script, given as text; what stands before the first is none."""
    found = []
    _, *parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        is_code = "[markdown]" not in title
        text = body if is_code else re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        found.append(Cell(title.strip(), text.strip("\n"), is_code))
    return found


def execute(parts: list[Cell]) -> list[list[Any]]:
    """What each cell of code puts out, as Jupyter's messages, in a process that starts in the scripts' folder.

    Raises:
        RuntimeError: a cell has failed; the message has its traceback.
    """
    from nbclient import NotebookClient  # pyright: ignore[reportMissingImports] (of the extra gallery)
    from nbclient.exceptions import CellExecutionError  # pyright: ignore[reportMissingImports] (of the extra gallery)
    from nbformat.v4 import new_code_cell, new_notebook  # pyright: ignore[reportMissingImports] (of the extra gallery)
    from traitlets.config import Config  # pyright: ignore[reportMissingImports] (of the extra gallery)

    notebook = new_notebook(cells=[new_code_cell(cell.text) for cell in parts if cell.is_code])
    environment = {name: value for name, value in os.environ.items() if name != "GALLERY_SMALL"}  # of the tests
    path = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as folder:
        config = Config(KernelManager=dict(transport="ipc", ip=f"{folder}/kernel"))  # TCP would let other users of the machine in
        client = NotebookClient(notebook, config=config, timeout=PATIENCE, resources={"metadata": {"path": str(SCRIPTS)}})
        try:
            client.execute(env={**environment, "PYTHONPATH": path, "JUPYTER_COLUMNS": "140"})
        except CellExecutionError as error:
            raise RuntimeError(str(error)) from None
    return [cell.outputs for cell in notebook.cells]


def printed(outputs: Iterable[Any]) -> str:
    """One block of what outputs say, one after the other."""
    texts = (output.get("text") or output.get("data", {}).get("text/plain", "").rstrip() + "\n" for output in outputs)
    lines = [line.rstrip() for line in COLORS.sub("", "".join(texts)).strip("\n").splitlines()]
    return "\n".join(["```text", *lines, "```"])


def render(name: str, parts: list[Cell], outputs: list[list[Any]]) -> tuple[str, dict[str, bytes]]:
    """A page, and its pictures by file name."""
    blocks, pictures, remaining = [], {}, iter(outputs)
    for cell in parts:
        if not cell.is_code:
            blocks.append(cell.text)
            continue
        blocks.append(f"```python\n{cell.text}\n```")
        for is_picture, group in itertools.groupby(next(remaining), lambda output: "image/png" in output.get("data", {})):
            if not is_picture:
                blocks.append(printed(group))
                continue
            for output in group:
                file = f"{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(output["data"]["image/png"])
                blocks.append(f"![{cell.title}]({name}_files/{file})")
    return "\n\n".join([*blocks, footer(name)]) + "\n", pictures


def footer(name: str) -> str:
    """What has made a page."""
    about = machine(torch.device("cpu"), f"make gallery ARGS={name}")
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "fusedrms", "kernels", "examples"], cwd=ROOT, check=False).returncode
    commit = about["commit"][:10] + " with changes" * bool(changed)
    versions = ", ".join(f"{key} {about[key.lower()]}" for key in ("Python", "torch", "Triton", "Numba"))
    return (
        f"---\n\n[examples/gallery/{name}.py](../../examples/gallery/{name}.py), executed by `{about['command']}`: {versions}; "
        f"{about['device']}, {about['date']}, commit {commit}."
    )


def publish(name: str, page: str, pictures: dict[str, bytes]) -> None:
    """Write a page's files, each in one go, and remove pictures that it no longer has."""
    folder = PAGES / f"{name}_files"
    for file, content in pictures.items():
        write(folder / file, content)
    write(PAGES / f"{name}.md", page)
    for path in folder.glob("*"):
        if path.name not in pictures:
            path.unlink()


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench.gallery", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all, {', '.join(names())}")
    given = parser.parse_args(argv)
    asked = chosen(parser, given.names or None, names(), "NAME")
    lock = FileLock(LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        parser.exit(1, f"{parser.prog}: error: another one is making pages of this folder; wait until it ends\n")
    with lock, writing(parser):
        for name in asked:
            print(f"executing {name}", flush=True)
            parts = cells((SCRIPTS / f"{name}.py").read_text())
            try:
                outputs = execute(parts)
            except (ImportError, RuntimeError) as error:
                remedy = "; make gallery installs it" if isinstance(error, ImportError) else ""
                parser.exit(1, f"{parser.prog}: error: {name}: {error}{remedy}\n")
            publish(name, *render(name, parts, outputs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
