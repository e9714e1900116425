"""Every law over the whole catalogue with its slots in formats and its parameters in 16 bits.

In each preset of `gradtx.precision` that has a meaning for an entry. Features of entries, laws, presets and
trees meet pairwise, and every entry meets a preset; a part of that cover is in a plain run and in `--rest`,
and `--full` runs the whole product.
"""

import functools
import itertools

import pytest

import gradtx
from catalogue import ALIASES, ENTRIES
from features import features_of
from gradtx import testing
from law_dimensions import TREES, case
from pairwise import cover, pairs, wanted
from rotation import one_of
from test_laws import DOUBLE

PRESETS = {"8bit": "float32", "bf16": "bfloat16", "7-bytes": "bfloat16"}
"""By the name of a preset, the dtype of parameters for which it changes the most."""

MADE_ANEW = ("scale_by_galore", "galore", "inject_hyperparams")
"""These make what they wrap anew, so that `store` stands inside of them."""

PRECISE = ("bf16", "7-bytes")
"""These presets have a `precise_params`, which must be the only one."""

SCALED = ("8bit", "7-bytes")
OF_ONE_LEAF = ("nan_stays_in_its_leaf", "absent_gradients_change_nothing")
"""These laws are about one leaf beside others, and in those presets blocks of elements have a scale."""

NAMES = [name for name in ENTRIES if name not in ALIASES and ENTRIES[name].kind != "schedule"]
DIMENSIONS = {"entry": NAMES, "preset": list(PRESETS), "law": list(testing.LAWS), "tree": TREES}
FEATURES = {name: features_of(name) for name in NAMES}


def possible(row):
    """Whether some values of the dimensions have a meaning together."""
    if set(row) & set(MADE_ANEW) or ("precise_params" in row and set(row) & set(PRECISE)):
        return False
    # The leaves of `flatten` are one, with blocks in both, so that it asks for a gradient of each.
    if "flatten" in row and set(row) & set(SCALED) and set(row) & set(OF_ONE_LEAF):
        return False
    # No derivative passes through what was rounded.
    return not (set(row) & set(DOUBLE))


@functools.cache
def rows():
    """The pairwise cover."""
    return cover({**DIMENSIONS, "entry": [n for n in NAMES if n not in MADE_ANEW]}, FEATURES, possible)


@functools.lru_cache(maxsize=2)
def shared(entry, preset, tree):
    """A case, which keeps its compiled step for the laws that follow."""
    return case(ENTRIES[entry], PRESETS[preset], tree, preset=preset)


@pytest.mark.by_turns(8)
@pytest.mark.parametrize("row", one_of(36, rows()), ids=", ".join)
def test_law_pairwise(row):
    entry, preset, law, tree = row
    shared(entry, preset, tree).obeys(law)


def test_the_cover_is_one():
    met = set().union(*(pairs(dict(enumerate(row)), FEATURES) for row in rows()))
    known = {**DIMENSIONS, "entry": [n for n in NAMES if n not in MADE_ANEW]}
    assert set(wanted(known, FEATURES, possible)) <= met
    assert {row[0] for row in rows()} == set(NAMES) - set(MADE_ANEW)


@pytest.mark.parametrize("entry", MADE_ANEW)
def test_what_has_no_meaning_says_so(entry):
    """And what to do in its place."""
    with pytest.raises(ValueError, match="Put store around the transform inside"):
        gradtx.precision(ENTRIES[entry].transform(), "8bit").init(testing.example_params("bfloat16"))


@pytest.mark.parametrize("preset", PRECISE)
def test_what_is_precise_already_says_so(preset):
    with pytest.raises(ValueError, match="Leave one of the two out"):
        gradtx.precision(ENTRIES["precise_params"].transform(), preset)


CASES = [
    values
    for values in itertools.product(NAMES, PRESETS, TREES)
    if any(possible((*values, law)) for law in testing.LAWS)
]
"""The product, without what has no meaning whatever the law."""


@pytest.mark.full
@pytest.mark.parametrize("entry, preset, tree", CASES)
def test_laws_in_full(entry, preset, tree, record_property):
    """The report of the laws counts what ran."""
    broken = []
    for law in testing.LAWS:
        if possible((entry, preset, law)):
            try:
                shared(entry, preset, tree).obeys(law)
                record_property("holds", law)
            except AssertionError as error:
                record_property("broken", law)
                broken.append(str(error))
    assert not broken, "\n".join(broken)
