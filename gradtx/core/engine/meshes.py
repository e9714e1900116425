"""The mesh that an update is on, and an error by name for what is on another one.

JAX has no words for it that a user could follow: an argument of a compiled function of this library is on
incompatible devices. And where the devices are the same, a compiler that may choose moves a state at each
step.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.placement import typed_sharding

PyTree = Any
Place = Mesh | AbstractMesh | frozenset[Any]
"""A mesh, or devices that are none."""


def check_meshes(grads: PyTree, params: PyTree, state: PyTree) -> None:
    """Raises where the gradients, the parameters and the state of an update are on several meshes."""
    found: dict[Place, tuple[str, PyTree, Any]] = {}
    for what, tree in (("gradient", grads), ("parameter", params)):
        for x in jax.tree.leaves(tree):
            place = _place_of(x)
            if place is None or place in found:
                continue
            for other, (whose, others, y) in found.items():
                if not _fits(place, other, may_move=True):
                    raise ValueError(
                        f"The {what} of the leaf {_path(tree, x)!r} is on {shown(place, other)}, and the "
                        f"{whose} of the leaf {_path(others, y)!r} on {shown(other, place)}. Put all of them "
                        f"on one mesh by jax.device_put."
                    )
            found[place] = what, tree, x
    rest = {k: x for k, x in state.items() if k != "slots"}
    for tree in (state["slots"], rest) if found else ():
        for x in jax.tree.leaves(tree):
            place = _place_of(x)
            if place is not None and not any(_fits(place, other) for other in found):
                other = next(iter(found))
                raise ValueError(
                    f"{_path(tree, x)} is on {shown(place, other)} in the state, and the parameters are on "
                    f"{shown(other, place)}. Put the state where they are: "
                    f"jax.device_put(state, gradtx.state_sharding(tx, params))."
                )


def _place_of(x: Any) -> Place | None:
    """Where an array must stay; None where JAX may move it, or does not say."""
    if isinstance(x, Tracer):
        typed = typed_sharding(x)
        return None if typed is None else typed.mesh
    if not getattr(x, "committed", False):
        return None
    sharding = x.sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else frozenset(sharding.device_set)


def _path(tree: PyTree, x: Any) -> str:
    """The path of a leaf of a tree."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return "/".join(next(lv.path_parts(path) for path, y in found if y is x))


def _fits(a: Place, b: Place, *, may_move: bool = False) -> bool:
    """Whether what is in two places can be in one update, and, unless it may move, stays where it is."""
    if a == b:
        return True
    if isinstance(a, AbstractMesh) or isinstance(b, AbstractMesh):
        # They may differ in what they know of the devices. Inside of a function a mesh may be partly manual.
        if isinstance(a, AbstractMesh) and isinstance(b, AbstractMesh):
            return (a.shape_tuple, a.axis_types) == (b.shape_tuple, b.axis_types)
        return True
    if isinstance(a, Mesh) and isinstance(b, Mesh) and a.size > 1:
        is_free = may_move and AxisType.Explicit not in (*a.axis_types, *b.axis_types)
        return is_free and [*a.devices.flat] == [*b.devices.flat]
    return _devices(a) == _devices(b)


def _devices(place: Any) -> set[Any]:
    return set(place.devices.flat if isinstance(place, Mesh) else place)


def shown(place: Any, other: Any = None) -> str:
    """A place in words, with what tells it from another one of the same words."""
    if isinstance(place, frozenset):
        return "one device" if len(place) == 1 else f"{len(place)} devices that are no mesh"
    words = "a mesh of " + " x ".join(f"{size} {name!r}" for name, size in place.shape_tuple)
    if getattr(other, "shape_tuple", None) != place.shape_tuple:
        return words
    if place.axis_types != other.axis_types:
        return f"{words} with the axis types {', '.join(kind.name for kind in place.axis_types)}"
    if isinstance(place, AbstractMesh):
        return f"{words} without devices"
    return f"{words} of the devices {', '.join(str(d.id) for d in place.devices.flat)}"
