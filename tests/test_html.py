"""What a notebook shows: the words of the terminal in tables, well-formed, escaped, and on any background."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from catalogue import ENTRIES

HOSTILE = "<script>alert('x')</script>&amp;<b>"
SHAPES = {HOSTILE: (8, 4), "dense": {"bias": (4,), "kernel": (4, 4)}}
PARAMS = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
)
COSINE = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000)
CHAIN = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(COSINE, weight_decay=0.1, mask="*<b>"))


class Reader(HTMLParser):
    """Reads HTML in which each element is closed where it is opened."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], set(), [], []
        self.tables: list[list[list[str]]] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "br":
            return self.handle_data("\n")
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.texts.append("" if tag in ("b", "code") else " ")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.texts.append("" if tag in ("b", "code") else " ")

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & {*self.open}:
            # What is said in several lines of one cell stands in elements of their own.
            self.tables[-1][-1][-1] += data if self.open[-1] in ("td", "th") else f"{data}\n"

    @property
    def words(self):
        return "".join(self.texts).split()


def guarded():
    tx = gradtx.guard(gradtx.sgd(0.1))
    params = jax.tree.map(lambda x: jnp.ones(x.shape), PARAMS)
    state = tx.init(params)
    step = jax.jit(lambda grads, state: tx.update(grads, state, params)[1])
    for i in range(3):
        state = step(jax.tree.map(lambda p, i=i: p * (np.nan if i == 1 else 1.0), params), state)
    return gradtx.report(state)


def partitioned():
    return gradtx.partition({HOSTILE: gradtx.sgd(0.1), "b": gradtx.adam(0.1)}, {"*<b>": HOSTILE, "*": "b"})


SAME_WORDS = {
    "describe": lambda: gradtx.describe(CHAIN, PARAMS, 1000),
    "describe groups": lambda: gradtx.describe(partitioned(), PARAMS),
    "describe nothing": lambda: gradtx.describe(gradtx.identity(), PARAMS),
    "report": guarded,
    "routing": lambda: gradtx.routing(gradtx.muon(0.02), PARAMS),
    "explain": lambda: gradtx.explain(gradtx.adamw(1e-3), PARAMS),
    "state_bytes": lambda: gradtx.state_bytes(gradtx.adamw(1e-3), PARAMS),
    "check nothing": lambda: gradtx.check(gradtx.sgd(0.1), PARAMS),
    "diff nothing": lambda: gradtx.diff(gradtx.sgd(0.1), gradtx.sgd(0.1)),
}
"""What says the same in the same order."""
OTHERS = {
    "a transform": lambda: CHAIN,
    "groups": partitioned,
    "check": lambda: gradtx.check(gradtx.scale(1.0), PARAMS),
    "diff": lambda: gradtx.diff(gradtx.adam(1e-3), gradtx.adamw(1e-3, b2=0.99), PARAMS),
}


@pytest.fixture(scope="module", params=[*SAME_WORDS, *OTHERS])
def shown(request):
    made = (SAME_WORDS | OTHERS)[request.param]()
    return request.param, made, made._repr_html_()


def test_it_is_well_formed_escaped_and_takes_the_colours_of_its_place(shown):
    _, made, source = shown
    reader = Reader(source)
    assert reader.tags <= {"div", "table", "thead", "tbody", "tr", "th", "td", "br"} | {
        *("code", "pre", "b", "details", "summary")
    }
    if "<script" in str(made):
        assert "<script>alert('x')</script>&amp;" in "".join(reader.texts)
    # No script runs and nothing is loaded: all that elements have is how they look.
    assert {name for name, _ in reader.attributes} <= {"style", "open"}
    for name, rules in reader.attributes:
        for rule in filter(None, (rules or "").split(";") if name == "style" else ()):
            key, _, value = map(str.strip, rule.partition(":"))
            assert "url" not in value
            assert key not in ("color", "background-color") or value == "inherit"
            assert key != "background" or value == "none"


def test_it_says_what_the_terminal_says_in_the_same_order(shown):
    name, made, source = shown
    if name in SAME_WORDS:
        assert Reader(source).words == str(made).split()
    elif name in ("a transform", "groups"):
        assert "".join(Reader(source).texts).strip().startswith(str(made))


