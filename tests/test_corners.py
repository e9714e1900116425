"""The corners of schedules: between them a schedule is monotone, and after the last it rests."""

import itertools

import numpy as np
import pytest

import gradtx
from catalogue import SCHEDULES

FORMS = [(entry, v) for entry in SCHEDULES for v in ["", "alternative", *entry.variants]]


@pytest.mark.parametrize("entry, variant", FORMS, ids=[f"{e.name}-{v}" for e, v in FORMS])
def test_between_its_corners_a_schedule_is_monotone_and_after_the_last_it_rests(entry, variant):
    schedule, value = entry.build(variant), entry.build_reference(variant)
    corners = [0.0, *schedule.corners()]
    assert corners == sorted(corners)
    for start, stop in itertools.pairwise(corners):
        inside = np.linspace(start, min(stop, start + 100), 50)[1:-1]
        changes = np.diff([value(t) for t in inside])
        assert (changes >= 0).all() or (changes <= 0).all()
    if schedule.settles is None:
        assert value(1e3) != value(2e3)
    else:
        assert schedule.settles == corners[-1]
        np.testing.assert_allclose(
            [value(schedule.settles + dt) for dt in (0.1, 1, 1_000)], value(corners[-1])
        )
        assert not schedule.settles or value(schedule.settles - 0.1) != value(schedule.settles)


def test_a_schedule_that_starts_at_rest_settles_at_once():
    assert gradtx.exponential_decay(1.0, 10, 0.5, end_value=2.0).settles == 0
    assert gradtx.exponential_decay(1.0, 10, 1.0).settles == 0
    assert gradtx.exponential_decay(0.0, 10, 0.5).settles == 0


def test_joined_schedules_settle_with_the_last():
    down = gradtx.exponential_decay(1.0, 10, 0.5)
    assert gradtx.join_schedules([down, gradtx.linear_schedule(1.0, 0.0, 5)], [20]).corners() == (0, 20, 25)
    assert gradtx.join_schedules([down, 0.1], [20]).settles == 20
    assert gradtx.join_schedules([0.1, down], [20]).settles is None
    assert gradtx.join_schedules([0.1, lambda step: step], [20]).settles is None


def test_a_schedule_of_ones_own_is_not_known_to_settle():
    class Own(gradtx.Schedule, name="own_schedule"):
        value: gradtx.Number

        def at(self, step):
            return self.value

    assert Own(value=0.5).settles is None
