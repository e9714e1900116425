"""Every law over the whole catalogue.

In float32, on a flat tree, every entry obeys every law that the compiled step of the entry serves. A law that
compiles programs of its own meets every feature of the engine and every kind of entry, and the other entries
take turns (`rotation.py`). Other dtypes, other trees and the step that is not compiled meet every feature,
every law and each other pairwise, and every entry meets some of them (`pairwise.py`). A third of
the former and a tenth of the latter are in a plain run, the others and a third of the latter in `--rest`;
`--full` runs all, and the whole product.
"""

import contextlib
import functools
import itertools

import pytest

from catalogue import ALIASES, ENTRIES
from counting import compilations
from features import features_of
from gradtx import testing
from law_dimensions import DTYPES, MODES, TREES, case
from pairwise import cover, pairs, wanted
from rotation import one_of, rotation
from trajectories import x64

BRIEF_ENTRIES = ["adamw", "adafactor", "clip_by_global_norm", "noisy_sgd", "prodigy", "join_schedules"]
BRIEF_LAWS = ["state_in_is_state_out", "jit_equals_eager", "abstract_init_matches"]
# These laws run steps as the mode says; the others compile, or do not, by themselves.
STEPPING = [
    "state_in_is_state_out",
    "updates_have_the_promoted_dtype",
    "two_runs_are_identical",
    "zero_gradients_are_finite",
    "nan_stays_in_its_leaf",
    "restored_state_continues",
    "apply_gradients_is_update_then_apply",
    "numbers_live_in_the_state",
]
# One compiled step serves these, and what else they compile is a few operations. The others are costly.
CHEAP = [
    "abstract_init_matches",
    "init_aliases_nothing",
    "init_and_update_run",
    "jit_equals_eager",
    "nan_stays_in_its_leaf",
    "repr_rebuilds_it",
    "restored_state_continues",
    "slots_are_what_they_are_declared",
    "state_in_is_state_out",
    "two_runs_are_identical",
    "updates_have_the_promoted_dtype",
    "zero_gradients_are_finite",
]
COSTLY = [law for law in testing.LAWS if law not in CHEAP]
# These take their derivatives in double precision, whatever the dtype of a case is.
DOUBLE = ["hyperparameters_have_gradients"]
# The code of an alias is another entry's, which meets the costly laws for both; a schedule is tested in
# gradient descent, which itself meets the other dtypes, trees and modes.
FEATURES = {name: features_of(name) for name in ENTRIES if name not in ALIASES}
DIMENSIONS = {
    "entry": [name for name in FEATURES if ENTRIES[name].kind != "schedule"],
    "dtypes": [name for name in DTYPES if name != "float32"],
    "law": list(testing.LAWS),
    "tree": TREES,
    "mode": MODES,
}


def possible(row):
    """Whether some values of the dimensions have a meaning together."""
    is_complex = "complex64" in row
    if is_complex and any(not ENTRIES[name].supports_complex for name in row if name in ENTRIES):
        return False
    single = any(name in DTYPES for name in row) and not is_complex and "float64" not in row
    return not (single and any(law in DOUBLE for law in row))


def covered(pair):
    """Features and laws meet in float32, and so do others with a flat tree or a compiled step."""
    i, a, j, b = pair
    return (i, j) == (0, 2) or (i != 1 and {a, b} & {"flat", "compiled"} != set())


@functools.cache
def rows():
    """The pairwise cover."""
    return cover(DIMENSIONS, FEATURES, possible, covered)


@functools.cache
def turns():
    """The entries that meet each costly law."""
    return rotation(FEATURES, COSTLY)


@functools.lru_cache(maxsize=4)
def shared(entry, dtypes, tree, mode):
    """A case, which keeps its compiled step for the laws that follow."""
    return case(ENTRIES[entry], dtypes, tree, mode)


def precision(dtypes):
    """Where the arrays of some dtypes can exist."""
    return x64() if "float64" in dtypes else contextlib.nullcontext()


def obeys(entry, dtypes, law, tree, mode):
    with precision(dtypes):
        shared(entry, dtypes, tree, mode).obeys(law)


def meets(entry, law):
    """Whether an entry meets a law, in float32, unless all of them do."""
    return law in CHEAP or entry in turns()[law]


def when(entry, law):
    """The marks that say in which runs an entry meets a law: of three costly meetings one is in each run."""
    if not meets(entry, law):
        return pytest.mark.full
    turn = (turns()[law].index(entry) + COSTLY.index(law)) % 3 if law in COSTLY else 0
    return ((), pytest.mark.wide, pytest.mark.full)[turn]


@pytest.mark.parametrize(
    "entry, law",
    # The laws of an entry stand together, since they share its compiled step.
    [pytest.param(*pair, marks=when(*pair)) for pair in itertools.product(ENTRIES, testing.LAWS)],
)
def test_law(entry, law):
    obeys(entry, "float32", law, "flat", "compiled")


@pytest.mark.by_turns(2)
@pytest.mark.brief
@pytest.mark.parametrize("law", BRIEF_LAWS)
@pytest.mark.parametrize("entry", BRIEF_ENTRIES)
def test_law_in_brief(entry, law):
    """On the oldest versions; of parameters and gradients that differ in dtype."""
    obeys(entry, "bfloat16 with float32 gradients", law, "flat", "compiled")


@pytest.mark.by_turns(20)
@pytest.mark.parametrize("row", one_of(9, rows()), ids=", ".join)
def test_law_pairwise(row):
    obeys(*row)


def test_the_cover_is_one():
    met = set().union(*(pairs(dict(enumerate(row)), FEATURES) for row in rows()))
    for pair in wanted(DIMENSIONS, FEATURES, possible):
        assert pair in met or covered(pair), pair
    assert {row[0] for row in rows()} == set(DIMENSIONS["entry"])


def test_every_law_meets_every_feature_and_every_entry_its_laws():
    for law in testing.LAWS:
        used = [features_of(name) for name in ENTRIES if meets(name, law)]
        assert set().union(*used) >= set().union(*FEATURES.values()), law
    for name in ENTRIES:
        assert all(meets(name, law) for law in CHEAP)
        assert name in ALIASES or any(meets(name, law) for law in COSTLY), name


@pytest.mark.wide
def test_the_cheap_laws_share_a_step():
    """And a law that is not among them is costly until it is shown to be cheap."""
    assert set(CHEAP) < set(testing.LAWS)
    one = case(ENTRIES["adamw"])
    assert one.trajectory
    with compilations() as count:
        for law in CHEAP:
            one.obeys(law)
        assert one.traces == 1
        assert count() <= 12


def laws_of(mode):
    """The laws that a mode makes a difference to."""
    return STEPPING if mode == "eager" else list(testing.LAWS)


@pytest.mark.full
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_laws_in_full(entry, dtypes, tree, mode, record_property):
    """Every law over the whole product; the report counts what ran."""
    broken = []
    for law in laws_of(mode):
        if not possible((entry, dtypes, law)):
            continue
        try:
            obeys(entry, dtypes, law, tree, mode)
            record_property("holds", law)
        except AssertionError as error:
            record_property("broken", law)
            broken.append(str(error))
    assert not broken, "\n".join(broken)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("entry", ["lion", "scale_by_lion"])
def test_a_complex_sign_has_its_derivative(entry):
    obeys(entry, "complex64", "hyperparameters_have_gradients", "flat", "compiled")
