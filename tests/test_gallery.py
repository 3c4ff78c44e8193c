"""The gallery: its pages come from the scripts as they are, which run."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from filelock import FileLock

from bench import gallery
from fusedrms.kernels import lang

if lang.interpreted():
    pytest.skip("about the Numba driver", allow_module_level=True)

NAME = gallery.names()[0]
INDEX = gallery.PAGES / "index.md"
PICTURE = r"!\[([^\]]+)\]\((\w+_files/\d+\.png)\)"

SCRIPT = """# what editors are told
# %% [markdown]
# # Title
#
# Text.

# %% A picture
x = 1

# %% More
# a remark
y = 2
"""
CELLS = [
    gallery.Cell("[markdown]", "# Title\n\nText.", False),
    gallery.Cell("A picture", "x = 1", True),
    gallery.Cell("More", "# a remark\ny = 2", True),
]


def scripted(name: str) -> list[gallery.Cell]:
    return gallery.cells((gallery.SCRIPTS / f"{name}.py").read_text())


def test_cells():
    assert gallery.cells(SCRIPT) == CELLS


def test_render():
    """What is printed and drawn stands below its cell in its order; several prints are one block."""
    printed, drawn = [{"text": "a\n"}, {"text": "b  \n"}], {"data": {"image/png": "AAAA", "text/plain": "<Figure>"}}
    page, pictures = gallery.render("name", CELLS, [[*printed, drawn, {"data": {"text/plain": "\x1b[1ma table\x1b[0m\n"}}], []])
    assert page.startswith(
        "# Title\n\nText.\n\n```python\nx = 1\n```\n\n```text\na\nb\n```\n\n![A picture](name_files/1.png)\n\n```text\na table\n```\n\n"
        "```python\n# a remark\ny = 2\n```\n\n---\n"
    )
    assert "make gallery ARGS=name" in page
    assert pictures == {"1.png": bytes(3)}


def test_publish(tmp_path, monkeypatch):
    """Pictures that a page has no more go; nothing else stays beside it."""
    monkeypatch.setattr(gallery, "PAGES", tmp_path)
    gallery.publish("name", "before", {"1.png": b"1", "2.png": b"2"})
    gallery.publish("name", "after", {"1.png": b"3"})
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"name.md": b"after", "name_files/1.png": b"3"}


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A folder of pages with one."""
    monkeypatch.setattr(gallery, "PAGES", tmp_path)
    gallery.publish(NAME, "before", {"1.png": b"1"})
    yield tmp_path
    assert (tmp_path / f"{NAME}.md").read_text() == "before"
    assert (tmp_path / f"{NAME}_files/1.png").read_bytes() == b"1"


def test_a_cell_fails(committed, monkeypatch, capsys):
    """The page stays as it is."""

    def fails(_):
        raise RuntimeError("what the cell said")

    monkeypatch.setattr(gallery, "execute", fails)
    with pytest.raises(SystemExit, match="1"):
        gallery.main([NAME])
    assert f"error: {NAME}: what the cell said" in capsys.readouterr().err


def test_two_at_once(committed, monkeypatch, capsys):
    """The second one ends at once."""
    monkeypatch.setattr(gallery, "execute", lambda _: pytest.fail("it executes"))
    with FileLock(gallery.LOCK), pytest.raises(SystemExit, match="1"):
        gallery.main([NAME])
    assert "another one is making pages" in capsys.readouterr().err


@pytest.mark.parametrize("name", gallery.names())
def test_a_page_is_its_script(name):
    """Else `make gallery` has not run since the script was edited."""
    page = (gallery.PAGES / f"{name}.md").read_text()
    cells = scripted(name)
    assert re.findall(r"^```python\n(.*?)\n```$", page, re.S | re.M) == [cell.text for cell in cells if cell.is_code]
    at = 0
    for cell in cells:
        at = page.index(cell.text, at) + len(cell.text)
    assert f"executed by `make gallery ARGS={name}`" in page[at:]
    shown = re.findall(PICTURE, page)
    assert {alt for alt, _ in shown} <= {cell.title for cell in cells}
    assert {file for _, file in shown} == {f"{name}_files/{path.name}" for path in (gallery.PAGES / f"{name}_files").iterdir()}
    assert all((gallery.PAGES / file).stat().st_size <= 100_000 for _, file in shown)


def test_index():
    """It has each page, with one of its pictures."""
    text = INDEX.read_text()
    assert {path.stem for path in gallery.PAGES.glob("*.md")} - {"index"} == {*gallery.names()}
    for name in gallery.names():
        assert f"]({name}.md)" in text
    shown = [file for _, file in re.findall(PICTURE, text)]
    assert [file.partition("_files/")[0] for file in shown] == re.findall(r"^## \[.*\]\((\w+)\.md\)$", text, re.M)
    assert all((gallery.PAGES / file).is_file() for file in shown)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", gallery.names())
def test_a_script_runs(name, tmp_path):
    """In small, as a plain script, from another folder and without Jupyter."""
    for package in ("matplotlib", *(["gymnasium"] if name.startswith("a3c") else [])):
        pytest.importorskip(package)
    path = os.pathsep.join((str(gallery.ROOT), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "GALLERY_SMALL": "1", "MPLBACKEND": "Agg", "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore:FigureCanvasAgg is non-interactive", gallery.SCRIPTS / f"{name}.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout
    assert not [*pathlib.Path(tmp_path).iterdir()]
