"""`python -m tests.gallery` draws docs/gallery and a picture for each name, and writes the pages."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

# Compiling takes most of the time here, and a path of 150 steps none.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # where what all pictures share is

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def main() -> None:
    from . import draw, live, pages, symbols
    from .members import PAGES

    argparse.ArgumentParser(prog="python -m tests.gallery", description=__doc__).parse_args()
    folder = DOCS / "gallery"
    (folder / "symbols").mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        for title, members in page.pictures.items():
            draw.save(draw.paths(title, members), folder / pages.picture_name(page, title))
    draw.save(draw.diverging(), folder / "diverging.svg")
    draw.save(draw.every_schedule(), folder / "schedules.svg")
    for name, text in pages.everything().items():
        (folder / name).write_text(text, encoding="utf-8")
    (DOCS / "live.md").write_text(live.page(), encoding="utf-8")
    (DOCS / "_static" / "live.json").write_text(live.text(), encoding="utf-8")
    for name, picture in symbols.PICTURES.items():
        draw.save(picture(), folder / "symbols" / f"{name}.svg")
    for where in (folder, folder / "symbols"):
        sizes = [path.stat().st_size for path in where.glob("*.svg")]
        print(f"{where.relative_to(DOCS.parent)}: {len(sizes)} pictures of {sum(sizes):,} bytes in all")


if __name__ == "__main__":
    main()
