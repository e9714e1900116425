"""Slots that do not say that they are never negative, and never were: each has a reason.

That what is declared is so is a law (`slots_are_what_they_are_declared`).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from catalogue import ALIASES, ENTRIES
from gradtx import testing
from gradtx.core.numbers.paths import lookup
from gradtx.testing.gradtx_laws import declared_slots
from rotation import one_of

REASONS = {
    "scale_by_sophia/nu": "what estimates it is the user's, and Hutchinson's estimate has a sign",
    "ema_1/ema": "an average of whatever comes in, here of squares",
}
"""By the names of a transform and a slot, why it is not declared, though no number of it was negative."""


def silent(entry):
    """The slots like leaves that do not say that they are never negative, by their paths in the state."""
    slots = declared_slots(entry.transform().program)
    return {
        path: slot
        for path, slot in slots
        if not (slot.nonnegative or slot.is_of_matrices) and slot.is_like_leaf
    }


def which():
    """An entry for each transform that has such a slot."""
    found, seen = [], set()
    for name, entry in ENTRIES.items():
        if name not in ALIASES and entry.kind != "schedule" and not entry.positive:
            new = {path[-2:] for path in silent(entry)} - seen
            seen |= new
            found += [name] * bool(new)
    return found


def random_tree(rng):
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in (("bias", ()), ("kernel", (4, 2)))}


@pytest.mark.wide
@pytest.mark.parametrize("name", one_of(12, which()))
def test_what_was_never_negative_is_declared_or_has_a_reason(name):
    entry, rng = ENTRIES[name], np.random.default_rng(11)
    lowest = {}
    case = testing.Case(entry.transform(), random_tree(rng), [], **entry.extra)
    for _ in range(3):
        params = random_tree(rng)
        grads = [jax.tree.map(lambda x: x * 2, random_tree(rng)) for _ in range(6)]
        for _, state, _ in case.run(case.tx.init(params), grads, params=params):
            for path in silent(entry):
                found = [np.asarray(x) for x in jax.tree.leaves(lookup(state, path)) if x.shape == (4, 2)]
                if found and found[0].dtype == np.float32 and found[0].any():
                    lowest[path] = min(lowest.get(path, 0.0), found[0].min())
    never = {"/".join(path[-2:]) for path, least in lowest.items() if least == 0}
    assert never - REASONS.keys() == set()
