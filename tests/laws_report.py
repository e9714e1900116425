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
from test_laws_in_presets import CASES

PAGE = Path(__file__).parents[1] / "docs" / "laws.md"
PRODUCT = len(ENTRIES) * len(DTYPES) * len(TREES) * len(MODES)
COLUMNS = {
    "float32": ("test_laws", "test_law"),
    "pairwise": ("test_laws", "test_law_pairwise"),
    "full product": ("test_laws", "test_laws_in_full"),
    "presets in full": ("test_laws_in_presets", "test_laws_in_full"),
}
"""By the name of a column, the module and the test of which it counts the cases."""

INTRODUCTION = """# The laws

Every transform, optimizer and schedule of the catalogue (`tests/catalogue.py`) obeys these laws, and
`gradtx.testing.check(tx)` tests any optimizer against those that apply to it. The laws marked * are asked of
transforms of this library alone: they are about numbers in the state, absent gradients, masks and reprs.

A plain `pytest` tests every entry against the laws that its one compiled step serves. A law that compiles
programs of its own meets every feature of the engine and every kind of entry, and the other entries by turns:
a third of these meetings are in a plain run, two thirds in what CI runs. `--full` runs the whole product, of
every entry, dtype, kind of tree and mode, and that of every entry, preset of `gradtx.precision` and kind of
tree, with slots in fewer bits.

"""

MEASURED = f"""## Measured

On a CPU with eight simulated devices. Each number is how often a law was tested and held; how often one was
broken would stand beside it. A column is as old as it says: the catalogue and the laws may have grown since.
Where it has no number, its run met that law in no case. Today the full product has {PRODUCT:,} cases, and
that of the presets {len(CASES):,}; each case is of all laws that have a meaning in it.

"""

REPEATING = """
## To repeat it

    pytest tests/test_laws.py --optimized --junitxml=float32.xml
    pytest tests/test_laws.py --full -k laws_in_full --junitxml=product.xml
    pytest tests/test_laws_in_presets.py --full -k laws_in_full --junitxml=presets.xml
    python tests/laws_report.py float32.xml product.xml presets.xml

Without the record of a run the page keeps what it has of it. `--optimized` compiles the machine code that
users run. The products take a quicker way through the compiler, in which the programs are the same down to
what is fused.
"""


def counted(files):
    """For each module, test and law, how often it held and how often it was broken; and the cases.

    What a later file has of a test takes the place of what an earlier one has.
    """
    held, broken, cases = (collections.defaultdict(collections.Counter) for _ in range(3))
    found = {}
    for file in files:
        found |= {
            (case.get("classname", "").rpartition(".")[-1], case.get("name")): case
            for case in ElementTree.parse(file).iter("testcase")
        }
    for (module, name), case in found.items():
        function, _, label = name.partition("[")
        test = module, function
        failed = case.find("failure") is not None or case.find("error") is not None
        cases[test][failed] += 1
        laws = [(p.get("value"), p.get("name") == "broken") for p in case.iter("property")]
        if not laws:
            laws = [(law, failed) for law in testing.LAWS if law in label]
        for law, wrong in laws:
            (broken if wrong else held)[test][law] += 1
    return held, broken, cases


def measured(files):
    """By the name of a column that the files have cases of, its cells by the label of a row."""
    held, broken, cases = counted(files)
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "numpy"))
    about = {
        "day": datetime.date.today().isoformat(),
        "with": ", ".join([f"Python {sys.version.split()[0]}", *versions]),
    }
    columns = {}
    for column, test in COLUMNS.items():
        if cases[test]:
            columns[column] = {**about, "tests": f"{cases[test][False]} passed, {cases[test][True]} failed"}
            for name in testing.LAWS:
                wrong = broken[test][name]
                if held[test][name] or wrong:
                    cell = f"{held[test][name]}{f', broken {wrong}' if wrong else ''}"
                    columns[column][f"`{name}`"] = cell
    return columns


def kept(text):
    """The same of what a page has, in the table that the columns stand in."""
    rows = [[x.strip() for x in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    heads = [i for i, row in enumerate(rows) if row[1:] and set(row[1:]) <= set(COLUMNS)]
    table = rows[heads[-1] :] if heads else [[]]
    return {
        column: {row[0]: row[i] for row in table[2:] if row[i]}
        for i, column in enumerate(table[0])
        if column in COLUMNS
    }


def page(files):
    """The report as markdown."""
    found = kept(PAGE.read_text()) | measured(files)
    columns = [column for column in COLUMNS if column in found]
    lines = ["| law | what it says |", "| --- | --- |"]
    for name, law in testing.LAWS.items():
        lines.append(f"| `{name}`{'*' * (name in testing.OURS)} | {law.__doc__} |")
    table = [f"| law | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for label in (*(f"`{name}`" for name in testing.LAWS), "tests", "day", "with"):
        table.append(f"| {label} | {' | '.join(found[column].get(label, '') for column in columns)} |")
    return "\n".join([INTRODUCTION + "\n".join(lines), "", MEASURED + "\n".join(table), REPEATING])


if __name__ == "__main__":
    PAGE.write_text(page(sys.argv[1:]))
