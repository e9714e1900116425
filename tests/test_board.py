"""The board of optimizers: who takes part, that each runs, what counts as reached, and what is written."""

import dataclasses
import math
import xml.etree.ElementTree as ElementTree

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from board import page, picture
from board.contestants import BASE, CONTESTANTS, MORE
from board.problems import MAKERS, problem
from board.race import FRESH, GRID, Race, Result
from board.significance import holm, sign_flip
from catalogue import ENTRIES
from rotation import one_of

EVALUATIONS = 2


def test_every_ready_made_optimizer_takes_part():
    found = {name for name, entry in ENTRIES.items() if entry.kind == "optimizer"}
    modules = {name: str(getattr(getattr(gradtx, name), "__module__", "")) for name in gradtx.__all__}
    found |= {name for name, module in modules.items() if module.startswith("gradtx.optimizers.")}
    assert found == set(CONTESTANTS) - set(MORE)


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("name", one_of(6, CONTESTANTS))
def test_each_contestant_is_tuned_and_measured(name):
    found = problem("saddle")
    result = Race(CONTESTANTS[name], found, EVALUATIONS * found.every).result()
    assert len(result.steps) == len(result.finals) == len(FRESH)
    assert np.isfinite(result.finals).all()


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", MAKERS)
def test_each_problem_runs_and_begins_above_its_target(name):
    found = problem(name)
    race = Race(CONTESTANTS[BASE], found, EVALUATIONS * found.every)
    values = race.values(GRID[:1], FRESH)
    assert values.shape == (1, len(FRESH), EVALUATIONS) and (values > found.target).all()
    assert found.steps % found.every == 0


@pytest.mark.wide
@pytest.mark.parametrize("name", ["ill-conditioned", "heavy tails", "sparse", "scale-invariant", "saddle"])
def test_adamw_needs_about_half_of_the_budget(name):
    found = problem(name)
    assert 0.4 < np.median(Race(CONTESTANTS[BASE], found).result().steps) / found.steps < 0.7


def test_the_number_that_is_tuned_changes_the_run_and_the_seed_the_noise():
    found = dataclasses.replace(problem("saddle"), init=lambda rng: {"left": np.ones((16, 4), np.float32)})
    found = dataclasses.replace(found, loss=lambda x, rows: jnp.mean(x["left"][rows] ** 2))
    found = dataclasses.replace(found, evaluate=lambda x: jnp.mean(x["left"] ** 2))
    values = Race(CONTESTANTS["noisy_sgd"], found, found.every).values(GRID[:7] * 100, (1, 2))
    assert len(np.unique(values)) == values.size


def test_a_run_that_does_not_end_in_a_number_has_not_reached_the_target():
    race = Race(CONTESTANTS[BASE], dataclasses.replace(problem("saddle"), target=1.0, every=3))
    steps, finals = race.measured(
        np.array([[9.0, 0.5, 2.0], [9.0, 2.0, 1.0], [9.0, 0.5, math.nan], [9.0, 2.0, 3.0]])
    )
    assert steps.tolist() == [6.0, 9.0, math.inf, math.inf]
    assert finals.tolist() == [2.0, 1.0, math.inf, 3.0]


def test_the_best_takes_the_fewest_steps_and_among_equals_has_the_least_last_value(monkeypatch):
    race = Race(CONTESTANTS[BASE], dataclasses.replace(problem("saddle"), target=1.0, every=1), 3)
    values = np.array([[9.0, 9.0, math.nan], [9.0, 1.0, 0.9], [9.0, 1.0, 0.8], [9.0, 9.0, 0.7]])
    monkeypatch.setattr(race, "values", lambda rates, seeds: values[:, None])
    assert race.best(GRID, (0,)) == 2


def test_signs_are_turned_in_all_ways():
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip([1.0, -1.0]) == sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([3.0, 2.0, -1.0]) == 4 / 8
    assert sign_flip(np.full(14, 0.1)) == 2 / 2**14


def test_chances_are_raised_for_their_number():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def made_up(steps, rate=0.1, edge=False):
    return Result(rate, edge, tuple(steps), tuple(0.1 if math.isfinite(s) else math.inf for s in steps), 1.0)


@pytest.fixture
def results():
    """AdamW, one that is twice as fast, one that is as fast, and one that reaches nothing."""
    steps = np.linspace(100.0, 150.0, len(FRESH))
    each = {
        BASE: made_up(steps),
        "adam": made_up(steps),
        "lion": made_up(steps / 2, edge=True),
        "sgd": made_up([math.inf] * len(FRESH)),
    }
    return {name: each for name in MAKERS}


def test_the_page_has_every_row(results):
    problems = {name: problem(name) for name in MAKERS}
    text = page.page(results, problems, "Run by a test.")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    overall = {row[1]: row for row in rows if row[0].isdigit()}
    assert list(overall) == ["lion", BASE, "adam", "sgd"]
    assert overall["lion"][2:7] == ["0.50", "7", "7", "0", "7"]
    assert overall["sgd"][3:6] == ["0", "0", "7"]
    assert overall["lion"][-1] == f"{2 / 2**7:.3f}"
    for name in overall:
        assert len([row for row in rows if row[0] == name]) == len(MAKERS)
    assert ["sgd", "0.1", "-", "0 of 14", "not finite"] in [row[:5] for row in rows]
    assert ["lion", "0.1 (edge)", "62 (50 to 75)", "14 of 14", "0.1", "0.50"] in [row[:6] for row in rows]
    assert "Run by a test." in text and "{" not in text


def test_the_picture_is_small_and_names_all(tmp_path):
    problems = {name: problem(name) for name in MAKERS}
    everyone = {name: {c: made_up([100.0] * len(FRESH)) for c in CONTESTANTS} for name in MAKERS}
    picture.draw(everyone, problems, tmp_path / "board.svg")
    texts = {element.text for element in ElementTree.parse(tmp_path / "board.svg").iter()}
    assert {*CONTESTANTS, *MAKERS} <= texts
    assert (tmp_path / "board.svg").stat().st_size < 200_000
