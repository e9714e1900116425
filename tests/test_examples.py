"""Examples that take seconds, run smaller than they are."""

from pathlib import Path

import jax
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def as_users_run_them(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.usefixtures("as_users_run_them")
def test_fine_tuning_is_far_above_chance_and_a_frozen_body_costs_no_state():
    import finetune

    results = finetune.compare(draws=1)
    scratch, whole = results.pop("from scratch")
    assert all(score > max(0.7, scratch) for score, _ in results.values())
    head = (64 * 10 + 10) * 4
    assert results["head alone"][1] == 2 * head < whole == results["head and slow body"][1]
