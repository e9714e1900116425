"""The parameters to evaluate with, found in a state."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.protocol import OptState
from gradtx.core.numbers.hyperparams import states_of
from gradtx.core.numbers.states import EVAL, Kept, kept_in
from gradtx.core.numerics import cast, compute_dtype, like, real_dtype
from gradtx.wrappers.ema_nesterov import EmaNesterov
from gradtx.wrappers.schedule_free import ScheduleFree

T = TypeVar("T")


def eval_params(x: Any, params: T, *, name: str | None = None) -> T:
    """The parameters to evaluate with: the average where a state has one, and the parameter elsewhere.

    They are the averages of `ema_params`, `polyak_average` and `schedule_free`, the slow weights of
    `lookahead` and the parameters of `ema_nesterov` without the look-ahead, wherever these stand: on a group
    of the leaves, in `accumulate`, in another library's chain.

    Args:
        x: an optimizer state, or what holds one: a `TrainState`, an `nnx.Optimizer`, another library's state.
        params: the parameters.
        name: which average, where several cover one leaf: the end of the dotted path of its transform in the
            state, such as `"ema_params_1"`.

    Returns:
        A tree like `params`, in its dtypes. A leaf may be the state's own array, or the parameter itself:
        where these are donated to the next step, use it before, or copy it.

    Raises:
        TypeError: there is no gradtx state in `x`.
        ValueError: several averages cover one leaf; or they are averages of other parameters.
        KeyError: no average, or more than one, has this name; those that there are are listed.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"w": jnp.ones(2), "bias": jnp.ones(1)}
        >>> tx = gradtx.masked(gradtx.ema_params(gradtx.sgd(1.0), 0.5), "w")
        >>> params, state = gradtx.apply_gradients(tx, params, tx.init(params), params)
        >>> {path: p.tolist() for path, p in gradtx.eval_params(state, params).items()}
        {'bias': [2.0], 'w': [0.5, 0.5]}
    """
    states_of(x)
    averages = {".".join(kept.path): kept.slots[EVAL] for kept in kept_in(x) if EVAL in kept.slots}
    implied: dict[str, Callable[[Any, Any], jax.Array]] = {}
    for rule, slot, scalar, found in _IMPLIED:
        for kept in _kept_of(rule, x):
            averages[".".join(kept.path)] = kept.slots[slot]
            implied[".".join(kept.path)] = functools.partial(found, kept.slots[scalar])
    if name is not None:
        averages = _named(averages, name)
    leaves, structure = lv.flatten(params)
    places = {path: i for i, path in enumerate(lv.paths(params))}
    chosen: dict[str, str] = {}
    for average, tree in averages.items():
        for path, a in zip(lv.paths(tree), lv.flatten(tree)[0], strict=True):
            if a is None:
                continue
            if path not in places:
                raise ValueError(
                    f"{average} has an average of the leaf {path!r}, which the params do not have. Pass the "
                    f"parameters that this state was made for."
                )
            if path in chosen:
                raise ValueError(
                    f"Both {chosen[path]} and {average} have an average of the leaf {path!r}. Say which to "
                    f"evaluate with: eval_params(..., name={average!r})."
                )
            p = leaves[places[path]]
            if jnp.shape(a) != jnp.shape(p):
                raise ValueError(
                    f"{average} has an average of shape {jnp.shape(a)} of the leaf {path!r}, which has shape "
                    f"{jnp.shape(p)} in the params. For a batch of states call eval_params under jax.vmap."
                )
            if average in implied:
                a = implied[average](p, a)
            chosen[path], leaves[places[path]] = average, cast(a, jnp.result_type(p))
    return structure.unflatten(leaves)


def _kept_of(rule: type[Rule], x: Any) -> list[Kept]:
    """What a rule keeps, wherever it stands, of which the parameters to evaluate with follow."""
    return [kept for kept in kept_in(x) if set(kept.slots) == {*rule.slots, *rule.scalars}]


def _together(scalar: Any, y: Any, z: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A number and two arrays in one dtype, at least float32."""
    dtype = compute_dtype(z.dtype, jnp.result_type(y))
    y = cast(jnp.asarray(y), like(jnp.result_type(y), dtype))
    return cast(scalar, real_dtype(dtype)), y, cast(z, like(z.dtype, dtype))


def _averaged(share: Any, y: Any, z: Any) -> jax.Array:
    """The x of which y = share x + (1 - share) z."""
    share, y, z = _together(share, y, z)
    return (y - (1 - share) * z) / share


def _behind(ahead: Any, y: Any, direction: Any) -> jax.Array:
    """The x of which y = x + ahead direction."""
    ahead, y, direction = _together(ahead, y, direction)
    return y - ahead * direction


_IMPLIED = (
    (ScheduleFree, "z", "share", _averaged),
    (EmaNesterov, "direction", "ahead", _behind),
)
"""Rules that keep no average: their slot and their number, of which with the parameter one follows."""


def schedule_free_eval_params(state: OptState, params: T) -> T:
    """The parameters to evaluate with of `schedule_free`; `gradtx.eval_params` gives them, too.

    Args:
        state: an optimizer state, or what holds one.
        params: the parameters.

    Returns:
        A tree like `params`, in its dtypes: (y - (1 - b1) z) / b1.

    Raises:
        ValueError: there is no `schedule_free` in the state, or more than one.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, y = gradtx.schedule_free_sgd(0.5), jnp.array([1.0])
        >>> y, state = gradtx.apply_gradients(tx, 2 * y, tx.init(y), y)
        >>> gradtx.schedule_free_eval_params(state, y).tolist()
        [0.0]
    """
    found = _kept_of(ScheduleFree, state)
    if len(found) != 1:
        count = "no schedule_free" if not found else f"more than one schedule_free ({len(found)})"
        raise ValueError(f"schedule_free_eval_params: there is {count} in this state.")
    return eval_params(state, params, name=".".join(found[0].path))


def _named(averages: dict[str, Any], name: str) -> dict[str, Any]:
    found = [n for n in averages if n == name] or [n for n in averages if f".{n}".endswith(f".{name}")]
    if len(found) != 1:
        if not averages:
            raise KeyError(
                f"There is no average {name!r}, and no other: put ema_params around the optimizer."
            )
        what = f"{name!r} may be any of several averages" if found else f"There is no average {name!r}"
        raise KeyError(f"{what}. Give name= as one of {', '.join(found or averages)}.")
    return {found[0]: averages[found[0]]}
