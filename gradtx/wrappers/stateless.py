"""Transforms from functions that remember nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from gradtx.core.compose.rule import Rule
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.spec import show


def _check_function(where: str, f: Any) -> None:
    if not callable(f):
        raise TypeError(f"{where} takes a function of updates and parameters, got {show(f)}.")


class Stateless(Wrapper, name="stateless"):
    """u = f(g, theta), on trees."""

    f: Any

    in_place = False

    def check(self) -> None:
        _check_function(self.name, self.f)

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        params = None if call.params is None else call.tree(call.params)
        return call.leaves(self.f(call.tree(gs), params)), {}


class StatelessWithTreeMap(Rule, name="stateless_with_tree_map"):
    """u = f(g, theta), on one leaf."""

    f: Any

    def check(self) -> None:
        _check_function(self.name, self.f)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return self.f(g, leaf.param), slots


@builds(Stateless)
def stateless(f: Callable[[Any, Any], Any]) -> Transform:
    """A transform from a function of the tree of updates and the tree of parameters: u = f(g, theta).

    Args:
        f: `f(updates, params)` gives a tree like `updates`. Updates come in at least float32, with `None` for
            a leaf that is masked out or has no gradient; `params` is None where the caller gave none.

    Returns:
        A transform without slots, equal to another one of the same function. A lambda does not print as code.

    Raises:
        TypeError: `f` is not callable.
        ValueError: at update, `f` gives another tree.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> tx = gradtx.stateless(lambda updates, params: jax.tree.map(lambda u: 2 * u, updates))
        >>> tx.update(jnp.array([1.0, -3.0]), tx.init(jnp.zeros(2)))[0].tolist()
        [2.0, -6.0]
    """
    ...


@builds(StatelessWithTreeMap)
def stateless_with_tree_map(f: Callable[[jax.Array, Any], jax.Array]) -> Transform:
    """A transform from a function of one leaf's update and parameter: u = f(g, theta).

    Args:
        f: `f(update, param)` gives the new update of the leaf. Both come in at least float32; `param` is None
            where the caller gave no parameters.

    Returns:
        A transform without slots, equal to another one of the same function. A lambda does not print as code.

    Raises:
        TypeError: `f` is not callable.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.stateless_with_tree_map(lambda u, p: u * abs(p))
        >>> params = jnp.array([1.0, -3.0])
        >>> tx.update(jnp.ones(2), tx.init(params), params)[0].tolist()
        [1.0, 3.0]
    """
    ...
