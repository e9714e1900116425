"""`python -m tests.gallery` draws docs/gallery, and writes its pages and the data of the live page."""

from __future__ import annotations

import argparse
import os
import pathlib

# Compiling takes most of the time here, and a path of 150 steps none.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def main() -> None:
    from . import draw, live, pages
    from .members import PAGES

    argparse.ArgumentParser(prog="python -m tests.gallery", description=__doc__).parse_args()
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    for page in PAGES:
        for title, members in page.pictures.items():
            draw.save(draw.paths(title, members), folder / pages.picture_name(page, title))
    draw.save(draw.diverging(), folder / "diverging.svg")
    draw.save(draw.every_schedule(), folder / "schedules.svg")
    for name, text in pages.everything().items():
        (folder / name).write_text(text, encoding="utf-8")
    (DOCS / "live.md").write_text(live.page(), encoding="utf-8")
    (DOCS / "_static" / "live.json").write_text(live.text(), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.glob("*.svg"))
    print(f"docs/gallery: {len(list(folder.glob('*.svg')))} pictures of {size:,} bytes in all")


if __name__ == "__main__":
    main()
