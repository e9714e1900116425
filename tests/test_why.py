"""The experiments of docs/why.md: claims hold, and not of other methods; the page and its pictures."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from why import EXPERIMENTS, page, style
from why.experiment import SEEDS, exchanges, false_statements

DOCS = Path(__file__).parent.parent / "docs"
NUMBER = r"[\d.,]*\d|diverged"
each_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("seed", SEEDS)
@each_experiment
def test_the_claim_holds_and_fails_if_two_methods_are_exchanged(experiment, seed):
    measured = experiment.measured(seed)
    statements = list(experiment.claim(*measured))
    assert false_statements(experiment, measured) == []
    for exchanged in exchanges(measured):
        assert false_statements(experiment, exchanged) == statements


def test_the_page_has_a_place_and_a_picture_for_each_experiment():
    text = (DOCS / "why.md").read_text()
    names = [experiment.name for experiment in EXPERIMENTS]
    assert list(page.blocks(text)) == names
    assert re.findall(r"\]\(why/(\w+)\.svg\)", text) == names
    assert {path.stem for path in (DOCS / "why").iterdir()} == set(names)


def numbers(cell):
    """The median, the least and the most in a cell of a table; all the same where it has one number."""
    found = [float(x.replace(",", "").replace("diverged", "inf")) for x in re.findall(NUMBER, cell)]
    return found if len(found) == 3 else found * 3


def table(block):
    """The words of the table in a block, and the numbers of its cells."""
    lines = [line for line in block.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return rows[0], [row[0] for row in rows[1:]], [[numbers(cell) for cell in row[1:]] for row in rows[1:]]


@pytest.mark.wide
@each_experiment
def test_the_page_says_what_is_measured(experiment):
    """To what processors and versions differ in, by which a network at a high rate takes another path."""
    written = page.blocks((DOCS / "why.md").read_text())[experiment.name]
    made = page.block(experiment)
    *words, figures = table(written)
    *made_words, made_figures = table(made)
    assert words == made_words
    for row, made_row in zip(figures, made_figures, strict=True):
        for (median, *_), (_, least, most) in zip(row, made_row, strict=True):
            assert 0.85 * least <= median <= 1.15 * most
    without_table = [re.sub(r"^\|.*\n", "", block, flags=re.M) for block in (written, made)]
    assert without_table[0] == without_table[1]


def texts(path):
    return [element.text for element in ElementTree.parse(path).iter() if element.tag.endswith("}text")]


@pytest.mark.wide
@each_experiment
def test_the_picture_is_the_same_each_time_and_its_text_is_text(experiment, tmp_path):
    for name in ("one", "again"):
        with style.applied():
            style.save(experiment.draw(experiment.runs()), tmp_path / f"{name}.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    committed = DOCS / "why" / f"{experiment.name}.svg"
    assert texts(committed) == texts(tmp_path / "one.svg") != []
    assert committed.stat().st_size < 60_000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (1e-9, "0"),
        (6.54e-5, "0.000065"),
        (0.104, "0.10"),
        (3.0, "3"),
        (3.16, "3.2"),
        (28_944.0, "28,900"),
        (float("inf"), "diverged"),
    ],
)
def test_how_a_figure_is_shown(value, words):
    assert page.shown(value) == words


def test_a_page_without_a_place_for_an_experiment_is_an_error():
    with pytest.raises(ValueError, match="measured: momentum"):
        page.rewritten("# A page\n", EXPERIMENTS)
