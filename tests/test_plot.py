"""The plots: what is in the artists, not how they look."""

from __future__ import annotations

import itertools
import sys

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.figure import Figure

import gradtx
from gradtx.inspect.style import COLOURS

COSINE = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000)


@pytest.fixture
def axes():
    return Figure().subplots()


def lines(ax):
    """What is drawn by its label, also in panels."""
    return {
        line.get_label(): np.array(line.get_data()) for a in (ax, *ax.child_axes) for line in a.get_lines()
    }


def names(ax):
    """The names in a picture, at the lines and in a legend, with the place of each in pixels."""
    ax.figure.draw_without_rendering()
    found = [(text.get_text(), text.get_window_extent()) for text in ax.texts]
    if ax.get_legend() is not None:
        box = ax.get_legend().get_window_extent()
        found += [(text.get_text().replace("\n", " "), box) for text in ax.get_legend().get_texts()]
    return dict(found)


def covered(ax):
    """The names that lie on a line, on another name, or outside of the axes."""
    paths = [line.get_path().transformed(line.get_transform()) for line in ax.get_lines()]
    places = names(ax)
    apart = {name: box for name, box in places.items() if name in {text.get_text() for text in ax.texts}}
    return [
        name
        for name, box in places.items()
        if any(path.intersects_bbox(box) for path in paths)
        or any(box.overlaps(other) for key, other in apart.items() if key != name)
        or not (
            ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 and ax.bbox.y0 <= box.y0 and box.y1 <= ax.bbox.y1
        )
    ]


def test_schedules_are_drawn_at_each_step_by_name(axes):
    drawn = {
        "cosine": COSINE,
        "flat": gradtx.constant_schedule(1e-5),
        "constant": 1e-4,
        "code": lambda step: 1e-6 * step.astype(jnp.float32),
    }
    assert gradtx.plot_schedule(drawn, 1000, ax=axes) is axes
    found = lines(axes)
    steps = np.arange(1000)
    assert list(found) == ["cosine", "flat", "constant", "code"]
    for x, _ in found.values():
        np.testing.assert_array_equal(x, steps)
    np.testing.assert_allclose(found["cosine"][1, [0, 50, 100, 550]], [0, 1.5e-4, 3e-4, 1.5e-4], rtol=1e-5)
    np.testing.assert_allclose(found["constant"][1], 1e-4)
    np.testing.assert_allclose(found["code"][1], 1e-6 * steps, rtol=1e-6)


def test_a_schedule_alone_is_named_by_its_code(axes):
    gradtx.plot_schedule(COSINE, 10, ax=axes, linestyle=":")
    gradtx.plot_schedule([0.1, 0.2], 1_000_000, ax=axes)
    assert list(lines(axes)) == [repr(COSINE), "0.1", "0.2"]
    assert axes.get_lines()[0].get_linestyle() == ":"
    x, _ = lines(axes)["0.2"]
    assert len(x) <= 2_000 and (x[0], x[-1]) == (0, 999_999)


THREE = {
    "warmup": gradtx.warmup_constant_schedule(0.0, 3e-4, 100),
    "cosine": COSINE,
    "stable": gradtx.warmup_stable_decay_schedule(0.0, 3e-4, 100, 800, 200),
}


def test_each_schedule_has_its_name_at_its_end_and_no_line_is_covered(axes):
    gradtx.plot_schedule(THREE, 1000, ax=axes)
    assert axes.get_legend() is None and not covered(axes)
    ends = {line.get_label(): axes.transData.transform(line.get_xydata()[-1]) for line in axes.get_lines()}
    colours = {line.get_label(): line.get_color() for line in axes.get_lines()}
    assert [*names(axes)] == [*THREE]
    for text in axes.texts:
        box, end = text.get_window_extent(), ends[text.get_text()]
        assert end[0] < box.x0 < end[0] + 30 and abs(end[1] - (box.y0 + box.y1) / 2) < 20
        assert text.get_color() == colours[text.get_text()]
    # Names are not steps.
    assert max(axes.get_xticks()) <= 1000
    assert [tick for tick in axes.get_xticks() if tick != round(tick)] == []


def test_long_names_stand_above_the_lines(axes):
    gradtx.plot_schedule([*THREE.values()], 1000, ax=axes)
    assert [*names(axes)] == list(map(repr, THREE.values()))
    assert not covered(axes)


