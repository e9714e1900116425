"""The gallery and the live page: nothing public is missing, and what they show is what is computed now."""

import functools
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import catalogue
import gradtx
from gallery import draw, live, members, pages, paths, schedules, svg, symbol_pictures, symbols
from gallery.functions import FUNCTIONS, STEPS
from gradtx.inspect.plot import Path as Drawn
from gradtx.inspect.plot import draw_paths
from gradtx.inspect.style import COLOURS
from picture_settings import DARK, INK, SOFT, dark, light_and_dark

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

from reference import pictures  # noqa: E402

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
        start = np.asarray(function.start, np.float32)
        axes = [Figure().subplots() for _ in range(2)]
        for ax in axes:
            ax.set(xlim=(-50, 50), ylim=(-50, 50))
        gradtx.plot_paths(function.loss, {"adam": tx}, start, STEPS, ax=axes[0])
        draw_paths(axes[1], function.loss, {"adam": Drawn.of(run.path, run.losses)}, start, STEPS)
        real, recorded = (ax.get_lines()[0].get_xydata() for ax in axes)
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


def test_a_smaller_picture_says_a_look_once_and_names_only_what_is_referred_to():
    drawn = '<g id="one"><path id="m" d="M 0 0 L 1 0" style="fill: none"/></g><use xlink:href="#m" x="1"/>'
    made = svg.smaller(f"<svg ><style></style>{3 * drawn}</svg>")
    assert made == (
        "<svg ><style>\n.a{fill: none}\n</style>"
        + 3 * '<path id="m" d="M0 0l1 0" class="a"/><use xlink:href="#m" x="1"/>'
        + "</svg>"
    )


SYMBOLS = GALLERY / "symbols"


def test_each_optimizer_schedule_and_transform_has_a_picture_or_none_for_a_reason():
    wanted = of_kind("optimizer") | of_kind("schedule") | of_kind("transform")
    shown = set(symbols.PICTURES)
    assert not shown & set(symbols.LEFT_OUT)
    assert wanted <= shown | set(symbols.LEFT_OUT)
    assert set(symbols.LEFT_OUT) <= wanted and shown <= set(gradtx.__all__)
    index = (GALLERY / "index.md").read_text()
    assert all(f"[`{name}`]" in index and reason in index for name, reason in symbols.LEFT_OUT.items())


def test_each_picture_of_a_name_says_what_it_shows_and_its_page_shows_it():
    assert {path.stem for path in SYMBOLS.iterdir()} == set(symbols.PICTURES)
    assert sum(path.stat().st_size for path in SYMBOLS.iterdir()) < 2_500_000
    for name in symbols.PICTURES:
        (figure,) = pictures.figure(name, "../")
        first, alt, _, words, *_ = figure.splitlines()
        assert first == f"```{{figure}} ../gallery/symbols/{name}.svg"
        assert re.fullmatch(r":alt: \w.{20,}", alt)
        calls = re.findall(r"`([^`]+)`", words)
        known = {symbols.RECIPES.get(name, name), *(["chain"] if name in symbols.CHAINS else [])}
        assert calls
        if name not in symbol_pictures.PLOTS:
            assert known & {symbol_pictures.named(call) for call in calls}
            assert all(symbol_pictures.made(call) for call in calls)
    assert not [*pictures.figure("hyperparams", "../")]


def polylines(picture):
    """The curves in a picture, each as points at equal distances along it."""
    found = []
    for path in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}path"):
        for first, rest in re.findall(r"M([^Mlz]+)l([^Mlz]+)(?![^M]*z)", path.get("d") or ""):
            number = r"-?(?:\d+\.?\d*|\.\d+)"
            steps = np.array(re.findall(number, f"{first} {rest}"), float).reshape(-1, 2)
            points = steps.cumsum(0)
            along = np.hypot(*np.diff(points, axis=0).T).cumsum()
            at = np.linspace(0, along[-1], 50)
            found.append([np.interp(at, [0, *along], each) for each in points.T])
    return np.array(found)


def words(picture):
    return [each.text for each in ElementTree.fromstring(picture).iter() if each.text and each.text.strip()]


@functools.cache
def committed_picture(name):
    return (SYMBOLS / f"{name}.svg").read_text()


def alike(one, other):
    curves = [polylines(each) for each in (one, other)]
    return curves[0].shape == curves[1].shape and float(np.abs(curves[0] - curves[1]).max()) < 1.5


@pytest.mark.wide
@pytest.mark.parametrize(
    "name",
    [
        "adam",
        "scale_by_dog",
        "cosine_decay_schedule",
        "scale_by_adam",
        "trace",
        "clip",
        "muon",
        "plot_schedule",
    ],
)
def test_the_committed_picture_is_the_one_that_is_made_now(name):
    """In its words and, to what processors differ in, in its curves."""
    made = symbols.PICTURES[name]()
    assert [each for each in words(made) if "{" not in each] == [
        each for each in words(committed_picture(name)) if "{" not in each
    ]
    assert alike(made, committed_picture(name))


def test_a_picture_of_another_formula_is_another():
    for one, other in (("scale_by_adam", "scale_by_rms"), ("muon", "shampoo"), ("trace", "ema")):
        assert alike(committed_picture(one), committed_picture(one))
        assert not alike(committed_picture(one), committed_picture(other))


def luminance(colour):
    shown = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def test_colours_can_be_read_on_a_dark_page_and_told_apart():
    assert (dark("#ffffff"), dark("#000000")) == (DARK, "#f5f5f5")
    shown = [dark(colour) for colour in (*COLOURS, INK, SOFT)]
    assert all((luminance(each) + 0.05) / (luminance(DARK) + 0.05) > 4.5 for each in shown)
    lines = np.array([[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in shown[: len(COLOURS)]])
    apart = np.linalg.norm(lines[:, None] - lines, axis=-1)
    assert apart[~np.eye(len(lines), dtype=bool)].min() > 60


def test_each_picture_has_colours_for_a_dark_page():
    drawn = [*DOCS.glob("*.svg"), *(DOCS / "why").iterdir(), *GALLERY.glob("**/*.svg")]
    assert len(drawn) > 200
    for path in drawn:
        assert path.read_text().count("@media (prefers-color-scheme: dark)") == 1, path
    site = (DOCS / "_static" / "site.css").read_text()
    assert re.search(r'body\[data-theme="dark"\] img {\s+color-scheme: dark;', site)


def test_colours_change_where_they_are_said_and_those_that_are_fixed_stay():
    head = "<svg><style>*{x: y}\n.a{fill: #ffffff; stroke-width: 2}</style>"
    made = light_and_dark(
        head + '<path style="stroke: #000000"/><text style="fill: #0a0a0a"/></svg>', ["#0a0a0a"]
    )
    assert made.startswith(head.replace("</style>", "\n@media (prefers-color-scheme: dark) {\n"))
    assert made.split("dark) {\n")[1].split("\n}\n</style>")[0].splitlines() == [
        "text{fill:#f5f5f5}",
        f".a{{fill:{DARK}}}",
        '[style*="stroke: #000000"]{stroke:#f5f5f5!important}',
    ]


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
