"""Moving a run in from Optax, and back."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from gradtx.core.engine.layout import check_state
from gradtx.core.engine.protocol import OptState
from gradtx.core.engine.rebase import rebase
from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.hyperparams import placed
from gradtx.core.numbers.paths import Path, lookup, replaced
from gradtx.core.numbers.states import EVAL, held
from gradtx.interop.fitting import own_transform, plain, refuse_formats
from gradtx.interop.optax.counts import settle
from gradtx.interop.optax.match import linked
from gradtx.interop.optax.states import numbered
from gradtx.interop.optax.values import (
    Parameters,
    check_injected,
    copied,
    given,
    injected_numbers,
    taken,
    written,
)

PyTree = Any


def from_optax_state(tx: Transform, optax_state: OptState, params: PyTree, *, step: int | None = None) -> Any:
    """A state for `tx` that goes on where an Optax optimizer stopped.

    The moments, averages and counters are taken from the Optax state, every number from `tx`. The two are
    matched unit by unit, in order: `tx` has the transforms of the Optax optimizer, from gradtx. Transforms
    without a state (clipping, weight decay, scaling) may differ, and so may what only measures (`track`,
    `monitor`, `snapshot`, `measure_with_ema`).

    Args:
        tx: the transform that gets the state; built as the Optax optimizer was.
        optax_state: a state of the Optax optimizer, or what holds one: a `TrainState` or an `nnx.Optimizer`.
        params: the parameters; as they are at that point, also as `nnx.state(model, nnx.Param)`, and for
            `lookahead` Optax's `LookaheadParams`.
        step: the number of updates so far; for an Optax state that does not count them, such as that of `sgd`
            with a constant rate. It is needed only where `tx` depends on it.

    Returns:
        A state with the dtypes, shapes and shardings of `tx.init(params)`, which shares no array with the
        Optax state or the parameters. 16-bit moments are widened.

    Raises:
        ValueError: the Optax state is not one of such an optimizer, or of these parameters; counters
            disagree, or are missing where `tx` depends on the step; injected hyperparameters differ from the
            numbers of `tx`; `tx` keeps something in a format that Optax has no place for. It says which unit,
            and where in the Optax state.
        TypeError: `tx` is not gradtx's, `optax_state` not Optax's, or a dtype of `tx` would lose digits.

    Examples:
        >>> import gradtx, jax.numpy as jnp, optax
        >>> params = {"w": jnp.ones(2)}
        >>> old = optax.adam(1e-3)
        >>> _, old_state = old.update({"w": jnp.array([1.0, -2.0])}, old.init(params), params)
        >>> state = gradtx.from_optax_state(gradtx.adam(1e-3), old_state, params)
        >>> gradtx.step_count(state), [round(float(m), 3) for m in state["slots"]["scale_by_adam"]["mu"]["w"]]
        (1, [0.1, -0.2])
    """
    own = own_transform("from_optax_state", tx)
    slow = None
    if type(params).__name__ == "LookaheadParams":
        params, slow = params.fast, params.slow
    made = own.init(params)
    params, fresh = plain(params), plain(made)
    refuse_formats(own, fresh, "Optax", into=True)
    arrays, structure = numbered(plain(optax_state))
    clock = linked(own, structure, "optax_state", (), fresh)
    settle(clock, arrays, step)
    changes: dict[Path, Any] = {}
    for part in clock.every():
        check_injected(part, fresh, arrays)
        for at in part.states:
            changes[*at, "step"] = placed(part.step, np.int32, (), lookup(fresh, at)["step"])
        for link in part.links:
            changes |= taken(link, arrays, fresh, Parameters(params, slow), part.step)
        for copy in part.copies:
            changes[copy.path] = copied(copy, arrays, fresh, part.step)
    if slow is not None and not any(path[-1] == EVAL for path in changes):
        raise ValueError("params is a LookaheadParams, and tx has no lookahead. Pass the fast parameters.")
    state = fresh
    for path, value in changes.items():
        state = replaced(state, path, value)
    return jax.tree.structure(made).unflatten(jax.tree.leaves(rebase(own, state)[0]))


def to_optax_state(tx: Transform, state: OptState, optax_state: OptState) -> Any:
    """The way back: a state for the Optax optimizer that goes on where gradtx stopped.

    Args:
        tx: the transform that made the state.
        state: an optimizer state, or what holds one: a `TrainState` or an `nnx.Optimizer`.
        optax_state: a state of the Optax optimizer, or what holds one; the new state takes its place. One
            from its `init` will do.

    Returns:
        A state like `optax_state`, in its dtypes, which may be narrower than gradtx's. Counters are gradtx's
        steps, and injected hyperparameters the numbers in force; but those that schedules set are left as
        they are, since Optax computes them at its next update. The slow weights of `lookahead` are parameters
        there: `optax.LookaheadParams(params, gradtx.eval_params(state, params))`.

    Raises:
        ValueError: the two do not fit, as for `from_optax_state`.
        TypeError: `tx` or `state` is not gradtx's, or `optax_state` not Optax's.

    Examples:
        >>> import gradtx, jax.numpy as jnp, optax
        >>> params, tx = {"w": jnp.ones(2)}, gradtx.sgd(0.1, momentum=0.9)
        >>> _, state = tx.update({"w": jnp.array([1.0, -2.0])}, tx.init(params), params)
        >>> gradtx.to_optax_state(tx, state, optax.sgd(0.1, momentum=0.9).init(params))[0].trace
        {'w': Array([ 1., -2.], dtype=float32)}
    """
    own, state, optax_state = own_transform("to_optax_state", tx), plain(state), held(optax_state)
    check_state(own.program, state)
    refuse_formats(own, state, "Optax", into=False)
    arrays, structure = numbered(plain(optax_state))
    clock = linked(own, structure, "optax_state", (), state)
    new: dict[int, Any] = {}
    for part in clock.every():
        at_step = lookup(state, part.states[0])["step"] if part.states else 0
        new |= {counter.position: at_step + counter.first for counter in part.reading.counters}
        new |= {m.position: m.entries[0].read() for m in injected_numbers(part, state) if m.entries}
        for link in part.links:
            new |= given(link, state, at_step)
        for copy in part.copies:
            mine = jax.tree.leaves(lookup(state, copy.path))
            new |= {theirs: mine[ours] for ours, theirs in copy.pairs}
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(optax_state)[0]]
    for position, value in new.items():
        arrays[position] = written(value, arrays[position], f"optax_state{names[position]}")
    return jax.tree.structure(optax_state).unflatten(arrays)
