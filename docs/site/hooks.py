"""What MkDocs needs to take its pages from a repository that is read on its own too: files outside of docs/, and mathematics.

Links are those that hold in the repository. A file outside of docs/ comes into the site when a page links to it: pictures and data
as they are, all else, which browsers would download, as a page with its text.
"""

import logging
import posixpath
import re
from html import unescape
from pathlib import Path
from typing import Any

import pygments
from math_core import LatexError, LatexToMathML
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound

log = logging.getLogger("mkdocs.hooks.site")  # whose warnings fail a strict build
ROOT = Path(__file__).parent.parent.parent
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
REPORTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("bench/results/*/report.md"))
SHOWN = {".json", ".png", ".svg"}  # by browsers
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
CODE = re.compile(r"<(pre|code)\b.*?</\1>", re.DOTALL)
FENCED = re.compile(r"^( *)(```+).*?^\1\2", re.DOTALL | re.MULTILINE)
ITEM_IN_TEXT = re.compile(r"<p>(?:(?!</p>).)*?\n((?:[-*+]|1\.) [^\n<]*)", re.DOTALL)
LEFT_OVER = re.compile(r"\$\$|\\[a-zA-Z]{2,}")


class Repository(Files):
    """The files of docs/, and those around it by paths from there, `../bench/results/one_pass.json`, which come in when asked for."""

    def __init__(self, files: Files, config: MkDocsConfig) -> None:
        super().__init__(files)
        self.config = config
        for name in PAGES:
            self._add(name, "index.html" if name == "README.md" else f"{name[:-3].lower()}.html", InclusionLevel.INCLUDED)
        for path in REPORTS:
            self._add(path, f"{path[:-3]}.html", InclusionLevel.NOT_IN_NAV)

    def get_file_from_path(self, path: str) -> File | None:
        path = posixpath.normpath(posixpath.join("docs", path))
        uri = posixpath.relpath(path, "docs")
        if uri not in self.src_uris and uri.startswith("../") and (ROOT / path).is_file() and Path(path).suffix != ".md":
            shown = Path(path).suffix in SHOWN
            file = self._add(path, path if shown else f"{path}.html", InclusionLevel.INCLUDED)
            if not shown:
                file.content_string = as_page(path)
        return self.src_uris.get(uri)

    def _add(self, path: str, target: str, inclusion: InclusionLevel) -> File:
        uri = posixpath.relpath(path, "docs")
        file = File(uri, self.config.docs_dir, self.config.site_dir, use_directory_urls=False, dest_uri=target, inclusion=inclusion)
        self.append(file)
        return file


def as_page(path: str) -> str:
    """A file of text as HTML."""
    try:
        lexer = get_lexer_for_filename(path)
    except ClassNotFound:
        lexer = TextLexer()
    light, dark = (HtmlFormatter(style=style) for style in ("default", "github-dark"))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{path}</title>
<style>
{light.get_style_defs()}
@media (prefers-color-scheme: dark) {{
{dark.get_style_defs()}
}}
h1 {{ font: 1.5em system-ui; overflow-wrap: anywhere }}
pre {{ overflow-x: auto }}
</style>
</head>
<body>
<h1>{path}</h1>
{pygments.highlight((ROOT / path).read_text(), lexer, light)}
</body>
</html>
"""


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    return Repository(files, config)


def on_page_markdown(markdown: str, page: Page, **_: Any) -> None:
    for line in re.findall(r"^(?: {1,3}| {5,7})(?:[-*+]|\d+\.) .*", FENCED.sub("", markdown), re.MULTILINE):
        log.warning("%s has an item of a list within another that is not 4 spaces to the right of it: %s", page.file.src_uri, line)
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]  # a list of itself alone


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """LaTeX becomes MathML, which browsers draw without a script."""
    converter = LatexToMathML(fancy_error=False)

    def mathml(match: re.Match[str]) -> str:
        latex = unescape(match[2]).strip()
        try:
            formula = converter.convert_with_local_state(latex, displaystyle=match[1] == "div")
        except LatexError as error:
            log.warning("%s has a formula that is no LaTeX, %s: %s", page.file.src_uri, latex, error)
            return match[0]
        return f'<{match[1]} class="formula">{formula}</{match[1]}>'

    html = FORMULA.sub(mathml, html)
    for left in LEFT_OVER.findall(CODE.sub("", html)):
        log.warning("%s has %s outside of a formula: $$ stands on lines of its own, after an empty one", page.file.src_uri, left)
    for item in ITEM_IN_TEXT.findall(CODE.sub("", html)):
        log.warning("%s has a list without an empty line before it: %s", page.file.src_uri, item)
    return html
