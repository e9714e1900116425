"""Measuring updates on their way through a chain: the last value, a moving average, several by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.combine import as_part
from gradtx.core.compose.rule import Slot, Whole
from gradtx.core.compose.wrapper import Wrapper, in_dtypes_of
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.kernels import mixing
from gradtx.core.engine.placement import typed_sharding, zeros
from gradtx.core.engine.program import Builder
from gradtx.core.engine.protocol import AnyTransform, Updates
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numbers.steps import next_count
from gradtx.core.numerics import Decay, cast, compute_dtype, is_trainable, like, number_dtype
from gradtx.core.spec.arguments import builds, factory
from gradtx.core.spec.fields import DType, DTypeName, ScalarOrSchedule
from gradtx.core.spec.spec import show

Measure = Callable[[Any], Any]
"""A function of a tree of updates, which has `None` where there is no gradient."""


def _zeros(measured: Callable[[Any], Any], params: Any) -> Any:
    """Zeros like a measurement of updates of some parameters, in the dtypes that they come in."""

    def seen(x: Any) -> jax.ShapeDtypeStruct:
        dtype = jnp.result_type(x)
        dtype = like(dtype, compute_dtype(dtype))
        return jax.ShapeDtypeStruct(jnp.shape(x), dtype, sharding=typed_sharding(x))

    with mixing():
        shapes = jax.eval_shape(measured, jax.tree.map(seen, params))
    return zeros(shapes, params)


class Measurement(Wrapper, name="measurement"):
    """u = g;  value = measure(g)."""

    measure: Any

    in_place = False
    value = Whole(lambda wrapper, params: _zeros(wrapper.measure, params))

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        return gs, {"value": in_dtypes_of(self.measure(call.tree(gs)), slots.value)}


class MeasureWithEma(Wrapper, name="measure_with_ema"):
    """u = g;  value = the average of measure(g), with more weight on what is recent."""

    measure: Any
    decay: Decay
    debias: bool
    accumulator_dtype: DTypeName

    in_place = False

    value = Whole(lambda wrapper, params: _zeros(wrapper.widened, params))

    def widened(self, updates: Any) -> Any:
        """A measurement in the dtype to average in."""

        def wide(x: Any) -> jax.Array:
            x = jnp.asarray(x)
            dtype = compute_dtype(x.dtype) if is_trainable(x.dtype) else number_dtype()
            return x.astype(self.accumulator_dtype or dtype)

        return jax.tree.map(wide, self.measure(updates))

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        # m / (1 - b^t) moves towards a new value by the part (1 - b) / (1 - b^t): no second average is kept.
        part = self.decay.complement
        if self.debias:
            part = jnp.minimum(part / self.decay.correction(call.number(next_count(call.step))), 1.0)

        def moved(old: jax.Array, new: Any) -> jax.Array:
            dtype = compute_dtype(old.dtype)
            old, new = cast(old, dtype), cast(jnp.asarray(new), dtype)
            return Decay(part.astype(old.real.dtype)).mix(old, new)

        average = jax.tree.map(moved, slots.value, self.measure(call.tree(gs)))
        return gs, {"value": in_dtypes_of(average, slots.value)}


class MeasureByTransform(Wrapper, name="measure_by_transform"):
    """u = g;  value = inner(g)."""

    inner: Any

    in_place = False
    value = Slot()

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        value, inner = call.run(self.inner, gs, slots.inner)
        return gs, {"value": value, "inner": inner}


def _unit(where: str, key: str, measure: Any) -> Wrapper:
    if isinstance(measure, MeasureWithEma):
        return measure
    if callable(measure) and not isinstance(measure, type):
        return Measurement(measure=measure)
    if not hasattr(measure, "update"):
        raise TypeError(
            f"{where}: {key!r} must be a function of the updates, a measure_with_ema(...) or another "
            f"transform, got {show(measure)}."
        )
    return MeasureByTransform(inner=as_part(where, measure))


class Monitor(Composed):
    """Measurements side by side, each by its name."""

    name: str
    measures: dict[str, Any]

    def __init__(self, name: str, measures: Mapping[str, Any]) -> None:
        for key, measure in measures.items():
            if not isinstance(key, str) or not key:
                raise ValueError(
                    f"{name}: {show(key)} cannot be the name of a measurement; give each one a word "
                    f"for a name, as in monitor({{'norm': gradtx.global_norm}})."
                )
            _unit(name, key, measure)
        self._set(name=name, measures=dict(measures))

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        if self.name == "snapshot":
            return self.name, tuple(*self.measures.items()), {}
        return self.name, (self.measures,), {}

    def _visit(self, builder: Builder) -> None:
        for key, measure in self.measures.items():
            with builder.inside(name=self.name):
                builder.add_declared(_unit(self.name, key, measure), key)


@factory
def snapshot(measure_name: str, measure: Measure) -> Transform:
    """Passes the updates on and keeps a measurement of them in the state.

    In a chain the updates are those of the transforms before it. The value stands in the state at
    `slots/snapshot.<measure_name>/value`; before the first update it is zero.

    Args:
        measure_name: the name of the measurement.
        measure: a function of the tree of updates that gives an array or a tree of small ones; their shapes
            must not change. Updates come in at least float32, with `None` for a leaf that is masked out or
            has no gradient. To keep the updates themselves use `monitor({name: identity()})`.

    Returns:
        A transform that changes no update.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(gradtx.snapshot("norm", gradtx.global_norm), gradtx.clip_by_global_norm(1.0))
        >>> u, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
        >>> float(state["slots"]["snapshot.norm"]["value"])
        5.0
    """
    return Monitor("snapshot", {measure_name: measure})


@builds(MeasureWithEma)
def measure_with_ema(
    measure: Measure,
    decay: ScalarOrSchedule,
    debias: bool = True,
    accumulator_dtype: DType | None = None,
) -> Transform:
    """Keeps an exponential moving average of a measurement of the updates.

        m = decay m + (1 - decay) measure(u)        value = m / (1 - decay^t), or m without debias

    It is for `monitor`. In a chain by itself it passes the updates on. The state holds the value alone,
    which moves by value <- value + (1 - decay) / (1 - decay^t) (measure(u) - value).

    Args:
        measure: a function of the tree of updates that gives an array or a tree of small ones; see
            `snapshot`. A bool counts as 0 or 1.
        decay: decay of the average, in [0, 1).
        debias: correct averages for their start at zero; divide by 1 - decay^t, with t from 1.
        accumulator_dtype: dtype to store what is accumulated in; that is the average. By default the
            measurement's, at least float32.

    Returns:
        A transform that changes no update.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.monitor(
        ...     {"clipped": gradtx.measure_with_ema(lambda u: gradtx.global_norm(u) > 1, 0.9)}
        ... )
        >>> u, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
        >>> float(state["slots"]["monitor.clipped"]["value"])
        1.0
    """
    ...


@factory
def monitor(measures: Mapping[str, AnyTransform | Callable[[Updates], jax.Array]]) -> Transform:
    """Passes the updates on and keeps several measurements of them in the state, each by its name.

    The values stand in the state at `slots/monitor.<name>/value`; before the first update they are zero.

    Args:
        measures: for each name a function of the tree of updates, as `snapshot` takes it, a
            `measure_with_ema`, or another transform: then the value is what it makes of the updates.

    Returns:
        A transform that changes no update.

    Raises:
        TypeError: a measurement is none of these.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.monitor(
        ...     {
        ...         "norm": gradtx.global_norm,
        ...         "average": gradtx.measure_with_ema(gradtx.global_norm, decay=0.5),
        ...     }
        ... )
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in (1.0, 4.0):
        ...     u, state = tx.update(jnp.array([g]), state)
        >>> {name: float(kept["value"]) for name, kept in state["slots"].items()}
        {'monitor.norm': 4.0, 'monitor.average': 3.0}
    """
    return Monitor("monitor", measures)
