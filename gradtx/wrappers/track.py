"""Tracking: what a logger wants to know of an optimizer, measured where it runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Whole, WholeScalar
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform, added
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.norms import norm
from gradtx.core.numbers.hyperparams import array_of, tidy
from gradtx.core.numbers.paths import Path, lookup
from gradtx.core.numbers.states import kept_in
from gradtx.core.numbers.steps import next_count
from gradtx.core.numerics import divide, number_dtype, total
from gradtx.core.shards import over_shards
from gradtx.core.spec.arguments import factory
from gradtx.core.spec.fields import Period, ScalarOrSchedule
from gradtx.core.summing import sums_of_squares
from gradtx.wrappers.slot_errors import coded_slots, in_full_width, names_of_stored

NORMS = ("gradient_norm", "update_norm", "parameter_norm", "update_ratio")

STALLED, SLOT_ERROR = "stalled_fraction", "slot_error"
"""What `rounding` adds to the metrics, the latter for each slot that has a format."""


def _initial(track: Track, params: Any) -> dict[str, Any]:
    measured = (*NORMS, STALLED) if track.rounding else NORMS
    names = [f"{name}{group}" for group in ("", *(f"/{g}" for g in track.groups or {})) for name in measured]
    names += [f"{SLOT_ERROR}/{slot}" for slot in names_of_stored(track.inner)] if track.rounding else []
    names += _by_name(dict(_rates(track.inner, None)))
    if isinstance(track.inner, Composed):
        names += [name for unit in track.inner.program.rules for name in unit.transform.reports]
    return {name: jnp.zeros((), number_dtype()) for name in names}


def _rates(tx: Any, state: Any, outer: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each learning rate inside a transform with its place, and its value for the next update of a state."""
    if not isinstance(tx, Composed):
        return
    values = {} if state is None else tx.program.argument_values(state["numbers"], state["step"])
    for scope, arguments in tx.program.scopes.items():
        if "learning_rate" in arguments:
            yield (*outer, *scope), values.get((scope, "learning_rate"))
    for path, part in tx.program.wrapped.items():
        inner = None if state is None else lookup(state["slots"], path)
        yield from _rates(part, inner, (*outer, *path))


def _by_name(rates: dict[Path, Any]) -> dict[str, Any]:
    if len(rates) == 1:
        return {"learning_rate": next(iter(rates.values()))}
    return {f"learning_rate/{'.'.join(path)}": value for path, value in rates.items()}


class Track(Wrapper, name="track"):
    """Measures every so many updates; passes everything on as it is."""

    inner: Any
    every: Period
    groups: Mapping[str, Mask] | None
    axis_name: str | tuple[str, ...] | None
    rounding: bool
    metrics = Whole(_initial)
    measured = WholeScalar(dtype="int32")
    measured_at = WholeScalar(init=lambda track: -1, dtype="int32")

    needs = ("params",)

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        due = call.step % jnp.maximum(self.every.floor(), 1) == 0
        number = next_count(slots.measured)

        def measure(params: Any, state: Any) -> dict[str, jax.Array]:
            kept = [*coded_slots(self.inner, state, call.described)] if self.rounding else []
            updates, concluded, exact = call.preview(
                self.inner,
                gs,
                in_full_width(state, kept),
                params,
                number > 0,
                lambda after: [slot.flat(lookup(after, slot.place)) for slot in kept],
            )
            found = self._norms((gs, updates, params), call) | _by_name(dict(_rates(self.inner, state)))
            if self.rounding:
                found |= self._stalled(updates, params, call)
                errors = [slot.error(xs, self.axis_name) for slot, xs in zip(kept, exact, strict=True)]
                found |= {f"{SLOT_ERROR}/{s.name}": x for s, x in zip(kept, errors, strict=True)}
            happened: dict[str, list[jax.Array]] = {}
            for rule, scalars in concluded:
                for name, told in rule.reports.items():
                    happened.setdefault(name, []).append(told(scalars))
            for name, flags in happened.items():
                mean = slots.metrics[name]
                found[name] = mean + (jnp.stack(flags).any() - mean) / number
            return {name: call.number(x) for name, x in found.items()}

        metrics, call, state = call.look(due, measure, slots.metrics, slots.inner)
        result, inner = call.run(self.inner, gs, state)
        return result, {
            "metrics": metrics,
            "measured": jnp.where(due, number, slots.measured),
            "measured_at": jnp.where(due, call.step, slots.measured_at),
            "inner": inner,
        }

    def _stalled(
        self, updates: list[jax.Array], params: list[jax.Array], call: WrappedUpdate
    ) -> dict[str, jax.Array]:
        """The share of the elements with an update that it does not change, of the tree and of each group."""
        moved = [u != 0 for u in updates]
        stays = [m & (added(p, u) == p) for m, p, u in zip(moved, params, updates, strict=True)]
        counts = [[_number_of(flags) for flags in part] for part in (stays, moved)]
        found: dict[str, jax.Array] = {}
        for group, mask in {"": None, **(self.groups or {})}.items():
            on = [True] * len(params) if mask is None else call.chosen(mask, f"track: {group}")
            chosen = list(itertools.compress(params, on))
            sums = [total(list(itertools.compress(part, on))) for part in counts]
            over = [over_shards(jnp.asarray(x), self.axis_name, chosen) for x in sums]
            found[f"{STALLED}/{group}" if group else STALLED] = divide(*over)
        return found

    def _norms(self, leaves: tuple[list[jax.Array], ...], call: WrappedUpdate) -> dict[str, jax.Array]:
        sums = [sums_of_squares(own) for own in leaves]
        found: dict[str, jax.Array] = {}
        for group, mask in {"": None, **(self.groups or {})}.items():
            on = None if mask is None else call.chosen(mask, f"track: {group}")
            norms = [
                norm(
                    *(list(itertools.compress(part, on or [True] * len(part))) for part in pair),
                    self.axis_name,
                )
                for pair in zip(leaves, sums, strict=True)
            ]
            values = (*norms, divide(norms[1], norms[2]))
            suffix = f"/{group}" if group else ""
            found |= {f"{name}{suffix}": x for name, x in zip(NORMS, values, strict=True)}
        return found


