"""A leaf may have more elements than an int32 counts: each transform can be traced on such ones."""

import jax
import pytest

from catalogue import ENTRIES
from rotation import one_of

PARAMS = {
    "matrix": jax.ShapeDtypeStruct((65536, 65536), "float32"),
    "vector": jax.ShapeDtypeStruct((2**33,), "float32"),
    "stack": jax.ShapeDtypeStruct((4, 65536, 32768), "float32"),
}


@pytest.mark.parametrize("name", one_of(20, ENTRIES))
def test_a_leaf_has_more_elements_than_an_int32_counts(name):
    entry = ENTRIES[name]
    tx = entry.transform()
    state = tx.init(PARAMS)
    updates, _ = jax.eval_shape(lambda g, s, p: tx.update(g, s, p, **entry.extra), PARAMS, state, PARAMS)
    assert {k: u.shape for k, u in updates.items()} == {k: p.shape for k, p in PARAMS.items()}
