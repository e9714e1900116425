"""The state of another library's transform: what in it is like a parameter, and where it is placed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine.leaves import flatten, path_parts, shape_of
from gradtx.core.engine.placement import Placement, typed_sharding

PyTree = Any


def foreign_state(init: Callable[[PyTree], PyTree], params: PyTree) -> PyTree:
    """What an `init` that knows nothing of shardings gives for parameters, placed beside them.

    An array is like a parameter if it has its shape and if its path ends with the parameter's, and is then
    sharded as that; all else is replicated. An array that `init` has placed stays where it is. Of abstract
    parameters it is abstract, and nothing is made.
    """
    place = Placement(flatten(params)[0])
    if place.abstract:
        # What types do not say is left out: it may be of another mesh than the context's.
        seen = jax.tree.map(lambda x: shape_of(x) if typed_sharding(x) is None else x, params)
        made = jax.eval_shape(init, seen)
    else:
        made = init(params)
    like = {tuple(path_parts(path)): x for path, x in jax.tree_util.tree_flatten_with_path(params)[0]}

    def placed(path: Any, x: Any) -> Any:
        parts = tuple(path_parts(path))
        ends = (parts[i:] for i in range(len(parts) + 1))
        leaf = next((like[end] for end in ends if end in like), None)
        alike = leaf is not None and jnp.shape(leaf) == jnp.shape(x)
        return place.foreign(x, leaf if alike else None)

    return jax.tree_util.tree_map_with_path(placed, made)
