"""Opens the gallery and the live page of the built site in a browser.

`python -m tests.gallery.browser docs/_build/html pictures` needs playwright, and a Chromium, whose
path may be in CHROMIUM. The sliders must move the drawn path, no page may say an error or ask another
server for anything, and screenshots are left in the second folder.
"""

from __future__ import annotations

import functools
import http.server
import os
import pathlib
import sys
import threading
from typing import Any

from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

LOOKS = {"light": (1200, 900), "dark": (1200, 900), "phone": (390, 844)}
PAGES = ("gallery/index", "gallery/adams", "gallery/schedules", "live")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # which no page names, and a browser asks for
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


def main(site: pathlib.Path, pictures: pathlib.Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    pictures.mkdir(parents=True, exist_ok=True)
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
            )
            for look, size in LOOKS.items():
                _visit(browser, address, look, size, pictures)
            browser.close()
    finally:
        server.shutdown()
    print(f"{len(PAGES)} pages in {len(LOOKS)} looks: no error, and the sliders move the path")


def _visit(browser: Any, address: str, look: str, size: tuple[int, int], pictures: pathlib.Path) -> None:
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if look == "dark" else "light"
    )
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(f"no answer: {request.url}"))
    page.on("request", lambda request: None if request.url.startswith(address) else wrong.append(request.url))
    for name in PAGES:
        page.goto(f"{address}/{name}.html", wait_until="networkidle")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than the screen ({look})"
        if name == "live":
            page.wait_for_selector(".live-formula mjx-container", state="attached")
            page.screenshot(path=pictures / f"live-{look}.png", full_page=True)
            _move(page)
        else:
            page.screenshot(path=pictures / f"{name.replace('/', '-')}-{look}.png", full_page=True)
    assert not wrong, wrong
    page.close()


def _move(page: Any) -> None:
    """Each slider of each optimizer, by the keyboard: another path, and other code."""

    def drawn() -> tuple[str, str]:
        return page.get_attribute("#live-path", "d"), page.inner_text(".live-code")

    for optimizer in page.locator("#live-optimizer option").all_inner_texts():
        page.select_option("#live-optimizer", label=optimizer)
        assert page.locator(".live-formula:visible").count() == 1
        for slider in page.locator(".live input[type=range]").all():
            name = slider.get_attribute("id")
            assert page.locator(f"label[for={name}]").count() == 1, name
            slider.focus()
            page.keyboard.press("Home")
            least = drawn()
            page.keyboard.press("End")
            most = drawn()
            assert least[0] != most[0], f"{name} of {optimizer} does not move the path"
            assert name == "live-steps" or least[1] != most[1], (
                f"{name} of {optimizer} does not change the code"
            )
            if name == "live-learning_rate":  # a rate at which the other numbers matter
                for key in ("Home", "ArrowRight", "ArrowRight"):
                    page.keyboard.press(key)
    before = drawn()[0]
    page.select_option("#live-function", label="Ravine")
    assert drawn()[0] != before


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
