"""What the laws cost as the catalogue grows: each entry adds the cheap laws, and one costly one."""

import random

import pytest

from features import features_of
from pairwise import cover
from rotation import rotation
from test_laws import COSTLY, DIMENSIONS, FEATURES, covered, possible, turns

# What there is time for with 150 entries: pairs of an entry and a costly law, and pairwise rows. One
# takes about a sixth of a second of a processor, both together a fifth of four minutes on two cores.
MEETINGS, ROWS = 320, 240


def grown(size, seed):
    """The catalogue with made-up entries up to a size, like two others each, some with a feature more."""
    rng = random.Random(seed)
    features = dict(FEATURES)
    while len(features) < size:
        one, other = rng.choice(list(FEATURES.values())), rng.choice(list(FEATURES.values()))
        mixed = {f for f in one | other if rng.random() < 0.7}
        own = {f"seam {len(features) // 10}"} if len(features) % 10 == 0 else set()
        features[f"entry {len(features)}"] = frozenset(mixed | own)
    return features


@pytest.mark.parametrize("seed", range(3))
def test_150_entries_stay_within_the_budget(seed):
    """Were every entry to meet every costly law, it would be four times as many."""
    features = grown(150, seed)
    meetings = sum(map(len, rotation(features, COSTLY).values()))
    first = [name for name in features if name in DIMENSIONS["entry"] or name not in FEATURES]
    dimensions = {**DIMENSIONS, "entry": first}
    rows = cover(dimensions, features, lambda row: possible([v for v in row if v not in features]), covered)
    assert meetings <= MEETINGS and len(rows) <= ROWS
    assert 4 * meetings < len(features) * len(COSTLY)


@pytest.mark.parametrize("seed", range(3))
def test_an_entry_more_is_a_meeting_more(seed):
    """Entries that use nothing new: the cover changes by few, and each has its turn."""
    before = sum(map(len, turns().values()))
    name = random.Random(seed).choice(list(FEATURES))
    copies = {f"copy {i}": FEATURES[name] for i in range(20)}
    after = rotation({**FEATURES, **copies}, COSTLY)
    assert sum(map(len, after.values())) <= before + 20 + 10
    assert {n for names in after.values() for n in names} == {*FEATURES, *copies}


def test_every_law_meets_every_feature_of_a_grown_catalogue():
    features = grown(150, 0)
    for names in rotation(features, COSTLY).values():
        assert frozenset().union(*(features[n] for n in names)) == frozenset().union(*features.values())


def test_which_entries_meet_a_law_differs_from_law_to_law():
    assert len({tuple(names) for names in turns().values()}) == len(COSTLY)


def test_features_are_what_the_program_uses():
    assert {"Rule.measures_norm", "Rule.conclude"} <= features_of("clip_by_global_norm")
    assert {"a slot with shape", "needs params"} <= features_of("adafactor")
    assert {"a wrapped program", "kind: wrapper", "a decay"} <= features_of("guard") | features_of("sgd")
    assert "a Key" in features_of("noisy_sgd") and "a mask" in features_of("freeze")
    assert "branches" in features_of("ratio") and "a schedule" in features_of("join_schedules")
    assert not features_of("scale_by_adam") & {"a mask", "a schedule", "a Key", "Rule.measure"}
