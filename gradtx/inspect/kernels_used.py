"""What does each stage of an update where native kernels are chosen: a loop of C, or XLA, and why."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.leaf_loops import StageLoops, recorded
from gradtx.core.engine.transform import Params
from gradtx.core.loops.choice import chosen
from gradtx.formulas.trace import abstract_update, axes_of_shards, composed


def kernels_used(tx: Any, params: Params) -> tuple[StageLoops, ...]:
    """The stages in which leaves are worked on one by one, those of what wrappers wrap included.

    Nothing is compiled. There are none where XLA's kernels are chosen.
    """
    if chosen() == "xla":
        return ()
    tx = composed(tx)
    leaves, structure = lv.flatten(params)
    tree = structure.unflatten([lv.shape_of(x) if lv.is_trainable_leaf(x) else None for x in leaves])
    update, grads, scalars = abstract_update(tx, tree)
    axes = axes_of_shards(tx)
    _, state = jax.make_jaxpr(tx.init, axis_env=axes, return_shape=True)(tree)
    with recorded() as found:
        jax.make_jaxpr(update, axis_env=axes)(grads, state, tree, scalars)
    return tuple(x for i, x in enumerate(found) if x not in found[:i])
