"""The changelog's section of the present version, for a tag or a release: make release-notes.

It fails where the version is not ready: the section or its date is missing, it is not the newest, or CITATION.cff says something else.
"""

import pathlib
import re
import sys
from datetime import date

ROOT = pathlib.Path(__file__).parents[2]


class NotReady(Exception):
    """Why this cannot be released."""


def version(root: pathlib.Path) -> str:
    found = re.fullmatch(r'__version__ = "([^"]+)"\n', (root / "fusedrms/version.py").read_text())
    if not found:
        raise NotReady('fusedrms/version.py must be one line, __version__ = "X.Y.Z"')
    return found[1]


def section(changelog: str, released: str) -> tuple[date, str]:
    """The date and the text of a version, which must be the newest one."""
    _, *parts = re.split(r"^## ", changelog, flags=re.M)
    titles = [part.partition("\n")[0] for part in parts]
    named = [title for title in titles if not title.startswith("[Unreleased]")]
    ours = [title for title in named if title.startswith(f"[{released}]")]
    if len(ours) != 1:
        raise NotReady(f"CHANGELOG.md has {len(ours)} sections of {released}: write one, ## [{released}] - {date.today()}")
    if named[0] != ours[0]:
        raise NotReady(f"CHANGELOG.md begins with {named[0]!r}, and fusedrms/version.py says {released}: the newest version must be first")
    dated = re.fullmatch(rf"\[{re.escape(released)}\] - (\d{{4}}-\d\d-\d\d)", ours[0])
    try:
        day = date.fromisoformat(dated[1]) if dated else None
    except ValueError:
        day = None
    if day is None:
        raise NotReady(f"CHANGELOG.md: {ours[0]!r} needs the day of the release: ## [{released}] - {date.today()}")
    text = parts[titles.index(ours[0])].partition("\n")[2]
    text = re.split(r"^\[[^\]]+\]: http", text, flags=re.M)[0].strip()
    if not re.search(r"^\* ", text, re.M):
        raise NotReady(f"CHANGELOG.md says nothing of {released}")
    return day, addressed(text, changelog, released)


def addressed(text: str, changelog: str, released: str) -> str:
    """With links that lead to files by address: a release's page, or a package's, is not in the repository, where they begin."""
    project = re.search(rf"^\[{re.escape(released)}\]: (https://[^/\s]+/[^/\s]+/[^/\s]+)/", changelog, re.M)
    if not project:
        raise NotReady(f"CHANGELOG.md needs a link at its end: [{released}]: https://github.com/OWNER/NAME/...")
    for beginning, kind in ((r"(!\[[^\]]*\]\()", "raw"), (r"(\]\()", "blob")):
        text = re.sub(rf"{beginning}(?!https?:|#)", rf"\1{project[1]}/{kind}/v{released}/", text)
    return text


def notes(root: pathlib.Path = ROOT) -> str:
    """The text of the present version.

    Raises:
        NotReady: with the reason.
    """
    released = version(root)
    day, text = section((root / "CHANGELOG.md").read_text(), released)
    cited = dict(re.findall(r"^(version|date-released): (.*)$", (root / "CITATION.cff").read_text(), re.M))
    wanted = {"version": released, "date-released": str(day)}
    if cited != wanted:
        raise NotReady(f"CITATION.cff says {cited}, and CHANGELOG.md {wanted}")
    return text


if __name__ == "__main__":
    try:
        print(notes())
    except (NotReady, OSError) as error:
        sys.exit(f"release-notes: {error}")
