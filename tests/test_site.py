"""What the site is made from: each name has a place, each link leads somewhere, formulas are right."""

import re
import sys
from pathlib import Path

import pytest

import gradtx
import site_in_browser

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

from reference import concepts, docstring, formulas, guides, latex, names  # noqa: E402

GUIDES = sorted(DOCS.glob("**/*.md"))
GUIDES = [p for p in GUIDES if not {"_build", "api"} & set(p.relative_to(DOCS).parts)]


def test_every_public_name_has_one_page():
    """A new name goes into a group of docs/_ext/reference/concepts.py."""
    pages = concepts.aliases()
    assert {*concepts.public()} == {*pages, *(other for others in pages.values() for other in others)}
    files = [names.file_of(name).lower() for name in pages]
    assert len(set(files)) == len(files)


def test_a_name_in_no_group_is_an_error(monkeypatch):
    monkeypatch.setattr(concepts, "GROUPS", concepts.GROUPS[1:])
    with pytest.raises(ValueError, match=r"In none: \[.*'sgd'"):
        concepts.aliases()


@pytest.mark.parametrize("path", GUIDES, ids=lambda p: str(p.relative_to(DOCS)))
def test_links_between_pages_lead_somewhere(path):
    """As files, as GitHub shows them; of the built site `tests/site_in_browser.py --links` says it."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"\w+:", link):
            continue
        file, _, place = link.partition("#")
        target = path.parent / file if file else path
        if target.parent.resolve() == (DOCS / "api").resolve():  # it is made with the site
            assert target.stem.startswith("group-") or target.stem in map(names.file_of, names.ALIASES), link
        else:
            assert target.exists(), f"{path.name} links to {link}"
            inside = target.resolve().is_relative_to(DOCS.resolve())
            assert inside or target.suffix != ".md", f"{path.name}: the site has no page for {link}"
        if place and target.suffix == ".md":
            titles = re.findall(r"^#{1,3} (.*)", target.read_text(), re.M)
            assert place in map(guides.slug, titles), f"{path.name} links to {link}"


def test_each_page_stands_in_one_table_of_contents():
    found = []
    for path in GUIDES:
        blocks = re.findall(r"^```{toctree}\n(.*?)^```$", path.read_text(), re.M | re.S)
        lines = [x for block in blocks for x in block.splitlines() if re.match(r"\w", x)]
        found += [page for x in lines for page in path.parent.glob(f"{x}.md") if page.parent.name != "api"]
    assert sorted(found) == [p for p in GUIDES if p != DOCS / "index.md"]


@pytest.mark.parametrize(
    "code, page",
    [
        ("gradtx.adam", "adam"),
        ("adamw(1e-3, mask=('!*bias',))", "adamw"),
        ("gradtx.tree.get(state, 'mu')", "tree.get"),
        ("gradtx.contrib.muon", "muon"),
        ("gradtx.bias_correction", "tree.bias_correction"),
        ("gradtx.Rule.apply", "Rule"),
        ("scale", None),
        ("scale(0.1)", "scale"),
        ("adam.b1", None),
        ("optax.adam(0.1)", None),
        ("losses", None),
    ],
)
def test_code_in_a_text_is_known_by_its_name(code, page):
    assert names.page_of(code) == page


def test_a_docstring_is_read_as_it_is_written():
    said = docstring.of(gradtx.adamw)
    assert said.summary.startswith("AdamW: Adam's direction u, and weight decay")
    assert [docstring.is_block(p) for p in said.body] == [False, True]
    assert said.items("Raises") == [("ValueError", "an unknown `decay_coupling`.")]
    assert [name for name, _ in said.items("Args")][:3] == ["learning_rate", "b1", "b2"]
    assert said.sections["Examples"].startswith(">>> import gradtx\n>>> ")


def test_formulas_are_written_as_papers_write_them():
    assert latex.lines(gradtx.formula(gradtx.lion(0.1))) == [
        r"{\mu}_{t} &= \beta_2\,{\mu}_{t-1} + \left(1 - \beta_2\right)\,g_t",
        r"u_t &= -\eta\,\left(\operatorname{sign}\left("
        r"\beta_1\,{\mu}_{t-1} + \left(1 - \beta_1\right)\,g_t"
        r"\right) + \lambda\,{\theta}_{t-1}\right)",
    ]
    assert latex.lines(gradtx.formula(gradtx.chain(gradtx.sqrt(), gradtx.offset(1e-3)))) == [
        r"u_t &= \sqrt{g_t} + \mathrm{value}"
    ]
    (line,) = latex.schedule_lines(gradtx.formula(gradtx.sgd(gradtx.constant_schedule(0.1))))
    assert line == r"s_n &= \mathrm{value}"


NO_MATHEMATICS = {
    "identity": "it changes nothing",
    **dict.fromkeys(
        ["lbfgs", "scale_by_lbfgs", "scale_by_backtracking_linesearch"],
        "a loop with many values, of which a formula has those that go in alone; it stays as text",
    ),
}
"""The transforms and schedules with a formula that is not set as mathematics on their pages, and why."""


@pytest.mark.wide
def test_every_formula_is_set_as_mathematics_or_said_not_to_be():
    """Those whose call needs more than numbers have no formula: `formulas.CALLS` could give them one."""
    missing = set()
    for name in names.ALIASES:
        thing = concepts.found(name)
        if formulas._call(name, thing):
            shown = "".join(part for parts in formulas.section(name, thing) for part in parts)
            assert "where(" not in shown or "```text" in shown
            missing |= set() if r"\begin{aligned}" in shown else {name}
    assert missing == set(NO_MATHEMATICS)


def test_a_long_formula_is_cut_into_lines_and_waits_to_be_asked_for():
    short, long = formulas.section("radam", gradtx.radam)
    shown = "".join(long)
    assert not short and r"\begin{cases}" in shown and "{dropdown}" in long[0]
    found = gradtx.formula(gradtx.radam(0.1))
    assert formulas.MOST_LINES < len(latex.lines(found)) == shown.count("&=")


def test_a_broken_link_is_found(tmp_path):
    home = '<p id="here"><a href="other.html#there">x</a> <a href="no.html">y</a></p>'
    (tmp_path / "index.html").write_text(home)
    (tmp_path / "other.html").write_text(
        '<a href="index.html#here">z</a> <a href="https://example.org">w</a>'
    )
    pages = site_in_browser.read(tmp_path)
    assert list(site_in_browser.broken_links(tmp_path, pages)) == [
        "index.html links to other.html#there, and that page has no such place",
        "index.html links to no.html, which is not there",
    ]