def test_a_picture_of_schedules_says_what_it_shows(axes):
    gradtx.plot_schedule({"rate": COSINE}, 1000, ax=axes)
    assert (axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()) == ("rate", "step", "value")
    assert axes.get_legend() is None and not axes.texts
    low, high = axes.get_ylim()
    assert low < 0.0 < 3e-4 < high < 3.5e-4
    axes.figure.draw_without_rendering()
    assert "1e-4" in [label.get_text() for label in axes.get_yticklabels()]
    assert "1,000" in [label.get_text() for label in axes.get_xticklabels()]
    # More on the same axes changes the title, unless it is the user's.
    gradtx.plot_schedule({"other": 1e-4}, 1000, ax=axes)
    assert axes.get_title("left") == "2 schedules over 1,000 steps"
    assert [*names(axes)] == ["rate", "other"] and not covered(axes)
    axes.set_title("my run")
    gradtx.plot_schedule({"third": 2e-4}, 2000, ax=axes)
    assert (axes.get_title(), [*names(axes)]) == ("my run", ["rate", "other", "third"])
    assert max(axes.get_xticks()) > 1000


def test_schedules_stand_on_a_linear_axis_unless_the_user_chose_another(axes):
    decades = {"fast": gradtx.exponential_decay(1.0, 10, 0.5), "one": 1.0}
    gradtx.plot_schedule(decades, 100, ax=axes)
    assert axes.get_yscale() == "linear"
    axes.set_yscale("log")
    gradtx.plot_schedule(decades, 100, ax=axes)
    assert axes.get_yscale() == "log"


def test_limits_of_the_users_are_kept(axes):
    axes.set(xlim=(0, 500), ylim=(0, 1e-3))
    gradtx.plot_schedule(THREE, 1000, ax=axes)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 500), (0, 1e-3))
    assert [*names(axes)] == [*THREE]