def test_a_description_has_a_row_for_each_part_with_what_is_said_of_it():
    parts, schedules = Reader(SAME_WORDS["describe"]()._repr_html_()).tables
    assert parts[0] == ["transform", "leaves", "parameters", "state", ""]
    assert [row[0] for row in parts[1:]] == [
        *("clip_by_global_norm", "adamw", "scale_by_adam", "add_decayed_weights", "scale_by_learning_rate")
    ]
    assert parts[4][1:4] == ["1 of 3", "32", "-"]
    assert parts[4][4].splitlines()[-1] == "weight_decay = 0.1"
    assert schedules[1][:2] == ["learning_rate", "0 @ 0"]


def test_findings_are_rows():
    found = OTHERS["check"]()
    (table,) = Reader(found._repr_html_()).tables
    assert len(found) > 0 and table[0] == ["", "finding", "what was found", "what to do"]
    for row, finding in zip(table[1:], found, strict=True):
        assert row[:2] == [finding.severity, finding.name] and row[3] == finding.remedy
        assert row[2].split("\n")[0] == finding.what
        assert (HOSTILE in row[2]) == (HOSTILE in str(finding))


def test_a_difference_has_a_table_of_causes_and_one_of_what_does_not_matter():
    found = OTHERS["diff"]()
    causes, others = Reader(found._repr_html_()).tables
    assert causes == [
        ["", "a", "b", ""],
        ["scale_by_adam.b2", "0.999", "0.99", "decay of the second moment, in [0, 1)"],
    ]
    assert [row[:3] for row in others[1:]] == [["add_decayed_weights", "-", "add_decayed_weights(0.0001)"]]
    said = Reader(found._repr_html_()).words
    for sentence in (f"They part at {found.first}.", f"Their updates part at {found.update}."):
        assert " ".join(sentence.split()) in " ".join(said)


def test_a_transform_has_a_table_of_its_hyperparameters():
    tx = gradtx.accumulate(CHAIN, 4)
    params = jax.tree.map(lambda x: jnp.ones(x.shape), PARAMS)
    (table,) = Reader(tx._repr_html_()).tables
    rows = {row[0]: row[1:] for row in table[1:]}
    # Those of a schedule stand in its code, and a wrapper's are beside its name.
    hyperparams = gradtx.hyperparams(tx.init(params))
    names = {name.removeprefix("accumulate.").split(".")[0] for name in hyperparams}
    assert {*rows} == names
    assert rows["every"][:2] == ["4", "accumulate"]
    assert rows["b1"] == ["0.9", "accumulate.inner.adamw", "decay of the first moment, in [0, 1)"]
    assert rows["learning_rate"][0] == repr(COSINE)


def test_what_has_many_hyperparameters_shows_them_when_asked_for():
    assert "<details open>" in gradtx.adam(0.1)._repr_html_()
    many = gradtx.chain(gradtx.adam(0.1), gradtx.adam(0.2))._repr_html_()
    assert "<details>" in many and "10 hyperparameters" in " ".join(Reader(many).words)
    assert not Reader(gradtx.identity()._repr_html_()).tables


def test_the_names_of_calls_are_bold_and_those_in_strings_are_not():
    bold = re.findall("<b>(.*?)</b>", gradtx.adamw(COSINE, mask="clip(x")._repr_html_())
    assert bold == ["adamw", "warmup_cosine_decay_schedule"]


def test_transforms_of_others_and_of_users_are_shown_too():
    made = gradtx.GradientTransformation(lambda params: (), lambda updates, state, params=None: (updates, ()))
    for tx in (made, gradtx.chain(optax.clip(1.0), made)):
        assert " ".join(Reader(tx._repr_html_()).words) == " ".join(str(tx).split())


def test_a_transform_that_cannot_be_built_says_why():
    tx = gradtx.lookahead(gradtx.ema_params(gradtx.sgd(1.0), 0.9), 5, 0.5)
    said = " ".join(Reader(tx._repr_html_()).words)
    assert (
        said.startswith("lookahead( ema_params(")
        and "lookahead.inner.ema_params needs the new parameters" in said
    )


@pytest.mark.wide
def test_every_optimizer_is_shown():
    """What is no transform, as a schedule, has its code alone, as any object."""
    transforms = [tx for entry in ENTRIES.values() if isinstance(tx := entry.build(""), gradtx.Transform)]
    assert len(transforms) > 100
    for tx in transforms:
        assert "".join(Reader(tx._repr_html_()).texts).strip().startswith(str(tx))
