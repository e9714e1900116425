"""Looks at the built site as a reader does: links, mathematics, search, sliders, light and dark, a phone.

    python tests/site_in_browser.py                  # all of it; needs Chromium
    python tests/site_in_browser.py --links          # the links alone, without a browser
    python tests/site_in_browser.py --pictures DIR   # where the screenshots go

Build the site before, by the command in the README.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

BUILT = Path(__file__).parent.parent / "docs" / "_build" / "html"
SHOWN = {
    "home": "index.html",
    "tutorial": "tutorials/14-choosing-one.html",
    "symbol": "api/adamw.html",
    "gallery": "gallery/index.html",
    "live": "live.html",
}
"""The pages of which there are pictures."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""What Chromium is called."""

LOOKS = {"light": (1400, 1000), "dark": (1400, 1000), "phone": (390, 844)}
"""How they are looked at: the width and the height of the screen."""

Page = Any


class Read(HTMLParser):
    """What a page links to, the names of its places, and its mathematics."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.formulas: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [given[name] or "" for name in ("href", "src") if name in given]
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        if tag in ("div", "span"):
            self._inside = "math" in (given.get("class") or "").split()
            if self._inside:
                self.formulas.append("")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.formulas[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def read(site: Path) -> dict[str, Read]:
    """The pages of the site by their address in it."""
    pages = {str(p.relative_to(site)): Read(p.read_text()) for p in sorted(site.rglob("*.html"))}
    return {name: page for name, page in pages.items() if not name.startswith("_")}


def broken_links(site: Path, pages: dict[str, Read]) -> Iterator[str]:
    """The links within the site that lead nowhere."""
    for name, page in pages.items():
        for link in dict.fromkeys(page.links):
            if re.match(r"\w+:|//", link):
                continue
            target, place = urldefrag(urljoin(f"/{name}", link.partition("?")[0] or link))
            target = unquote(target).lstrip("/")
            if target.endswith("/") or not target:
                target += "index.html"
            if not (site / target).is_file():
                yield f"{name} links to {link}, which is not there"
            elif place and target in pages and unquote(place) not in pages[target].anchors:
                yield f"{name} links to {link}, and that page has no such place"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that says nothing."""

    def log_message(self, format: str, *args: Any) -> None: ...


class Server(http.server.ThreadingHTTPServer):
    """One that a reader may leave before a picture has come."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of a server of the site."""
    server = Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()


def look(site: Path, pages: dict[str, Read], pictures: Path, chromium: str) -> list[str]:
    """What a reader would find wrong."""
    from playwright.sync_api import sync_playwright

    wrong: list[str] = []
    with served(site) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def reader(look: str) -> Page:
            """An empty page, which tells of all that goes wrong on what it shows."""
            width, height = LOOKS[look]
            scheme = "dark" if look == "dark" else "light"
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()

            def heard(what: str) -> None:
                wrong.append(f"{page.url.removeprefix(base)}, {look}: {what}")

            page.on("console", lambda m: heard(m.text) if m.type in ("error", "warning") else None)
            page.on("pageerror", lambda e: heard(str(e)))
            page.on("request", lambda r: None if r.url.startswith(base) else heard(f"asks for {r.url}"))
            return page

        for look in LOOKS:
            page = reader(look)
            # The pages of symbols are made alike: one of them stands for all.
            others = [x for x in pages if not x.startswith("api/") or x.startswith("api/group-")]
            for name in [*others, *SHOWN.values()] if look == "phone" else SHOWN.values():
                _open(page, base + name)
                if page.evaluate("document.documentElement.scrollWidth") > LOOKS[look][0]:
                    wrong.append(f"{name} is wider than the screen, {look}")
                for kind in (kind for kind, shown in SHOWN.items() if shown == name):
                    page.screenshot(path=pictures / f"{kind}-{look}.png", full_page=True)
                    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
                    if (int(re.findall(r"\d+", colour)[0]) < 128) != (look == "dark"):
                        wrong.append(f"{name} is not {look}")
            if look == "light":
                _open(page, base + SHOWN["symbol"])
                wrong += _mathematics(page, pages)
                _open(page, base + SHOWN["home"])
                wrong += _search(page)
                _open(page, base + SHOWN["live"])
                wrong += _sliders(page)
            page.context.close()
        browser.close()
    return wrong


