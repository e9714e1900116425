"""Sharpness-aware minimization: steps by the gradient at a point uphill."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Slot, WholeScalar
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.rebase import started_anew
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform, added, cast_like
from gradtx.core.engine.update import GRAD_FN
from gradtx.core.engine.wrapped_update import Leaves, WrappedUpdate
from gradtx.core.numbers.steps import next_count
from gradtx.core.numerics import cast
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.spec import show


class Sam(Wrapper, name="sam"):
    """All but the last of sync_period calls climb;  the last returns, and goes on by that gradient."""

    optimizer: Any
    adv_optimizer: Any
    sync_period: int
    reset_state: bool
    opaque_mode: bool
    batch_axis_name: str | tuple[str, ...] | None

    in_place = False

    cache = Slot(
        init=lambda rule, param: param, shape=lambda rule, shape: None if rule.opaque_mode else shape
    )
    # Whether a leaf is away from where it began: it may lack a gradient in some calls of a round.
    away = Slot(real=True, shape=lambda rule, shape: None if rule.opaque_mode else ())
    steps_since_sync = WholeScalar(dtype="int32")

    @property
    def needs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        takes_gradients = self.opaque_mode and self.sync_period > 1
        return ("params", GRAD_FN) if takes_gradients else ("params",)

    def check(self) -> None:
        if not isinstance(self.sync_period, int) or self.sync_period < 1:
            raise ValueError(f"{self.name}: sync_period must be an int >= 1, got {show(self.sync_period)}.")
        if self.batch_axis_name is not None and not self.opaque_mode:
            raise ValueError(
                f"{self.name}: batch_axis_name is for the gradients that opaque_mode takes. Average those "
                f"that you give before you give them."
            )

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.optimizer, "inner_adversarial": self.adv_optimizer}

    def updates_in(self, calls: int) -> int:
        return calls if self.opaque_mode else calls // self.sync_period

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        assert call.params is not None
        if self.opaque_mode:
            return self._round(gs, slots, call, call.params)
        count = slots.steps_since_sync
        is_last = count == self.sync_period - 1
        leaves = zip(slots.cache, slots.away, call.params, strict=True)
        starts = [jnp.where(away > 0, start, cast(p, start.dtype)) for start, away, p in leaves]
        climbs, climber = call.run(self.adv_optimizer, gs, slots.inner_adversarial, when=~is_last)
        before = [cast_like(start, p) for start, p in zip(starts, call.params, strict=True)]
        there = dataclasses.replace(call, params=before)
        steps, inner = there.run(self.optimizer, gs, slots.inner, when=is_last)
        if self.reset_state:
            anew = self._anew(slots.inner_adversarial, there)
            climber = jax.tree.map(
                lambda new, old: jnp.where(is_last, cast_like(new, old), old), anew, climber
            )
        result = [
            jnp.where(is_last, (start - cast(p, start.dtype)) + step, -climb)
            for start, p, step, climb in zip(starts, call.params, steps, climbs, strict=True)
        ]
        return result, {
            "cache": starts,
            "away": [jnp.where(is_last, 0, jnp.ones_like(away)) for away in slots.away],
            "steps_since_sync": jnp.where(is_last, 0, next_count(count)),
            "inner": inner,
            "inner_adversarial": climber,
        }

    def _anew(self, climber: Any, call: WrappedUpdate) -> Any:
        return started_anew(self.adv_optimizer, climber, call.tree(call.params or []))

    def _round(
        self, gs: Leaves, slots: Slots, call: WrappedUpdate, params: Leaves
    ) -> tuple[Leaves, dict[str, Any]]:
        """A whole round in one call, with gradients taken here."""
        climber, points, grads = slots.inner_adversarial, params, gs
        for i in range(self.sync_period - 1):
            here = dataclasses.replace(call, params=points, gs=grads, known=[None] * len(gs))
            climbs, climber = here.run(self.adv_optimizer, grads, climber)
            points = [added(p, -climb) for p, climb in zip(points, climbs, strict=True)]
            found = call.leaves(call.extra[GRAD_FN](call.tree(points), i))
            grads = [cast(lv.as_array(x), g.dtype) for x, g in zip(found, gs, strict=True)]
            if self.batch_axis_name is not None:
                grads = jax.lax.pmean(grads, self.batch_axis_name)
        here = dataclasses.replace(call, gs=grads, known=[None] * len(gs))
        result, inner = here.run(self.optimizer, grads, slots.inner)
        if self.reset_state:
            climber = self._anew(slots.inner_adversarial, call)
        kept = {"cache": slots.cache, "away": slots.away, "steps_since_sync": slots.steps_since_sync}
        climber = jax.tree.map(cast_like, climber, slots.inner_adversarial)
        return result, {**kept, "inner": inner, "inner_adversarial": climber}


@builds(Sam)
def sam(
    optimizer: AnyTransform,
    adv_optimizer: AnyTransform,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Sharpness-aware minimization (SAM): steps by the gradient at a point uphill from the parameters.

    Of every k = sync_period calls all but the last climb from where the round began, and the last goes back
    and makes a step:

        theta <- theta - adv(g)                      theta <- theta0 + optimizer(g),  g at the point reached

    SAM of the paper is k = 2 with `chain(normalize(), sgd(rho))` for the climb. Gradients are taken at each
    point in turn, so that a round is k calls; with `opaque_mode` a round is one call, which takes the other
    gradients itself, by `grad_fn`.

    Args:
        optimizer: what makes the steps, of any library.
        adv_optimizer: what climbs, as an optimizer that would descend; its updates are negated.
        sync_period: the number k of calls of a round, >= 1.
        reset_state: whether the climb begins each round with a new state; a round ends with it.
        opaque_mode: whether a call is a whole round.
        batch_axis_name: with `opaque_mode`, the axes to average the gradients over that are taken here, as in
            `jax.lax.pmean`.

    Returns:
        An optimizer whose `update` needs the parameters, and with `opaque_mode` `grad_fn=`, a function of the
        parameters and of the number of the climb, from 0, that gives the gradient. Its state has the slot
        `cache`, the parameters where the round began, `away`, whether a leaf has left them, and
        `steps_since_sync`. Schedules of `optimizer` count rounds.

    Raises:
        TypeError: while tracing, `grad_fn` is missing.
        ValueError: `sync_period` is no int >= 1.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> climb = gradtx.chain(gradtx.normalize(), gradtx.sgd(0.1))
        >>> tx, theta = gradtx.sam(gradtx.sgd(0.5), climb), jnp.array([1.0])
        >>> state = tx.init(theta)
        >>> for _ in range(2):
        ...     theta, state = gradtx.apply_gradients(tx, theta, state, theta)
        ...     print(f"{theta[0]:.2f}")
        1.10
        0.45

    References:
        Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, 2020,
        https://arxiv.org/abs/2010.01412.
    """
    ...
