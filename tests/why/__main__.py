"""The experiments of docs/why.md: `python -m tests.why` draws the pictures and writes what was measured."""

from __future__ import annotations

import argparse
import pathlib

from . import EXPERIMENTS, page, style

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def main() -> None:
    argparse.ArgumentParser(prog="python -m tests.why", description=__doc__).parse_args()
    (DOCS / "why").mkdir(exist_ok=True)
    for experiment in EXPERIMENTS:
        with style.applied():
            style.save(experiment.draw(experiment.runs()), DOCS / "why" / f"{experiment.name}.svg")
    text = (DOCS / "why.md").read_text(encoding="utf-8")
    (DOCS / "why.md").write_text(page.rewritten(text, EXPERIMENTS), encoding="utf-8")
    print(f"docs/why.md and {len(EXPERIMENTS)} pictures in docs/why")


if __name__ == "__main__":
    main()