def _open(page: Page, address: str) -> None:
    """Until its mathematics and its type are set."""
    page.goto(address, wait_until="load")
    page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready }")


def _mathematics(page: Page, pages: dict[str, Read]) -> Iterator[str]:
    """One page is typeset when it is opened, and every formula of the site can be."""
    page.wait_for_selector("mjx-container", timeout=20_000)
    written, shown = (page.locator(f"article {what}").count() for what in (".math", "mjx-container"))
    if written != shown:
        yield f"of {written} formulas {shown} are shown as mathematics"
    formulas = {f: name for name, read in pages.items() for f in read.formulas if f.strip()}
    script = """async formulas => {
        const wrong = [];
        for (const f of formulas) {
            const made = await MathJax.tex2svgPromise(f.replace(/^\\s*\\\\[[(]|\\\\[\\])]\\s*$/g, ""));
            if (made.querySelector("[data-mjx-error], mjx-merror, [data-mml-node=merror]")) wrong.push(f);
        }
        return wrong;
    }"""
    for formula in page.evaluate(script, list(formulas)):
        yield f"{formulas[formula]}: MathJax cannot read {formula}"
    print(f"{len(formulas)} formulas are read by MathJax")


def _search(page: Page) -> Iterator[str]:
    page.fill("input[name=q]", "warmup")
    page.press("input[name=q]", "Enter")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    page.wait_for_timeout(500)
    found = page.locator("#search-results li a").all_inner_texts()
    print(f"search finds {len(found)} places for 'warmup'")
    if not any("warmup_cosine_decay_schedule" in text for text in found):
        yield f"a search for 'warmup' finds {found}"


def _sliders(page: Page) -> Iterator[str]:
    """Each slider of each optimizer, by the keyboard: another path, and other code."""
    page.wait_for_selector(".live-formula mjx-container", state="attached", timeout=20_000)

    def drawn() -> tuple[str, str]:
        return page.get_attribute("#live-path", "d"), page.inner_text(".live-code")

    moved = 0
    for optimizer in page.locator("#live-optimizer option").all_inner_texts():
        page.select_option("#live-optimizer", label=optimizer)
        if page.locator(".live-formula:visible").count() != 1:
            yield f"the live page does not show one formula for {optimizer}"
        for slider in page.locator(".live input[type=range]").all():
            name = slider.get_attribute("id")
            if page.locator(f"label[for={name}]").count() != 1:
                yield f"the live page has no label for {name}"
            slider.focus()
            page.keyboard.press("Home")
            least = drawn()
            page.keyboard.press("End")
            most = drawn()
            if least[0] == most[0]:
                yield f"on the live page {name} of {optimizer} does not move the path"
            if name != "live-steps" and least[1] == most[1]:
                yield f"on the live page {name} of {optimizer} does not change the code"
            if name == "live-learning_rate":  # a rate at which the other numbers matter
                for key in ("Home", "ArrowRight", "ArrowRight"):
                    page.keyboard.press(key)
            moved += 1
    before = drawn()[0]
    page.select_option("#live-function", label="Ravine")
    if drawn()[0] == before:
        yield "on the live page another function does not change the path"
    print(f"{moved} sliders of the live page were moved")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--site", type=Path, default=BUILT)
    parser.add_argument("--links", action="store_true", help="look at the links alone")
    parser.add_argument("--pictures", type=Path, help="a folder for the screenshots")
    parser.add_argument("--chromium", default=next(filter(None, map(shutil.which, BROWSERS)), None))
    options = parser.parse_args()
    pages = read(options.site)
    if not pages:
        sys.exit(f"There is no site in {options.site}. The README says how to build it.")
    wrong = list(broken_links(options.site, pages))
    print(f"{len(pages)} pages, {sum(len(p.links) for p in pages.values()):,} links")
    if not options.links:
        if options.chromium is None:
            sys.exit("There is no Chromium. Install it, or look at the links alone: --links.")
        pictures = options.pictures or Path(tempfile.mkdtemp(prefix="site-"))
        pictures.mkdir(parents=True, exist_ok=True)
        wrong += look(options.site, pages, pictures, options.chromium)
        print(f"screenshots are in {pictures}")
    for line in dict.fromkeys(wrong):
        print(line, file=sys.stderr)
    if wrong:
        sys.exit(f"{len(set(wrong))} things are wrong")


if __name__ == "__main__":
    main()