SIGHTS = {
    "all three": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""What linear red, green and blue look like to people without one kind of cones (Machado, Oliveira and
Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009)."""
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    encoded = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB, in which a distance of 2 can just be seen."""
    ratio = TO_XYZ @ np.clip(rgb, 0, 1) / TO_XYZ.sum(1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHTS)
def test_the_colours_can_be_told_apart(sight):
    seen = [lab(np.asarray(SIGHTS[sight]) @ linear(colour)) for colour in COLOURS]
    assert min(np.linalg.norm(x - y) for x, y in itertools.combinations(seen, 2)) > 30


def test_names_in_the_colours_can_be_read_on_white():
    for colour in COLOURS:
        assert 1.05 / (TO_XYZ[1] @ linear(colour) + 0.05) > 3.0


def test_more_lines_than_colours_differ_in_their_dashes(axes):
    gradtx.plot_schedule({str(i): 0.1 * i for i in range(14)}, 10, ax=axes)
    looks = [(line.get_color(), line.get_linestyle()) for line in axes.get_lines()]
    assert len({*looks}) == 14 and {colour for colour, _ in looks} == {*COLOURS}
    assert not covered(axes)


def test_a_run_of_no_steps_is_refused(axes):
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        gradtx.plot_schedule(COSINE, 0, ax=axes)


def test_metrics_are_drawn_where_they_are(axes):
    history = [(0, {"norm": 1.0, "measured_at": 0}), (10, {"norm": 0.5, "rate": 0.1, "measured_at": 10})]
    assert gradtx.plot_metrics(iter(history), ax=axes) is axes
    found = lines(axes)
    assert list(found) == ["norm", "rate"]
    np.testing.assert_array_equal(found["norm"], [[0, 10], [1.0, 0.5]])
    np.testing.assert_array_equal(found["rate"], [[10], [0.1]])
    assert [panel.get_title("left") for panel in axes.child_axes] == ["norm", "rate"]


HISTORY = {
    "step": np.arange(0, 500, 10),
    "gradient_norm": np.geomspace(300.0, 0.1, 50),
    "gradient_norm/embedding": np.geomspace(100.0, 0.05, 50),
    "learning_rate": np.linspace(0.0, 3e-4, 50),
    "update_ratio": np.linspace(2e-3, 1e-3, 50),
    "clip_fraction": np.linspace(0.5, 0.25, 50),
    "skipped": np.minimum(np.arange(50), 1),
    "measured_at": np.arange(0, 500, 10),
}


def test_unlike_metrics_have_a_panel_each_with_an_axis_of_its_own(axes):
    gradtx.plot_metrics(HISTORY, ax=axes)
    panels = {panel.get_title("left"): panel for panel in axes.child_axes}
    assert [*panels] == ["gradient_norm", "learning_rate", "update_ratio", "clip_fraction", "skipped"]
    assert not axes.get_lines() and not axes.axison
    assert {name: panel.get_yscale() for name, panel in panels.items()} == {
        **dict.fromkeys(panels, "linear"),
        "gradient_norm": "log",
    }
    assert [*lines(panels["gradient_norm"])] == ["gradient_norm", "gradient_norm/embedding"]
    low, high = panels["clip_fraction"].get_ylim()
    assert low < 0.0 < 1.0 < high < 1.1
    low, high = panels["learning_rate"].get_ylim()
    assert low <= 0.0 < 3e-4 < high < 4e-4
    assert all(tick == round(tick) for tick in panels["skipped"].get_yticks())
    assert panels["update_ratio"].get_ylabel() == "||u|| / ||θ||"
    # The steps are below the lowest one, and the same in all.
    assert [panel.get_xlabel() for panel in panels.values()] == ["", "", "", "", "step"]
    assert len({panel.get_xlim() for panel in panels.values()}) == 1
    tops = [panel.get_position().y1 for panel in panels.values()]
    assert tops == sorted(tops, reverse=True)


@pytest.mark.wide
def test_the_norm_of_a_part_stands_beside_that_of_the_whole_each_at_its_name(axes):
    gradtx.plot_metrics(HISTORY, ["gradient_norm", "gradient_norm/embedding", "skipped"], ax=axes)
    panel = axes.child_axes[0]
    assert [*names(panel)] == ["the whole tree", "embedding"] and not covered(panel)


def test_a_second_run_is_drawn_into_the_same_panels(axes):
    gradtx.plot_metrics(HISTORY, ["gradient_norm", "skipped"], ax=axes)
    gradtx.plot_metrics(HISTORY, ["gradient_norm", "skipped"], ax=axes)
    assert [len(panel.get_lines()) for panel in axes.child_axes] == [2, 2]
    with pytest.raises(ValueError, match="have gradient_norm, skipped already; give it others"):
        gradtx.plot_metrics(HISTORY, ["update_ratio"], ax=axes)


def test_a_metric_that_is_zero_or_negative_somewhere_is_drawn_whole(axes):
    for values in ([0.0, 1e-4, 1.0], [-1.0, 1e-4, 1.0]):
        gradtx.plot_metrics({"x": np.array(values)}, ax=axes)
        assert axes.get_yscale() == "linear"
        low, high = axes.get_ylim()
        assert low < min(values) and max(values) < high


def test_metrics_in_arrays(axes):
    history = {"step": np.array([5, 10]), "norm": np.array([1.0, 1e-4]), "skipped": np.array([0, 1])}
    gradtx.plot_metrics(history, ["norm"], ax=axes)
    np.testing.assert_array_equal(lines(axes)["norm"], [[5, 10], [1.0, 1e-4]])
    assert axes.get_yscale() == "log"
    with pytest.raises(KeyError, match=r"no metric 'loss'. There are norm, skipped."):
        gradtx.plot_metrics(history, ["loss"], ax=axes)
    with pytest.raises(ValueError, match=r"no metrics; wrap the optimizer in gradtx\.track"):
        gradtx.plot_metrics([], ax=axes)


@pytest.mark.wide
def test_paths_go_from_the_start_down_the_loss(axes):
    optimizers = {"sgd": gradtx.sgd(0.1), "optax": optax.sgd(0.1)}
    loss = lambda p: p[0] ** 2 + 2 * p[1] ** 2  # noqa: E731
    assert gradtx.plot_paths(loss, optimizers, (2.0, 1.0), 20, ax=axes) is axes
    found = lines(axes)
    expected = np.array([2.0, 1.0])[:, None] * np.array([0.8, 0.6])[:, None] ** np.arange(21)
    np.testing.assert_allclose(found["sgd"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["optax"], expected, rtol=1e-5)
    (contours,) = [c for c in axes.collections if hasattr(c, "levels") and not c.filled]
    assert (np.diff(contours.levels) > 0).all() and contours.levels[-1] < 2 * 2.2**2 + 4 * 1.2**2


@pytest.mark.parametrize("start, steps, why", [((1.0,), 5, "two numbers"), ((1.0, 2.0), 0, "at least 1")])
def test_paths_are_of_two_parameters_and_some_steps(axes, start, steps, why):
    with pytest.raises(ValueError, match=why):
        gradtx.plot_paths(lambda p: p.sum(), {"sgd": gradtx.sgd(0.1)}, start, steps, ax=axes)


def rosenbrock(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


@pytest.mark.wide
def test_a_path_that_diverges_ends_where_it_does(axes):
    optimizers = {"far": gradtx.sgd(1.0), "near": gradtx.adam(0.1)}
    found = lines(gradtx.plot_paths(rosenbrock, optimizers, (-1.0, 1.0), 30, ax=axes))
    assert list(found) == ["far (diverged)", "near"]
    assert found["far (diverged)"].shape[1] < 31 == found["near"].shape[1]
    assert [*names(axes)] == ["start", *found]
    # The other one fills the picture, at whose edge the far one ends.
    limits = np.array([axes.get_xlim(), axes.get_ylim()])
    near = np.ptp(found["near"], axis=1) / np.ptp(limits, axis=1)
    assert near.min() > 0.3 and near.max() > 0.6
    far = found["far (diverged)"]
    assert all(low <= np.min(x) and np.max(x) <= high for x, (low, high) in zip(far, limits, strict=True))
    assert np.isclose(limits, far[:, -1:]).any()
    assert not covered(axes)


@pytest.mark.wide
def test_a_path_that_grows_without_end_is_cut_too_and_the_frame_given_is_kept(axes):
    """It is finite after these steps, and higher than where it began."""
    loss = lambda p: p[0] ** 2 + 10 * p[1] ** 2  # noqa: E731
    optimizers = {"far": gradtx.sgd(0.11), "near": gradtx.sgd(0.05), "left": gradtx.sgd(0.01)}
    gradtx.plot_paths(loss, optimizers, (2.0, 1.0), 20, ax=axes)
    assert [*lines(axes)] == ["far (diverged)", "near", "left"]
    assert axes.get_ylim()[1] < 2.0
    assert axes.get_title("left") == "3 paths over 20 steps"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("first parameter", "second parameter")
    given = Figure().subplots()
    given.set(xlim=(1.5, 2.5), ylim=(-2.0, 2.0))
    found = lines(gradtx.plot_paths(loss, optimizers, (2.0, 1.0), 20, ax=given))
    assert (given.get_xlim(), given.get_ylim()) == ((1.5, 2.5), (-2.0, 2.0))
    assert [*found] == ["far (diverged)", "near (leaves the picture)", "left (leaves the picture)"]
    np.testing.assert_allclose(found["left (leaves the picture)"][0, -1], 1.5, rtol=1e-6)


def test_where_all_paths_diverge_their_beginning_is_shown(axes):
    found = lines(gradtx.plot_paths(rosenbrock, gradtx.sgd(0.1), (-1.2, 1.0), 30, ax=axes))
    assert [*found] == ["sgd(0.1) (diverged)"]
    assert 0.5 < np.ptp(axes.get_xlim()) < 1e3


def test_optimizers_without_a_name_go_by_their_code_on_any_loss(axes):
    found = lines(gradtx.plot_paths(lambda p: 0.0 * p.sum(), gradtx.sgd(0.1), (1.0, 2.0), 3, ax=axes))
    assert list(found) == ["sgd(0.1)"]
    everywhere_nan = gradtx.plot_paths(
        lambda p: jnp.nan * p.sum(), [optax.sgd(0.1)], (1.0, 2.0), 3, ax=Figure().subplots()
    )
    assert list(lines(everywhere_nan)) == ["<optax.chain> (diverged)"]


@pytest.mark.parametrize(
    "draw, error, why",
    [
        (lambda ax: gradtx.plot_paths(rosenbrock, {}, (1, 2), 3, ax=ax), ValueError, "no optimizers"),
        (lambda ax: gradtx.plot_paths(rosenbrock, 3, (1, 2), 3, ax=ax), TypeError, "plot_paths takes transf"),
        (lambda ax: gradtx.plot_paths(rosenbrock, {}, {"x": 1}, 3, ax=ax), ValueError, "got {'x': 1}"),
        (lambda ax: gradtx.plot_schedule({}, 3, ax=ax), ValueError, "no schedules"),
        (lambda ax: gradtx.plot_schedule(gradtx.sgd(0.1), 3, ax=ax), TypeError, "or a schedule, got sgd"),
        (lambda ax: gradtx.plot_metrics([{"x": 1.0}], ax=ax), TypeError, r"enumerate\(history\)"),
        (
            lambda ax: gradtx.plot_metrics([(0, {"x": {"y": 1.0}})], ax=ax),
            TypeError,
            "the metric 'x' must be",
        ),
        (lambda ax: gradtx.plot_metrics({"x": 3.0}, ax=ax), TypeError, "the metric 'x' must be"),
    ],
)
def test_what_cannot_be_drawn_is_told(axes, draw, error, why):
    with pytest.raises(error, match=why):
        draw(axes)


def test_a_python_function_of_the_step_is_drawn(axes):
    gradtx.plot_schedule({"x": lambda s: 1.0 if s < 5 else 0.0}, 9, ax=axes)
    assert set(axes.lines[0].get_ydata()) == {0.0, 1.0}


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'gradtx\[plot\]'"):
        gradtx.plot_schedule(COSINE, 10)
