"""Writes docs/laws.md from the record of a run: see the end of that page for the commands."""

import collections
import datetime
import importlib.metadata
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from catalogue import ENTRIES
from gradtx import testing
from law_dimensions import DTYPES, MODES, TREES

PAGE = Path(__file__).parents[1] / "docs" / "laws.md"
PRODUCT = len(ENTRIES) * len(DTYPES) * len(TREES) * len(MODES)

INTRODUCTION = """# The laws

Every transform, optimizer and schedule of the catalogue (`tests/catalogue.py`) obeys these laws, and
`gradtx.testing.check(tx)` tests any optimizer against those that apply to it. The laws marked * are asked of
transforms of this library alone: they are about numbers in the state, absent gradients, masks and reprs.

A plain `pytest` tests every entry against the laws that its one compiled step serves. A law that compiles
programs of its own meets every feature of the engine and every kind of entry, and the other entries by turns:
a third of these meetings are in a plain run, two thirds in what CI runs. `--full` runs the whole product, of
every entry, dtype, kind of tree and mode.

"""

REPEATING = """
## To repeat it

    pytest tests/test_laws.py --optimized --junitxml=float32.xml
    pytest tests/test_laws.py --full -k laws_in_full --junitxml=product.xml
    python tests/laws_report.py float32.xml product.xml

`--optimized` compiles the machine code that users run. The product takes a quicker way through the compiler,
in which the programs are the same down to what is fused.
"""


def counted(files):
    """For each test function and law, how often it held and how often it was broken; and the cases.

    What a later file has of a test takes the place of what an earlier one has.
    """
    held, broken, cases = (collections.defaultdict(collections.Counter) for _ in range(3))
    found = {}
    for file in files:
        found |= {case.get("name"): case for case in ElementTree.parse(file).iter("testcase")}
    for case in found.values():
        function, _, label = case.get("name").partition("[")
        failed = case.find("failure") is not None or case.find("error") is not None
        cases[function][failed] += 1
        laws = [(p.get("value"), p.get("name") == "broken") for p in case.iter("property")]
        if not laws:
            laws = [(law, failed) for law in testing.LAWS if law in label]
        for law, wrong in laws:
            (broken if wrong else held)[function][law] += 1
    return held, broken, cases


def page(files):
    """The report as markdown."""
    held, broken, cases = counted(files)
    columns = {
        "float32": "test_law",
        "pairwise": "test_law_pairwise",
        "full product": "test_laws_in_full",
    }
    lines = ["| law | what it says |", "| --- | --- |"]
    for name, law in testing.LAWS.items():
        lines.append(f"| `{name}`{'*' * (name in testing.OURS)} | {law.__doc__} |")
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("jax", "jaxlib", "numpy"))
    day = datetime.date.today().isoformat()
    lines += [
        "",
        f"## Measured on {day}",
        "",
        f"Python {sys.version.split()[0]}, {versions}, on a CPU with eight simulated devices. Each number is "
        "how often a law was tested and held; how often one was broken would stand beside it. Of the "
        f"{PRODUCT:,} cases of the whole product {sum(cases['test_laws_in_full'].values()):,} have been run.",
        "",
        f"| law | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
    ]
    for name in testing.LAWS:
        row = []
        for function in columns.values():
            wrong = broken[function][name]
            row.append(f"{held[function][name]}{f', broken {wrong}' if wrong else ''}")
        lines.append(f"| `{name}` | {' | '.join(row)} |")
    total = [f"{cases[f][False]} passed, {cases[f][True]} failed" for f in columns.values()]
    lines.append(f"| tests | {' | '.join(total)} |")
    return INTRODUCTION + "\n".join(lines) + "\n" + REPEATING


if __name__ == "__main__":
    PAGE.write_text(page(sys.argv[1:]))