def _number_of(flags: jax.Array) -> jax.Array:
    """How many of some flags are true; the first sums are of integers, which float32 would round."""
    along = flags.sum(axis=-1, dtype=jnp.int32) if flags.ndim else flags.astype(jnp.int32)
    return along.astype(number_dtype()).sum()


@factory
def track(
    inner: AnyTransform,
    *,
    every: ScalarOrSchedule = 100,
    groups: Mapping[str, Mask] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    rounding: bool = False,
) -> Transform:
    """Measures an optimizer while it runs; `gradtx.metrics(state)` reads what was found.

    Of every `every`-th update, from the first on, the state keeps

        gradient_norm    ||g||, of what this transform is given, so before any clipping inside it
        update_norm      ||u||, of what `inner` makes of it
        parameter_norm   ||theta||, before the update
        update_ratio     ||u|| / ||theta||
        learning_rate    the rate of that update; with several, `learning_rate/<transform>`
        clip_fraction    the share of the measured updates that `clip_by_global_norm` in `inner` scaled down

    and with `rounding`

        stalled_fraction      of the elements whose update is not 0, the share that it leaves as they are,
                              being too small for them
        slot_error/<slot>     ||kept - exact|| / ||exact|| of each slot in a format, as that of
                              `scale_by_adam.mu`: what is lost of its new value where it is stored

    A measured update reads every array once more; the others cost nothing. Norms are in at least float32.

    Args:
        inner: the wrapped transform, of any library; inside `accumulate` it is measured once an update,
            around it once a micro-step.
        every: the number of updates from one measurement to the next, a whole number from 1 to
            2^31 - 1; it is a hyperparameter: set it to 1 in the state to look closely, and nothing is
            compiled again.
        groups: norms of parts of the tree as well: a name and a mask (patterns, a predicate, a tree) for
            each, as `{"embedding": "*embed*"}`; `update_ratio/embedding` is then among the metrics.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.
        rounding: measure too what is lost in rounding: of the parameters by the updates, which around
            `precise_params` is nothing, and of the slots by the formats of `store`.

    Returns:
        The transform, which gives the updates of `inner` bit for bit.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.track(gradtx.sgd(0.5), every=1)
        >>> params = jnp.array([3.0, 4.0])
        >>> _, state = tx.update(jnp.array([0.0, 2.0]), tx.init(params), params)
        >>> gradtx.metrics(state)["update_norm"], gradtx.metrics(state)["update_ratio"]
        (1.0, 0.2)
    """
    groups = dict(groups) if groups else None
    return Track(inner=inner, every=every, groups=groups, axis_name=axis_name, rounding=rounding)


def metrics(x: Any) -> dict[str, Any]:
    """What `track` and the guards in an optimizer have found, as a flat dict for any logger.

    Args:
        x: an optimizer state, or what holds one: a `TrainState`, an `nnx.Optimizer`, another library's state.

    Returns:
        The metrics of `track` under their names, `measured_at`, the step of the update that they are of (-1
        before the first), and `skipped` for each guard and accumulation. Where a state has two of one kind, a
        name is preceded by the place: `accumulate.inner.track/gradient_norm`. Python numbers; arrays for a
        batch of states, tracers inside a traced function. Empty where there is nothing.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.metrics(gradtx.accumulate(gradtx.sgd(0.1), 4).init(jnp.zeros(2)))
        {'skipped': 0}
    """
    found = [(kept.path, name, value) for kept in kept_in(x) for name, value in _found(kept.slots)]
    names = [name for _, name, _ in found]
    return {
        name if names.count(name) == 1 else f"{'.'.join(path)}/{name}": tidy(array_of(value))
        for path, name, value in found
    }


def _found(slots: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The metrics in what one transform keeps."""
    if "measured_at" in slots:
        yield from slots["metrics"].items()
        yield "measured_at", slots["measured_at"]
    skipped = slots.get("skipped")
    if skipped is not None and not isinstance(skipped, Mapping) and array_of(skipped).dtype == jnp.int32:
        yield "skipped", skipped
