"""The built site in a browser, on a desktop and on a phone: what is drawn, links, navigation, search."""

import os
import pathlib
import shutil
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from playwright.sync_api import expect, sync_playwright

SITE = pathlib.Path(__file__).parent.parent.parent / "build/site"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = dict(width=1280, height=800), dict(width=390, height=844)
SCREENS = {
    "desktop": dict(viewport=DESKTOP),
    "desktop-dark": dict(viewport=DESKTOP, color_scheme="dark"),
    "phone": dict(viewport=PHONE, is_mobile=True, has_touch=True),
}

# what reaches beyond the window's right edge, unless it scrolls in a box of its own
OVERFLOWING = """() => {
    const scrolls = e => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
    const width = document.documentElement.clientWidth;
    const beyond = e => e.checkVisibility() && e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement);
    const found = [...document.querySelectorAll("article *, body > *")].filter(beyond).map(e => e.outerHTML.slice(0, 200));
    return document.documentElement.scrollWidth > width ? ["the page", ...found] : found;
}"""
UNDRAWN = """() => {
    const empty = e => { const box = e.getBoundingClientRect(); return e.checkVisibility() && !(box.width && box.height); };
    return [
        ...document.querySelectorAll("merror"),
        ...[...document.querySelectorAll("math")].filter(empty),
        ...[...document.images].filter(e => !e.naturalWidth),
    ].map(e => e.outerHTML.slice(0, 200));
}"""
CLICKABLE = "a.md-tabs__link, .md-nav--primary a.md-nav__link, .md-nav--primary label"
# of what can be clicked there: the link to the URL, else what opens its section, else the way back from another
NEXT = """(all, url) => {
    const middle = box => [box.x + box.width / 2, box.y + box.height / 2];
    const shows = e => e.contains(document.elementFromPoint(...middle(e.getBoundingClientRect())));
    const opens = e => e.matches("label.md-nav__link") && [...e.parentElement.querySelectorAll("a")].some(a => a.href === url);
    const shown = all.filter(shows);
    return all.indexOf(shown.find(e => e.href === url) ?? shown.find(opens) ?? shown.find(e => e.matches(".md-nav__title")));
}"""
NAVIGATION = """() => [...document.querySelectorAll(".md-nav--primary a.md-nav__link:not([href^='#'])")].map(e => e.href)"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser():
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path, f"there is none of {', '.join(BROWSERS)}: install one, or set CHROMIUM=/path/to/one"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="session", params=SCREENS)
def screen(request):
    return request.param


@pytest.fixture(scope="session")
def opened(browser, address, screen):
    """A tab of the browser, and all that goes wrong in it."""
    context, faults = browser.new_context(**SCREENS[screen], reduced_motion="reduce"), []
    tab = context.new_page()
    tab.set_default_timeout(30_000)
    tab.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("requestfailed", lambda request: faults.append(f"{request.url} failed"))
    tab.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:", "blob:")) else faults.append(f"{request.url} asked for"),
    )
    tab.on("response", lambda response: faults.append(f"{response.url}: {response.status}") if response.status >= 400 else None)
    yield tab, faults
    context.close()


@pytest.fixture
def tab(opened):
    tab, faults = opened
    yield tab
    seen, faults[:] = faults[:], []
    assert not seen


def test_the_site_is_there():
    assert PAGES, f"no page in {SITE}: make docs builds it"


@pytest.mark.parametrize("path", PAGES)
def test_page(tab, screen, address, path):
    assert tab.goto(address + path).status == 200
    size = SCREENS[screen]["viewport"]
    tab.set_viewport_size({**size, "height": min(tab.evaluate("document.body.scrollHeight"), 12_000)})
    tab.screenshot(path=SITE.parent / f"screenshots/{screen}/{path.removesuffix('.html')}.jpg", animations="disabled", type="jpeg")
    tab.set_viewport_size(size)
    assert tab.evaluate(OVERFLOWING) == []
    assert tab.evaluate(UNDRAWN) == []


class Anchors(HTMLParser):
    """What a page may be asked for, and what it asks for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids, self.links = {""}, set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = {key: value for key, value in attrs if value}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        self.links |= {given[key] for key in ("href", "src") if key in given}


@cache
def anchors(path: pathlib.Path) -> Anchors:
    return Anchors(path.read_text())


@pytest.mark.parametrize("path", PAGES)
def test_links(path):
    """They lead to files of the site, and to ids that are there."""
    dead = []
    for link in anchors(SITE / path).links:
        target, anchor = map(unquote, urldefrag(urljoin(f"site:///{path}", link)))
        if not target.startswith(("https:", "mailto:")):
            file = SITE / target.removeprefix("site:///")
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file() or (file.suffix == ".html" and anchor not in anchors(file).ids):
                dead.append(link)
    assert not dead


@pytest.mark.parametrize("screen", ["desktop", "phone"], indirect=True)
def test_navigation(tab, screen, address):
    """Each page of it is reached by clicks, on a phone through the drawer."""
    tab.goto(f"{address}quickstart.html")
    urls = tab.evaluate(NAVIGATION)
    assert len(urls) > 30
    buttons = tab.locator(CLICKABLE)
    for url in urls:
        if screen == "phone":
            tab.locator("label.md-header__button[for=__drawer]").click()
        for _ in range(3):
            button = buttons.nth(buttons.evaluate_all(NEXT, url))
            leads = button.get_attribute("href")
            button.click()
            if leads:
                break
        tab.wait_for_url(url)
        expect(tab.locator("h1")).to_be_visible()


@pytest.mark.parametrize("screen", ["desktop", "phone"], indirect=True)
@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("clip_grad_norm", "reference/optimizers.html"),
        ("dqn", "reference/presets.html"),
        ("checkpoint", "migrating.html"),
    ],
)
def test_search(tab, screen, address, words, path):
    tab.goto(address)
    if screen == "phone":
        tab.locator("label.md-header__button[for=__search]").click()
    tab.locator(".md-search__input").click()
    tab.keyboard.type(words)
    tab.locator(f".md-search-result__link[href*='{path}']").first.click()
    tab.wait_for_url(f"{address}{path}*")
    expect(tab.locator("h1")).to_be_visible()
