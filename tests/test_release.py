"""What a release says of itself: one version everywhere, notes from the changelog, and what GitHub and pre-commit read."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTES = ROOT / "tests/wheel/release_notes.py"
READ = ("CHANGELOG.md", "CITATION.cff", "fusedrms/version.py")
VERSION = ast.literal_eval((ROOT / "fusedrms/version.py").read_text().partition(" = ")[2])
TITLE = re.search(rf"^## \[{re.escape(VERSION)}\] - .*$", (ROOT / "CHANGELOG.md").read_text(), re.M)


def noted(root: pathlib.Path) -> subprocess.CompletedProcess:
    """The script in a copy of what it reads."""
    (root / "tests/wheel").mkdir(parents=True, exist_ok=True)
    (root / "tests/wheel/release_notes.py").write_bytes(NOTES.read_bytes())
    command = [sys.executable, "tests/wheel/release_notes.py"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path) -> pathlib.Path:
    for name in READ:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def test_this_version_can_be_released():
    run = subprocess.run([sys.executable, NOTES], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("### ")
    assert "\n## " not in run.stdout
    assert "]: http" not in run.stdout
    links = re.findall(r"\]\(([^)]*)\)", run.stdout)
    assert f"https://github.com/fusedrms/fusedrms/blob/v{VERSION}/docs/rules.md" in links
    assert all(link.startswith("https://") for link in links)


def test_nothing_else_says_a_version_of_its_own():
    assert TITLE
    assert 'version = { attr = "fusedrms.version.__version__" }' in (ROOT / "pyproject.toml").read_text()


TITLED = TITLE[0] if TITLE else ""
WRONG = {
    "no section": ("CHANGELOG.md", TITLED, "## [9.9.9] - 2026-01-01", f"has 0 sections of {VERSION}"),
    "two sections": ("CHANGELOG.md", TITLED, f"{TITLED}\n\n* x\n\n{TITLED}", f"has 2 sections of {VERSION}"),
    "no date": ("CHANGELOG.md", TITLED, f"## [{VERSION}]", "needs the day of the release"),
    "no such day": ("CHANGELOG.md", TITLED, f"## [{VERSION}] - 2026-02-30", "needs the day of the release"),
    "undated": ("CHANGELOG.md", TITLED, f"## [{VERSION}] - Unreleased", "needs the day of the release"),
    "a later version": ("CHANGELOG.md", TITLED, f"## [99.0.0] - 2026-01-01\n\n* x\n\n{TITLED}", "begins with '[99.0.0] - 2026-01-01'"),
    "nothing in it": ("CHANGELOG.md", TITLED, f"{TITLED}\n\n## [0.0.1] - 2026-01-01\n", f"says nothing of {VERSION}"),
    "no link": ("CHANGELOG.md", f"\n[{VERSION}]: https", "\nhttps", f"needs a link at its end: [{VERSION}]:"),
    "another version": ("fusedrms/version.py", VERSION, "9.9.9", "has 0 sections of 9.9.9"),
    "no version": ("fusedrms/version.py", "__version__", "version", 'must be one line, __version__ = "X.Y.Z"'),
    "another citation": ("CITATION.cff", f"version: {VERSION}", "version: 0.0.1", "CITATION.cff says {'version': '0.0.1'"),
    "another day": ("CITATION.cff", "date-released: 2", "date-released: 1", "CITATION.cff says"),
}


@pytest.mark.parametrize(("file", "old", "new", "said"), WRONG.values(), ids=WRONG)
def test_what_is_not_ready_is_said(copy, file, old, new, said):
    text = (copy / file).read_text()
    assert text.count(old) == 1
    (copy / file).write_text(text.replace(old, new))
    run = noted(copy)
    assert run.returncode == 1
    assert not run.stdout
    assert run.stderr.startswith("release-notes: ")
    assert said in run.stderr


@pytest.mark.parametrize("name", READ)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    run = noted(copy)
    assert run.returncode == 1
    assert name in run.stderr
    assert "Traceback" not in run.stderr


def test_versions_of_the_changelog_go_down_and_have_links():
    text = (ROOT / "CHANGELOG.md").read_text()
    titles = re.findall(r"^## \[(.*?)\](?: - (\S+))?$", text, re.M)
    assert titles[0] == ("Unreleased", "")
    assert len(titles) == len(re.findall(r"^## ", text, re.M))
    released = [(tuple(map(int, name.split("."))), day) for name, day in titles[1:]]
    assert released == sorted(set(released), reverse=True)
    assert re.findall(r"^\[(.*?)\]: https://github.com/fusedrms/fusedrms/", text, re.M) == [name for name, _ in titles]
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.M)) <= kinds


def test_pre_commit_runs_make_lint_and_has_no_list_of_its_own():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"^ +entry: (.*)$", text, re.M) == ["make lint"]
    assert re.findall(r"repo: (.*)$", text, re.M) == ["local"]


# of files beside which nothing may be tracked; the largest are tables of figures
KINDS = {".c", ".cff", ".css", ".in", ".json", ".md", ".png", ".py", ".svg", ".toml", ".txt", ".typed", ".xz", ".yaml", ".yml", ""}
MOST_BYTES = 400_000


def test_nothing_is_tracked_that_a_run_has_left():
    """A checkpoint that a page's code saves, a build, a trace."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no repository")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert not [path for path in files if path.suffix not in KINDS]
    assert not [path for path in files if path.is_file() and path.stat().st_size > MOST_BYTES]
