"""Lookahead: slow weights that follow fast ones, which start from them again and again."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core.compose.rule import Slot, WholeScalar
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.rebase import started_anew
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform, cast_like
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numbers.states import EVAL
from gradtx.core.numbers.steps import Steps, next_count
from gradtx.core.numerics import Decay, cast
from gradtx.core.shards import repeat
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Fraction, Period, ScalarOrSchedule


class Lookahead(Wrapper, name="lookahead"):
    """On every sync_period-th update, after p += u: s += slow_step_size (p - s), p = s."""

    fast_optimizer: Any
    sync_period: Period
    slow_step_size: Fraction
    reset_state: bool
    eval_params = Slot(init=lambda rule, param: param)
    count = WholeScalar(dtype="int32")

    needs = ("params",)
    last: ClassVar[bool] = True

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.fast_optimizer}

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        result, inner = call.run(self.fast_optimizer, gs, slots.inner)
        count = next_count(slots.count)
        sync = Steps.of(count) >= self.sync_period

        def synchronized(carry: Any) -> Any:
            slow, params, inner = carry
            share = [Decay(self.slow_step_size).astype(s.real.dtype) for s in slow]
            slow = [c.mix(s, p) for c, s, p in zip(share, slow, params, strict=True)]
            params = [cast_like(s, p) for s, p in zip(slow, params, strict=True)]
            if self.reset_state:
                fresh = started_anew(self.fast_optimizer, inner, call.tree(params))
                inner = jax.tree.map(cast_like, fresh, inner)
            return slow, params, inner

        old = slots.eval_params, result if call.apply else call.added(result), inner
        if not isinstance(sync, Tracer):
            slow, params, inner = synchronized(old) if sync else old
        elif call.apply:
            # As in `call.run`: a loop of no trips passes its arrays through, where a `cond` copies them.
            slow, params, inner = repeat(sync.astype(jnp.int32), lambda _, carry: synchronized(carry), old)
        else:
            slow, params, inner = jax.tree.map(
                lambda a, b: a if a is b else jnp.where(sync, b, a), old, synchronized(old)
            )
        if call.apply:
            result = params
        else:
            assert call.params is not None
            pairs = zip(slow, call.params, result, strict=True)
            result = [jnp.where(sync, s - cast(p, s.dtype), u) for s, p, u in pairs]
        return result, {EVAL: slow, "count": jnp.where(sync, 0, count), "inner": inner}


@builds(Lookahead)
def lookahead(
    fast_optimizer: AnyTransform,
    sync_period: ScalarOrSchedule,
    slow_step_size: ScalarOrSchedule,
    reset_state: bool = False,
) -> Transform:
    """Moves slow weights towards the parameters every few updates, and restarts the parameters from them.

        u = fast(g)                                             p += u
        on every sync_period-th update   s += slow_step_size (p - s),   p = s

    The parameters are one plain tree, the fast weights; the slow ones start as a copy of them and are kept in
    the state, in at least float32 (Optax takes pairs of both as parameters, `LookaheadParams`). Evaluate with
    the slow weights, `gradtx.eval_params(state, params)`.

    Args:
        fast_optimizer: the wrapped transform, of any library; it moves the parameters, and gets the keyword
            arguments of the call.
        sync_period: the number of updates from one synchronization to the next, a whole number from 1 to
            2^31 - 1; the paper uses 5 to 10.
        slow_step_size: the share of the way that the slow weights go, in [0, 1]; the paper uses 0.5.
        reset_state: start the state of `fast_optimizer` anew at each synchronization: its slots, its step and
            with it its schedules, and its random keys. Its hyperparameters stay as they are in the state.

    Returns:
        A transform with the slot `eval_params`, the slow weights. Through `gradtx.apply_gradients` only the
        updates that synchronize cost more than those of `fast_optimizer`; that is for forward mode, and
        reverse mode works through `update`.

    Raises:
        ValueError: a number is out of its domain; at init, a transform after this one changes the updates, so
            that the parameters would not be the fast weights.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.lookahead(gradtx.sgd(1.0), 2, 0.5), jnp.zeros(1)
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     params, state = gradtx.apply_gradients(tx, jnp.array([-1.0]), state, params)
        ...     print(params, gradtx.eval_params(state, params))
        [1.] [0.]
        [1.] [1.]
        [2.] [1.]

    References:
        Zhang, Lucas, Hinton and Ba, Lookahead Optimizer: k steps forward, 1 step back, 2019,
        https://arxiv.org/abs/1907.08610.
    """
    ...
