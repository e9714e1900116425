"""How many bytes the state of an optimizer takes, before there is one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import adapted
from gradtx.core.spec.spec import show
from gradtx.inspect.bytes import LeafBytes, StateBytes
from gradtx.inspect.kept_slots import kept_of, kept_of_state, kept_slots, nbytes
from gradtx.inspect.survey import Surveyed, attach, checked_arguments, survey
from gradtx.inspect.typed_params import typed_params

PyTree = Any


def state_bytes(
    tx: AnyTransform,
    params: PyTree,
    mesh: Mesh | AbstractMesh | None = None,
    *,
    specs: PyTree = None,
) -> StateBytes:
    """How many bytes the state of an optimizer takes: in all, by a device, of each slot and of each leaf.

    It is computed from shapes, dtypes and shardings alone: nothing is run and no array is made. The bytes of
    a slot are those of its values and its scales, where it is in a format of `gradtx.store`.

    Args:
        tx: a transform of any library.
        params: the parameters, arrays or `jax.ShapeDtypeStruct`s.
        mesh: the mesh of `specs`, a `jax.sharding.Mesh` or an `AbstractMesh`; by default the one that the
            parameters are on. On another one than that they are taken to be sharded along the axes of the
            same names.
        specs: as for `state_sharding`: how the parameters are sharded, by default as they are.

    Returns:
        A `StateBytes`, which prints as a table; what it says can be read as attributes too: `nbytes` and
        `on_one` (in all and by a device), `slots`, `leaves`, `state_per_element`, and `per_element`, the
        bytes of a parameter with its gradient and its state.

    Raises:
        ValueError: the specs do not fit, or `init` refuses the parameters.
        TypeError: `init` refuses the parameters, or they are None; `tx` is no transform, or `mesh` is no
            mesh.

    Examples:
        >>> import gradtx, jax
        >>> params = {
        ...     "kernel": jax.ShapeDtypeStruct((8192, 4096), "bfloat16"),
        ...     "bias": jax.ShapeDtypeStruct((4096,), "bfloat16"),
        ... }
        >>> print(gradtx.state_bytes(gradtx.precision(gradtx.adamw(1e-3), "7-bytes"), params))
        2 leaves, 33,558,528 parameters; the state takes 98.0 MiB, 3.063 bytes for each parameter
        a parameter, its gradient and its state take 7.063 bytes
        <BLANKLINE>
        kept                                     as                  in all  bytes each
        parameters                               bfloat16          64.0 MiB           2
        gradients                                bfloat16          64.0 MiB           2
        state                                                      98.0 MiB       3.063
          precise_params.beside                  int8              32.0 MiB           1
          precise_params.inner.scale_by_adam.mu  int8              33.0 MiB       1.031
          precise_params.inner.scale_by_adam.nu  uint8_stochastic  33.0 MiB       1.031
          numbers                                                      32 B           -
        <BLANKLINE>
        leaf                 elements  parameters     state  bytes each
        kernel             33,554,432    64.0 MiB  98.0 MiB       3.062
        bias                    4,096     8.0 KiB  12.2 KiB       3.062
        of no single leaf                              32 B
        >>> round(gradtx.state_bytes(gradtx.adamw(1e-3), params).per_element, 3)
        12.0
    """
    checked_arguments("state_bytes", tx, params, None)
    if mesh is not None and not hasattr(mesh, "axis_names"):
        raise TypeError(
            f"state_bytes: mesh must be a jax.sharding.Mesh or an AbstractMesh, got {show(mesh)}."
        )
    params = typed_params(params, mesh, specs, "state_bytes")
    # A mesh that the caller has set is not the one that types speak of here; an empty one sets none.
    with jax.set_mesh(Mesh(np.empty((), object), ())):
        level, state = survey(tx, params), adapted(tx).init(params)
    attach(level, tx, state)
    slots = list(kept_slots(level))
    whole, kept = kept_of_state(state, slots)
    seen_as = {id(inner): names for inner, names in _names(level, {path: path for path in level.paths})}
    found: dict[str, tuple[int, int]] = {}
    for slot in slots:
        for path, own, on_one in slot.parts():
            leaf = seen_as[id(slot.level)].get(path)
            if leaf is not None:
                before = found.get(leaf, (0, 0))
                found[leaf] = before[0] + own, before[1] + on_one
    leaves = [
        LeafBytes(path, math.prod(x.shape), nbytes(x), *found.get(path, (0, 0)))
        for path, x in zip(level.paths, level.leaves, strict=True)
        if lv.is_trainable_leaf(x)
    ]
    own = [x for x in lv.flatten(params)[0] if lv.is_trainable_leaf(x)]
    return StateBytes(
        elements=sum(leaf.elements for leaf in leaves),
        parameters=kept_of("parameters", own),
        state=whole,
        slots=kept,
        leaves=tuple(leaves),
    )


def _names(level: Surveyed, names: dict[str, str]) -> Iterator[tuple[Surveyed, dict[str, str]]]:
    """Each level with the leaf that each of its leaves is, or is a part of, unless it is of several."""
    yield level, names
    for path, inner in level.inner.items():
        if level.program.unit_at[path[:-1]].transform.sees_leaves:
            own = {seen: names[of] for seen, of in zip(inner.paths, level.paths, strict=True) if of in names}
        else:
            # What is shown in parts, as a complex leaf or its matrices, has these below its own path.
            whole = {seen: next((of for of in _above(seen) if of in names), None) for seen in inner.paths}
            own = {seen: names[of] for seen, of in whole.items() if of is not None}
        yield from _names(inner, own)


def _above(path: str) -> Iterator[str]:
    """A path, and those above it."""
    parts = path.split("/")
    return ("/".join(parts[:n]) for n in range(len(parts), -1, -1))
