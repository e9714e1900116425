"""The gallery and the live page: nothing public is missing, and what they show is what is computed now."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import catalogue
import gradtx
from gallery import draw, live, members, pages, paths, schedules, svg
from gallery.functions import FUNCTIONS, STEPS

DOCS = Path(__file__).parent.parent / "docs"
GALLERY = DOCS / "gallery"
MEMBERS = {member.call: member for member in members.members()}


def of_kind(kind):
    return {entry.name for entry in catalogue.ENTRIES.values() if entry.kind == kind}


def test_each_optimizer_is_in_the_gallery_or_left_out_with_a_reason():
    modules = {name: getattr(getattr(gradtx, name), "__module__", None) or "" for name in gradtx.__all__}
    made_here = {name for name, module in modules.items() if module.startswith("gradtx.optimizers.")}
    shown = {member.name for member in members.members()}
    assert not shown & set(members.LEFT_OUT)
    assert shown | set(members.LEFT_OUT) == made_here | of_kind("optimizer")
    index = (GALLERY / "index.md").read_text()
    assert all(f"[`{name}`]" in index and reason in index for name, reason in members.LEFT_OUT.items())


def test_each_schedule_is_in_the_gallery():
    assert {schedules.name(call) for call in schedules.CALLS} == of_kind("schedule")
    page = (GALLERY / "schedules.md").read_text()
    assert all(f"`{call}`" in page for call in schedules.CALLS)


def test_each_page_has_its_pictures_and_no_picture_is_left_over():
    texts = "".join(path.read_text() for path in GALLERY.glob("*.md"))
    named = set(re.findall(r"\]\(([\w-]+\.svg)\)", texts))
    assert named == {path.name for path in GALLERY.glob("*.svg")}
    for page in members.PAGES:
        for title, several in page.pictures.items():
            picture = (GALLERY / pages.picture_name(page, title)).read_text()
            assert all(f">{member.label}<" in picture for member in several)
    assert sum(path.stat().st_size for path in GALLERY.glob("*.svg")) < 1_600_000


def committed(member):
    """The rate and the end of each path in the tables of the pages."""
    pattern = re.escape(member.call).replace("RATE", "([^,)]+)")
    row = rf"\| ([\w ]+) \| `{pattern}` \| \(([^,]+), ([^)]+)\) \|"
    texts = [(GALLERY / f"{page.slug}.md").read_text() for page in members.PAGES]
    return [found for text in texts for found in re.findall(row, text)][: len(FUNCTIONS)]


def test_the_table_has_each_optimizer_on_each_function():
    for member in MEMBERS.values():
        assert [found[0] for found in committed(member)] == [function.title for function in FUNCTIONS]


@pytest.mark.wide
@pytest.mark.parametrize("call", ["sgd(RATE)", "adam(RATE)", "lion(RATE)", "dowg()"])
def test_the_committed_paths_end_where_they_end_now(call):
    for found, run in zip(committed(MEMBERS[call]), paths.runs(MEMBERS[call]), strict=True):
        *rate, x, y = found[1:]
        assert not rate or float(rate[0]) == pytest.approx(run.rate)
        np.testing.assert_allclose([float(x), float(y)], run.end, atol=0.01)


@pytest.mark.wide
def test_what_is_drawn_is_what_plot_paths_makes_of_the_optimizer_itself():
    """The paths of the gallery are recorded, and run with all rates and functions at once."""
    from matplotlib.figure import Figure

    for k, function in enumerate(FUNCTIONS):
        run = paths.runs(MEMBERS["adam(RATE)"])[k]
        tx = paths.optimizer(run.member, function, run.rate)
        ax = Figure().subplots()
        ax.set(xlim=(-50, 50), ylim=(-50, 50))
        gradtx.plot_paths(
            function.loss, {"adam": tx, "recorded": paths.Recorded(run.path)}, function.start, STEPS, ax=ax
        )
        real, recorded = (line.get_xydata() for line in ax.get_lines())
        np.testing.assert_allclose(real, recorded, atol=0.02)


@pytest.mark.wide
def test_a_path_that_diverges_is_said_to_be_and_the_bytes_are_the_same_each_time():
    picture = draw.diverging()
    assert "sgd(0.052) (diverged)" in picture
    assert picture == draw.diverging()


def test_a_smaller_picture_keeps_its_curves_and_its_words():
    data = "M 0 0 L 1 0.01 L 2 0 L 3 0 L 3 5.123456 z"
    made = svg.smaller(f'<path d="{data}" x="1.23456"/><text>sgd(0.0521)</text>')
    assert made == '<path d="M0 0l3 0 0 5.1z" x="1.23"/><text>sgd(0.0521)</text>'


@pytest.fixture(scope="module")
def data():
    return json.loads((DOCS / "_static" / "live.json").read_text())


def test_the_sliders_have_a_path_and_the_code_for_each_combination(data):
    assert [one["name"] for one in data["optimizers"]] == [one.name for one in live.OPTIMIZERS]
    for one, shown in zip(live.OPTIMIZERS, data["optimizers"], strict=True):
        points = one.points()
        assert [number["values"] for number in shown["numbers"]] == [
            [f"{value:g}" for value in values] for values in one.values.values()
        ]
        assert len(shown["code"]) == len(points)
        assert all(len(each) == len(points) for each in shown["paths"] + shown["losses"])
        for k in (0, len(points) // 2, len(points) - 1):
            assert shown["code"][k] == repr(one.made(**points[k]))
    assert (DOCS / "_static" / "live.json").stat().st_size < 1_500_000


@pytest.mark.wide
def test_the_paths_of_the_live_page_are_those_of_the_code_beside_them(data):
    for shown in data["optimizers"]:
        k = len(shown["code"]) // 2 + 1
        tx = eval(shown["code"][k], dict(vars(gradtx)))
        for function, texts in zip(live.SHOWN, shown["paths"], strict=True):
            drawn = live.decoded(texts[k], function)

            def step(carry, _, tx=tx, loss=function.loss):
                params, state = carry
                new = gradtx.apply_gradients(tx, jax.grad(loss)(params), state, params)
                return new, new[0]

            start = jnp.asarray(function.start)
            path = jax.lax.scan(step, (start, tx.init(start)), length=len(drawn) - 1)[1]
            low, high = live.bounds(function)
            assert np.abs((drawn[1:] - np.asarray(path)) / (high - low)).max() < 2e-3


def test_the_page_computes_no_step():
    script = (DOCS / "_static" / "live.js").read_text()
    assert not re.findall(r"Math\.|sqrt|\*\*|https?://(?!www\.w3\.org/2000/svg)", script)
    assert (DOCS / "live.md").read_text() == live.page()
