"""Every law over the whole catalogue.

In float32, on a flat tree, every entry obeys every law. Other dtypes, other trees and the step that is not
compiled meet every entry, every law and each other pairwise, but an entry only every second of the dtypes;
`--full` runs the whole product.
"""

import contextlib
import functools
import itertools

import pytest

from catalogue import ALIASES, ENTRIES
from gradtx import testing
from law_dimensions import DTYPES, MODES, TREES, case
from pairwise import cover, pairs
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
# These compile programs of their own.
COSTLY = [
    "hyperparameters_have_gradients",
    "one_compilation_serves_all_settings",
    "sharded_equals_unsharded",
    "vmap_equals_loop",
    "scan_equals_loop",
    "absent_gradients_change_nothing",
]
# These take their derivatives in double precision, whatever the dtype of a case is.
DOUBLE = ["hyperparameters_have_gradients"]
DIMENSIONS = {
    "entry": list(ENTRIES),
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


def plainly(row):
    """Whether a plain run has these values together.

    The dtypes take turns with the entries. A schedule is tested in gradient descent, which itself meets the
    other dtypes, trees and modes.
    """
    has_another = any(n in ALIASES or (n in ENTRIES and ENTRIES[n].kind == "schedule") for n in row)
    elsewhere = {*DTYPES, *TREES, *MODES} - {"float32", "flat", "compiled"}
    turns = [list(names).index(n) for n in row for names in (ENTRIES, DIMENSIONS["dtypes"]) if n in names]
    out_of_turn = len(turns) == 2 and sum(turns) % 2
    return possible(row) and not out_of_turn and not (has_another and elsewhere & {*row})


def covered(pair):
    """Pairs of an entry and a law meet in float32, and so do pairs with a flat tree or a compiled step."""
    i, a, j, b = pair
    return (i, j) == (0, 2) or (i != 1 and {a, b} & {"flat", "compiled"} != set())


@functools.cache
def rows():
    """The pairwise cover."""
    return cover(DIMENSIONS, plainly, covered)


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


def in_every_run(entry, law):
    """An alias obeys the costly laws if the code that it shares does."""
    return () if entry not in ALIASES or law not in COSTLY else pytest.mark.full


@pytest.mark.parametrize(
    "entry, law",
    [pytest.param(*pair, marks=in_every_run(*pair)) for pair in itertools.product(ENTRIES, testing.LAWS)],
)
def test_law(entry, law):
    obeys(entry, "float32", law, "flat", "compiled")


@pytest.mark.brief
@pytest.mark.parametrize("law", BRIEF_LAWS)
@pytest.mark.parametrize("entry", BRIEF_ENTRIES)
def test_law_in_brief(entry, law):
    """On the oldest versions; of parameters and gradients that differ in dtype."""
    obeys(entry, "bfloat16 with float32 gradients", law, "flat", "compiled")


@pytest.mark.parametrize("row", rows(), ids=", ".join)
def test_law_pairwise(row):
    obeys(*row)


def test_the_cover_is_one():
    met = set().union(*map(pairs, rows()))
    for (i, left), (j, right) in itertools.combinations(enumerate(DIMENSIONS.values()), 2):
        for a, b in itertools.product(left, right):
            assert (i, a, j, b) in met or covered((i, a, j, b)) or not plainly((a, b)), (a, b)


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


@pytest.mark.parametrize("entry", ["lion", "scale_by_lion"])
def test_a_complex_sign_has_its_derivative(entry):
    obeys(entry, "complex64", "hyperparameters_have_gradients", "flat", "compiled")
