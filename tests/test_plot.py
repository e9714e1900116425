"""The plots: what is in the artists, not how they look."""

from __future__ import annotations

import sys

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.figure import Figure

import gradtx

COSINE = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000)


@pytest.fixture
def axes():
    return Figure().subplots()


def lines(ax):
    return {line.get_label(): np.array(line.get_data()) for line in ax.get_lines()}


def test_schedules_are_drawn_at_each_step_by_name(axes):
    drawn = {"cosine": COSINE, "constant": 1e-4, "code": lambda step: 1e-6 * step.astype(jnp.float32)}
    assert gradtx.plot_schedule(drawn, 1000, ax=axes) is axes
    found = lines(axes)
    steps = np.arange(1000)
    assert list(found) == ["cosine", "constant", "code"]
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
    assert axes.get_yscale() == "linear"


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
    (contours,) = [c for c in axes.collections if hasattr(c, "levels")]
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
    assert all(np.isfinite(path).all() for path in found.values())


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
