"""What an optimizer would measure of a shard alone, where at run time nothing tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import AbstractMesh, PartitionSpec

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.transform import adapted
from gradtx.core.shards import names_of, vary
from gradtx.core.spec.spec import show
from gradtx.formulas.trace import axes_of_shards, composed
from gradtx.inspect.findings import Finding


def shard_findings(tx: Any, params: Any, axis_name: Any) -> Iterator[Finding]:
    """The first transform that puts the elements of a shard together and does not name the axes.

    The update is traced inside of an imagined `jax.shard_map`, where types say what is a shard and the engine
    refuses such a transform.
    """
    names = names_of(axis_name)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"check: axis_name must be the name of an axis, or several, got {show(axis_name)}.")
    shapes = jax.tree.map(lambda x: lv.shape_of(x) if lv.is_trainable_leaf(x) else x, params)
    leaves, structure = jax.tree.flatten(shapes)
    trained = {i: x for i, x in enumerate(leaves) if lv.is_trainable_leaf(x)}

    def update(trained: dict[int, Any], axes: tuple[str, ...]) -> tuple[()]:
        own = {i: vary(x, frozenset(axes)) for i, x in trained.items()}
        tree = structure.unflatten([own.get(i, x) for i, x in enumerate(leaves)])
        adapted(tx).update(tree, adapted(tx).init(tree), tree)
        return ()

    try:
        jax.make_jaxpr(lambda x: update(x, ()), axis_env=axes_of_shards(composed(tx)))(trained)
    except Exception:
        return  # it asks for more than there is here, and says so when it is called
    mesh, spec = AbstractMesh((2,) * len(names), names), PartitionSpec()
    body = jax.shard_map(lambda x: update(x, names), mesh=mesh, in_specs=spec, out_specs=spec)
    try:
        jax.eval_shape(body, trained)
    except ValueError as error:
        what = str(error).partition("\n")[0]
        remedy = "In jax.pmap, and in jax.shard_map with check_vma=False, nothing says so at run time."
        yield Finding("shards", "warning", what, remedy)
